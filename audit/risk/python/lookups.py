"""What names in text lead to: attributes that are looked up, modules that are imported, environment variables."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import rules
from audit.risk.python.values import HOLE, UNKNOWN, Value, merge, named, replace, tainted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.risk.python.evaluate import Evaluator

LOOKUPS = frozenset({"getattr", "inspect.getattr_static", "object.__getattribute__", "type.__getattribute__"})
IMPORTS = frozenset(
    {
        "__import__",
        "importlib.import_module",
        "__loader__.load_module",
        "__spec__.loader.load_module",
        "pkgutil.resolve_name",
        "pydoc.locate",
        "pydoc.safeimport",
        "importlib.util.find_spec",
        "_frozen_importlib.BuiltinImporter.load_module",
        "importlib.machinery.BuiltinImporter.load_module",
        "importlib.machinery.BuiltinImporter().load_module",
        "imp.load_module",
        "importlib.reload",
    }
)
VARIABLES = frozenset(
    {
        "os.getenv",
        "os.getenvb",
        "os.environ.get",
        "os.environ.pop",
        "os.environ.setdefault",
        "os.environ.__getitem__",
        "os.environb.get",
    }
)


def is_shouted(keys: Sequence[ast.expr]) -> bool:
    """Return whether a name is in capitals, as in `getattr(logging, level.upper())`: that of a constant."""
    return any(
        isinstance(key, ast.Call) and isinstance(key.func, ast.Attribute) and key.func.attr == "upper" for key in keys
    )


def looked_up(ev: Evaluator, base: Value, key: Value, default: Sequence[Value]) -> Value:
    """Return what `getattr` gives; a name that can't be told on a module or the unknown makes it dynamic."""
    names = [const for const in key.consts if isinstance(const, str) and HOLE not in const]
    found = [_method(ev, base, name) for name in names]
    if not names or key.open:
        found.append(_some_attribute(base))
    given = merge([*found, *default])
    if len(names) == 1 and given.owner is None and not key.open:
        given = replace(given, owner=(names[0], base))
    if key.built and "builtins" in base.names and not all(name in rules.BUILTINS for name in names):
        # What is put together and then isn't there was put together otherwise than could be followed.
        given = replace(given, dynamic=True)
    return replace(given, built=True) if key.built and (given.names or given.scopes) else given


def _method(ev: Evaluator, base: Value, name: str) -> Value:
    """Return an attribute; some methods mean the same on whatever object."""
    found = ev.attribute(base, name)
    distinct = name in rules.DISTINCT or name in rules.STATEMENT_METHODS
    return merge([found, named(f"?.{name}")]) if distinct and not base.names and not base.scopes else found


def fetched(ev: Evaluator, base: Value, key: Value) -> Value:
    """Return what `__getattribute__` gives: nobody calls it by name who has nothing to hide."""
    known = key.consts and not key.open
    own = base.scopes or "super()" in base.names
    return looked_up(ev, base, key, ()) if known or own else Value(dynamic=True, open=True)


def _some_attribute(base: Value) -> Value:
    """Return what an attribute whose name can't be told may be."""
    if base.dynamic or any(not name.endswith(")") and name not in rules.LEAVES for name in base.names):
        return Value(dynamic=True, open=True)
    if base.names and rules.LEAVES.issuperset(base.names):
        # Whatever these hold, nothing of it runs code.
        return UNKNOWN
    # This file's own objects hold nothing but this file's own methods.
    return UNKNOWN if base.scopes and not base.names else named("?.?")


def imported(name: str, key: Value) -> Value:
    """Return the module that an import by a name in text gives."""
    found: list[Value] = []
    for const in key.consts:
        if not isinstance(const, str) or HOLE in const:
            continue
        module, _, attribute = const.partition(":")
        target = f"{module}.{attribute}" if attribute else module
        # `__import__("os.path")` gives `os`.
        found.append(named(rules.canonical(target.partition(".")[0] if name == "__import__" else target)))
    if not found or key.open:
        found.append(Value(dynamic=True, open=True))
    return replace(merge(found), built=key.built)


def attributes(ev: Evaluator, getter: Value, base: Value) -> Value:
    """Return what `operator.attrgetter` finds."""
    found: list[Value] = []
    for _, wanted in getter.items or ():
        for const in wanted.consts:
            target = base
            for attr in str(const).split("."):
                owner, target = (attr, target), _method(ev, target, attr)
            found.append(replace(target, built=wanted.built or target.built, owner=owner))
        if not wanted.consts or wanted.open:
            found.append(Value(dynamic=True, open=True))
    return merge(found)


def variable(text: str, node: ast.AST) -> Value:
    """Return the value of an environment variable."""
    known = {"HOME": "~", "USERPROFILE": "~", "TMPDIR": "/tmp", "SHELL": "/bin/sh"}.get(text)  # noqa: S108
    found = Value(("os.environ[]",), (known,) if known else (), open=known is None)
    return tainted(found, {"variable": node}) if rules.looks_secret(text) else found
