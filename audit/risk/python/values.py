"""What a Python expression may be: names it may stand for, constants it may hold, and where its data came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping

    from audit.risk.python.scopes import Scope

Constant = str | bytes | int | float | bool | None
# Stands in a constant for the part that is not known.
HOLE = "\ufffc"
MAX_ALTERNATIVES = 48
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Value:
    """All that is known of an expression, over all the ways in which it may come about."""

    names: tuple[str, ...] = ()
    consts: tuple[Constant, ...] = ()
    # Labels of where data came from, each with the node that brought it in.
    taints: Mapping[str, ast.AST] | None = None
    # Parts of a literal container; the key is None where it is not known.
    items: tuple[tuple[Constant, Value], ...] | None = None
    # Functions and classes of this file, and whether this is an instance of the class.
    scopes: tuple[tuple[Scope, bool], ...] = ()
    # The text was put together from pieces, or decoded.
    built: bool = False
    # The name was looked up while running and could not be told.
    dynamic: bool = False
    # Other values are possible than those listed.
    open: bool = False

    def items_values(self) -> list[Value]:
        """Return the parts of a container."""
        return [part for _, part in self.items or ()]


UNKNOWN = Value(open=True)
NOTHING = Value()


def constant(value: Constant, *, built: bool = False) -> Value:
    """Return the value of a constant."""
    return Value(consts=(value,), built=built)


def named(*names: str) -> Value:
    """Return the value of something outside this file."""
    return Value(names=tuple(name for name in names if len(name) <= MAX_NAME), open=not names)


def tainted(value: Value, taints: Mapping[str, ast.AST] | None) -> Value:
    """Return the value with more origins."""
    if not taints:
        return value
    return replace(value, taints={**taints, **value.taints} if value.taints else taints)


def merge(values: Iterable[Value]) -> Value:
    """Return the value of what may be any of these."""
    present = [value for value in values if value is not NOTHING]
    if len(present) == 1:
        return present[0]
    if not present:
        return NOTHING
    consts = _distinct(const for value in present for const in value.consts)
    items = [item for value in present for item in value.items or ()]
    return Value(
        names=tuple(dict.fromkeys(name for value in present for name in value.names))[:MAX_ALTERNATIVES],
        consts=consts[:MAX_ALTERNATIVES],
        taints=merged_taints(present),
        items=tuple(items[: 4 * MAX_ALTERNATIVES]) if any(value.items is not None for value in present) else None,
        scopes=tuple(dict.fromkeys(scope for value in present for scope in value.scopes)),
        built=any(value.built for value in present),
        dynamic=any(value.dynamic for value in present),
        open=any(value.open for value in present) or len(consts) > MAX_ALTERNATIVES,
    )


def merged_taints(values: Iterable[Value]) -> Mapping[str, ast.AST] | None:
    """Return the origins of all of these, with those of their parts."""
    taints: dict[str, ast.AST] = {}
    for value in values:
        if value.taints:
            for label, node in value.taints.items():
                taints.setdefault(label, node)
        if value.items:
            inner = merged_taints(part for _, part in value.items)
            for label, node in (inner or {}).items():
                taints.setdefault(label, node)
    return taints or None


def elements(value: Value) -> Value:
    """Return what iterating or indexing with an unknown key may give."""
    if value.items is not None:
        return tainted(merge(part for _, part in value.items), value.taints)
    letters: list[Value] = []
    for const in value.consts:
        if isinstance(const, str | bytes) and len(const) <= MAX_ALTERNATIVES:
            letters += [constant(letter) for letter in const]
    return tainted(replace(merge([*letters, UNKNOWN]), open=True), value.taints)


def _distinct(consts: Iterable[Constant]) -> tuple[Constant, ...]:
    # 1, True and 1.0 are equal, but not the same.
    return tuple({(type(const), const): const for const in consts}.values())
