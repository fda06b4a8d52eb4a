"""What calls give back: built-in look-ups, decoders of constants, this file's functions, and all others."""

from __future__ import annotations

import ast
import copy
from typing import TYPE_CHECKING

from audit.risk.places import is_private
from audit.risk.python import folding, rules, texts
from audit.risk.python.values import (
    HOLE,
    NOTHING,
    UNKNOWN,
    Value,
    constant,
    elements,
    merge,
    merged_taints,
    named,
    replace,
    tainted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.values import Constant

_PASSED_ON = frozenset(
    {
        "list",
        "tuple",
        "iter",
        "dict",
        "set",
        "sorted",
        "copy.copy",
        "copy.deepcopy",
        "os.environ.copy",
        "itertools.chain",
        "zip",
        "enumerate",
        "filter",
        "typing.cast",
        "contextlib.closing",
        "io.StringIO",
        "io.BytesIO",
        "contextlib.ExitStack().enter_context",
        "frozenset",
    }
)
_LOOKUPS = frozenset({"getattr", "inspect.getattr_static", "object.__getattribute__", "type.__getattribute__"})
_IMPORTS = frozenset(
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
_VARIABLES = frozenset(
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
_TEXTHOLES = frozenset({"os.path.join", "pathlib.Path", "pathlib.PurePath", "str", "operator.add"})
_MAX_RANGE = 256
LOOKED_UP = frozenset({"__getattribute__", "__getattr__"})
_MAPPED = frozenset({"map", "concurrent.futures.ThreadPoolExecutor().map", "itertools.starmap"})


def keywords(ev: Evaluator, node: ast.Call) -> dict[str, Value]:
    """Return the keyword arguments of a call, those of a literal dictionary included."""
    given = {keyword.arg: ev.value(keyword.value) for keyword in node.keywords if keyword.arg}
    for spread in (ev.value(keyword.value) for keyword in node.keywords if not keyword.arg):
        given |= {key: part for key, part in spread.items or () if isinstance(key, str)} | {"**": spread}
    return given


def positional(ev: Evaluator, node: ast.Call) -> list[Value]:
    """Return the positional arguments of a call, starred ones unfolded."""
    args: list[Value] = []
    for arg in node.args:
        if isinstance(arg, ast.Starred):
            inner = ev.value(arg.value)
            args += [part for _, part in inner.items] if inner.items else [elements(inner)]
        else:
            args.append(ev.value(arg))
    return args


class Call:
    """One call with what it is given."""

    __slots__ = ("_names", "args", "attr", "base", "given", "keywords", "node")

    def __init__(self, ev: Evaluator, node: ast.Call, names: Sequence[str]) -> None:
        self.node = node
        self._names = names
        self.args = positional(ev, node)
        self.keywords = keywords(ev, node)
        # The method's name and its object.
        self.attr, self.base = receiver(ev, node)
        # Where the arguments come from. A child's own environment is not handed to anybody.
        self.given = sent(names, self.args, {key: value for key, value in self.keywords.items() if key != "env"}) or {}

    @property
    def reaching(self) -> Mapping[str, ast.AST]:
        """Return where everything that the call gets to see comes from."""
        own = merged_taints((self.base,))
        if own and any("headers" in name for name in self._names):
            # What is already in the headers goes with the request, not with setting one more.
            own = {label: node for label, node in own.items() if label != "variable"}
        return {**self.given, **own} if own else self.given

    def instead(self, args: Sequence[Value]) -> Call:
        """Return the same call with other arguments."""
        other = copy.copy(self)
        other.args, other.keywords = list(args), {}
        return other


def call_of(ev: Evaluator, node: ast.Call, func: Value) -> Call:
    """Return a call with what it is given; once all calls are known and nothing is assumed, it is always the same."""
    known = ev.calls.get(id(node)) if ev.settled else None
    if known is None:
        known = Call(ev, node, func.names)
        if ev.settled:
            ev.calls[id(node)] = known
    return known


def sent(names: Sequence[str], args: Sequence[Value], keywords: Mapping[str, Value]) -> Mapping[str, ast.AST] | None:
    """Return where what a call is given comes from, but for a credential that stands where one belongs."""
    taints = merged_taints((*args, *keywords.values()))
    if not taints or "variable" not in taints:
        return taints
    logs_in = any(map(_logs_in, names))
    apart = [] if logs_in else [part for arg in args for part in _outside_headers(names, args, arg)]
    for key, value in keywords.items():
        if key in rules.CREDENTIAL_TABLES or (value.items and "grant_type" in [name for name, _ in value.items]):
            apart += [part for name, part in value.items or ((None, value),) if not rules.carries_credentials(name)]
        elif key not in rules.CREDENTIAL_ARGUMENTS:
            apart.append(value)
    if "variable" in (merged_taints(apart) or {}):
        return taints
    return {label: node for label, node in taints.items() if label != "variable"}


def _outside_headers(names: Sequence[str], args: Sequence[Value], arg: Value) -> list[Value]:
    """Return what of an argument does not stand in a header for credentials, as far as headers are set here."""
    if any(name.rpartition(".")[2] in rules.HEADER_SETTERS for name in names):
        return [] if any(map(rules.carries_credentials, args[0].consts)) else [arg]
    if arg.items and any("headers" in name for name in names):
        return [part for key, part in arg.items if not rules.carries_credentials(key)]
    return [arg]


def _logs_in(name: str) -> bool:
    """Return whether the arguments of a call say who is calling: a client that is made, or a log-in."""
    last = name.rpartition(".")[2]
    return last in rules.CREDENTIAL_CALLS or (last[:1].isupper() and not last.endswith("Request"))


def result(ev: Evaluator, node: ast.Call) -> Value:
    """Return what a call may give back."""
    func = ev.value(node.func)
    call = call_of(ev, node, func)
    attr, base, args = call.attr, call.base, call.args
    found = applied(ev, node, func, args, call.keywords)
    if attr in LOOKED_UP and args:
        found = [_fetched(ev, base if len(args) == 1 else args[0], args[-1])]
    elif attr:
        found += texts.method(ev, base, attr, args, call.keywords)
    given = merge(found) if found else UNKNOWN
    if given is NOTHING:
        given = UNKNOWN
    if func.dynamic and not given.names:
        given = replace(given, dynamic=True)
    if attr == "hex" and not given.consts:
        given = tainted(given, {"encoded": node})
    if not rules.KEEP_NOTHING.isdisjoint(func.names):
        return replace(given, taints=None) if given.taints else given
    if not _VARIABLES.isdisjoint(func.names):
        return tainted(given, merged_taints(args[1:]))
    own = merged_taints((base, func))
    return tainted(given, {**own, **call.given} if own and call.given else own or call.given)


def receiver(ev: Evaluator, node: ast.Call) -> tuple[str, Value]:
    """Return the name and the object of the method that a call calls, or an empty name."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, ev.value(node.func.value)
    return ev.value(node.func).owner or ("", NOTHING)


def applied(
    ev: Evaluator, node: ast.Call, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> list[Value]:
    """Return what calling a value with arguments may give."""
    found: list[Value] = []
    for name in func.names:
        found.append(_outside(ev, node, name, func, args, keywords))
    for scope, instance in func.scopes:
        if scope.is_class and not instance:
            found.append(Value(scopes=((scope, True),)))
        elif scope.is_function:
            bound = dict(zip(scope.arguments(), args, strict=False)) | keywords
            found.append(ev.returned(scope, bound))
    return found


def instance_of(value: Value) -> Value:
    """Return the value of an object of a class."""
    return Value(
        names=tuple(f"{name}()" for name in value.names), scopes=tuple((scope, True) for scope, _ in value.scopes)
    )


def _outside(
    ev: Evaluator, node: ast.Call, name: str, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> Value:
    first = args[0] if args else UNKNOWN
    special = _special(ev, node, name, func, args, keywords)
    if special is not None:
        return special
    consts = _folded(name, args)
    given = Value(
        # A result that is known needs no name; a path keeps its methods.
        () if consts and not name.startswith("pathlib.") else (f"{name}()",),
        consts,
        built=bool(consts),
        dynamic=first.dynamic and name in _PASSED_ON,
        open=not consts or any(arg.open for arg in args),
    )
    if name in {"pathlib.Path.home", "pathlib.Path.cwd"}:
        given = replace(given, names=("pathlib.Path()",))
    if name in _PASSED_ON and args:
        given = replace(first, names=(*first.names, f"{name}()"))
    label = rules.source_of(name)
    if label == "file" and _reads_secret(first if args else receiver(ev, node)[1]):
        label = "secret"
    if label in {"file", "net", "input", "secret", "decoded", "encoded"}:
        given = tainted(given, {label: node})
    return given


def _reads_secret(path: Value) -> bool:
    return any(is_private(const.replace(HOLE, "*")) for const in path.consts if isinstance(const, str))


def _special(
    ev: Evaluator, node: ast.Call, name: str, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> Value | None:
    head, _, last = name.rpartition(".")
    if name in _LOOKUPS and len(args) >= 2:
        if _is_shouted(node.args[1:2]):
            return merge([UNKNOWN, *args[2:]])
        return _looked_up(ev, args[0], args[1], args[2:])
    if name in _IMPORTS and (args or keywords):
        return _imported(name, args[0] if args else next(iter(keywords.values())))
    if name in {"globals", "locals"} or (name == "vars" and not args):
        return named(f"{name}()")
    if name == "vars":
        return ev.attribute(args[0], "__dict__")
    if (
        last in texts.GETTERS
        and args
        and (head.endswith((".__dict__", "()", ".__globals__")) or head in {"sys.modules", "builtins"})
    ):
        return ev.subscript(named(head), args[0]) if head != "builtins" else None
    if name in _VARIABLES and args:
        names = [const for const in args[0].consts if isinstance(const, str)]
        return merge([variable(text, node) for text in names]) if names else UNKNOWN
    if last in {"items", "values"} and (
        head.endswith((".__dict__", "__builtins__")) or head in {"sys.modules", "globals()"}
    ):
        held = Value(dynamic=True, open=True)
        entry = Value(items=((0, UNKNOWN), (1, held))) if last == "items" else held
        return Value(items=((None, entry),), open=True)
    if name == "functools.partial()" and func.items:
        before = [part for _, part in func.items]
        return merge(applied(ev, node, before[0], [*before[1:], *args], keywords))
    if name == "functools.partial" and args and not _LOOKUPS.isdisjoint(args[0].names):
        return Value((f"{name}()",), items=tuple(enumerate(args)))
    if name == "functools.partial" and args:
        return replace(args[0], items=None)
    if name in {"operator.attrgetter", "operator.methodcaller", "operator.itemgetter"}:
        return Value((f"{name}()",), items=tuple(enumerate(args)))
    if name == "operator.attrgetter()" and args:
        return _attributes(ev, func, args[0])
    if name == "operator.methodcaller()" and args and func.items:
        found = _looked_up(ev, args[0], func.items[0][1], ())
        return merge(applied(ev, node, found, [part for _, part in func.items[1:]], {})) if found.names else found
    if name == "operator.itemgetter()" and args and func.items:
        return ev.subscript(args[0], func.items[0][1])
    if name in {"operator.getitem"} and len(args) > 1:
        return ev.subscript(args[0], args[1])
    return _decoded(node, name, func, args) or _built(ev, node, name, args, keywords)


def _decoded(node: ast.Call, name: str, func: Value, args: Sequence[Value]) -> Value | None:
    """Return what readers of literals and look-ups of codecs make of constants."""
    if name in {"ast.literal_eval", "json.loads"} and args and args[0].consts and not args[0].open:
        read = [folding.literal(name, const) for const in args[0].consts]
        return replace(merge(map(texts.plain, read)), built=True) if None not in read else None
    if name == "shlex.split" and args and args[0].consts and not args[0].open:
        words = [folding.words(const) for const in args[0].consts]
        return merge(map(texts.plain, words)) if None not in words else None
    if name == "str.maketrans" and args:
        table = args[0] if len(args) == 1 else texts.plain(folding.maketrans(*(_only(arg) for arg in args)))
        return table if table.items else None
    if name == "codecs.getdecoder" and args:
        return Value((f"{name}()",), items=((0, args[0]),))
    if name == "codecs.getdecoder()" and args and func.items:
        made = [folding.recoded(*each) for each in folding.combinations([args[0].consts, func.items[0][1].consts])]
        decoded = Value(consts=tuple(const for const in made if const is not None), built=True, open=None in made)
        return Value(items=((0, tainted(decoded, {"decoded": node})), (1, UNKNOWN)))
    return None


def _only(value: Value) -> Constant:
    return value.consts[0] if len(value.consts) == 1 else None


def _built(ev: Evaluator, node: ast.Call, name: str, args: Sequence[Value], keywords: dict[str, Value]) -> Value | None:
    """Return what the built-in functions make of containers."""
    if name == "functools.reduce" and len(args) > 1:
        return _reduced(ev, node, args)
    if name in _MAPPED and len(args) > 1:
        each = texts.parts(args[1])
        if each is not None and len(each) <= 4096:
            made = [merge(applied(ev, node, args[0], [part], {})) for part in each]
            return Value(items=tuple(enumerate(made)), built=True)
        return Value(items=((None, merge([UNKNOWN, *applied(ev, node, args[0], [elements(args[1])], {})])),))
    if name == "reversed" and args:
        each = texts.parts(args[0])
        return Value(items=tuple(enumerate(reversed(each))), built=True) if each is not None else None
    if name in {"list", "tuple"} and args and args[0].items is None and args[0].consts:
        each = texts.parts(args[0])
        return Value(items=tuple(enumerate(each))) if each is not None else None
    if name in {"bytes", "bytearray"} and args and args[0].items is not None:
        numbers = [part.consts[0] for _, part in args[0].items if len(part.consts) == 1]
        if len(numbers) == len(args[0].items) and all(
            isinstance(number, int) and 0 <= number < 256 for number in numbers
        ):
            return constant(bytes(numbers), built=True)  # type: ignore[arg-type]
    if name == "range" and args:
        return _range(args)
    if name == "dict":
        items = [*(args[0].items or ()), *keywords.items()] if args else list(keywords.items())
        inner = merged_taints(args)
        return Value(
            (*(args[0].names if args else ()),), items=tuple(items), taints=inner, open=bool(args) and args[0].open
        )
    if name == "next" and args:
        return elements(args[0])
    if name == "zip":
        return None
    return (
        Value(items=((None, Value(items=((0, UNKNOWN), (1, elements(args[0]))))),))
        if name == "enumerate" and args
        else None
    )


def _range(args: Sequence[Value]) -> Value | None:
    numbers = [arg.consts[0] for arg in args if len(arg.consts) == 1 and isinstance(arg.consts[0], int)]
    if len(numbers) != len(args) or len(args) > 3 or (len(numbers) == 3 and numbers[2] == 0):
        return None
    span = range(*numbers)
    # A range may be longer than `len` can say.
    if span[_MAX_RANGE:]:
        return None
    return Value(items=tuple((place, constant(number)) for place, number in enumerate(span)))


def _reduced(ev: Evaluator, node: ast.Call, args: Sequence[Value]) -> Value | None:
    each = texts.parts(args[1])
    if each is None or len(each) > 64:
        return Value(dynamic="getattr" in args[0].names, open=True)
    so_far = args[2] if len(args) > 2 else each.pop(0) if each else UNKNOWN
    for part in each:
        so_far = merge(applied(ev, node, args[0], [so_far, part], {}))
    return so_far


def _is_shouted(keys: Sequence[ast.expr]) -> bool:
    """Return whether a name is in capitals, as in `getattr(logging, level.upper())`: that of a constant."""
    return any(
        isinstance(key, ast.Call) and isinstance(key.func, ast.Attribute) and key.func.attr == "upper" for key in keys
    )


def _looked_up(ev: Evaluator, base: Value, key: Value, default: Sequence[Value]) -> Value:
    """Return what `getattr` gives; a name that can't be told on a module or the unknown makes it dynamic."""
    names = [const for const in key.consts if isinstance(const, str) and HOLE not in const]
    found = [ev.attribute(base, name) for name in names]
    if not names or key.open:
        found.append(_some_attribute(base))
    given = merge([*found, *default])
    if key.built and "builtins" in base.names and not all(name in rules.BUILTINS for name in names):
        # What is put together and then isn't there was put together otherwise than could be followed.
        given = replace(given, dynamic=True)
    return replace(given, built=True) if key.built and (given.names or given.scopes) else given


def _fetched(ev: Evaluator, base: Value, key: Value) -> Value:
    """Return what `__getattribute__` gives: nobody calls it by name who has nothing to hide."""
    known = key.consts and not key.open
    own = base.scopes or "super()" in base.names
    return _looked_up(ev, base, key, ()) if known or own else Value(dynamic=True, open=True)


def _some_attribute(base: Value) -> Value:
    """Return what an attribute whose name can't be told may be."""
    if base.dynamic or any(not name.endswith(")") and name not in rules.LEAVES for name in base.names):
        return Value(dynamic=True, open=True)
    if base.names and rules.LEAVES.issuperset(base.names):
        # Whatever these hold, nothing of it runs code.
        return UNKNOWN
    # This file's own objects hold nothing but this file's own methods.
    return UNKNOWN if base.scopes and not base.names else named("?.?")


def _imported(name: str, key: Value) -> Value:
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


def _attributes(ev: Evaluator, getter: Value, base: Value) -> Value:
    found: list[Value] = []
    for _, wanted in getter.items or ():
        for const in wanted.consts:
            target = base
            for attr in str(const).split("."):
                target = ev.attribute(target, attr)
            found.append(replace(target, built=wanted.built))
        if not wanted.consts or wanted.open:
            found.append(Value(dynamic=True, open=True))
    return merge(found)


def variable(text: str, node: ast.AST) -> Value:
    """Return the value of an environment variable."""
    known = {"HOME": "~", "USERPROFILE": "~", "TMPDIR": "/tmp", "SHELL": "/bin/sh"}.get(text)  # noqa: S108
    found = Value(("os.environ[]",), (known,) if known else (), open=known is None)
    return tainted(found, {"variable": node}) if rules.looks_secret(text) else found


def _folded(name: str, args: Sequence[Value]) -> tuple[Constant, ...]:
    work = folding.FUNCTIONS.get(name)
    if work is None:
        return ()
    choices = [arg.consts or ((HOLE,) if name in _TEXTHOLES else ()) for arg in args]
    if name not in _TEXTHOLES:
        choices = [
            tuple(const for const in choice if not (isinstance(const, str) and HOLE in const)) for choice in choices
        ]
    made = [_attempt(work, combination) for combination in folding.combinations(choices)]
    return tuple(const for const in made if const is not None)


def _attempt(work: Callable[..., Constant], args: tuple[Constant, ...]) -> Constant:
    try:
        return work(*args)
    except (TypeError, ValueError):  # more or fewer arguments than the function takes
        return None
