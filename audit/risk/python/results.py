"""What calls of functions that everybody has give back: look-ups, decoders of constants, work on containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.risk.python import folding, rules, texts
from audit.risk.python.lookups import (
    IMPORTS,
    LOOKUPS,
    VARIABLES,
    attributes,
    imported,
    is_shouted,
    looked_up,
    variable,
)
from audit.risk.python.values import (
    HOLE,
    QUOTED,
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
    import ast
    from collections.abc import Callable, Sequence

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.values import Constant

_TEXTHOLES = frozenset({"os.path.join", "pathlib.Path", "pathlib.PurePath", "str", "operator.add"})
_MAX_RANGE = 256
_MAPPED = frozenset({"map", "concurrent.futures.ThreadPoolExecutor().map", "itertools.starmap"})
# The last part of a name that may look something up in a table of names.
_LASTS = texts.GETTERS | {"items", "values", "accept"}
# What is followed in ways of its own.
_WALKS = frozenset({"os.walk", "os.fwalk"})
_SEARCHES = _WALKS | {"glob.glob", "glob.iglob"}
_FOLLOWED = (
    LOOKUPS
    | IMPORTS
    | VARIABLES
    | _MAPPED
    | _SEARCHES
    | {
        *(
            "inspect.getmembers",
            "shlex.quote",
            "itertools.product",
            "inspect.getmembers_static",
            "globals",
            "locals",
            "vars",
            "functools.partial",
            "functools.partial()",
            "functools.reduce",
        ),
        *("operator.attrgetter", "operator.methodcaller", "operator.itemgetter", "operator.getitem"),
        *("operator.attrgetter()", "operator.methodcaller()", "operator.itemgetter()"),
        *("ast.literal_eval", "json.loads", "shlex.split", "str.maketrans", "codecs.getdecoder", "codecs.getdecoder()"),
        *("reversed", "list", "tuple", "bytes", "bytearray", "range", "dict", "next", "enumerate"),
    }
)


def special(
    ev: Evaluator, node: ast.Call, name: str, func: Value, args: Sequence[Value], keywords: dict[str, Value]
) -> Value | None:
    """Return what a call of a function that everybody has may give, or None for one that is like all others."""
    head, _, last = name.rpartition(".")
    if last not in _LASTS and name not in _FOLLOWED:
        return None
    if name in LOOKUPS and len(args) >= 2:
        if is_shouted(node.args[1:2]):
            return merge([UNKNOWN, *args[2:]])
        return looked_up(ev, args[0], args[1], args[2:])
    if name in IMPORTS and (args or keywords):
        return imported(name, args[0] if args else next(iter(keywords.values())))
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
    if name in VARIABLES and args:
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
        return merge(ev.applied(node, before[0], [*before[1:], *args], keywords))
    if name == "functools.partial" and args and not LOOKUPS.isdisjoint(args[0].names):
        return Value((f"{name}()",), items=tuple(enumerate(args)))
    if name == "functools.partial" and args:
        return replace(args[0], items=None)
    if name in {"operator.attrgetter", "operator.methodcaller", "operator.itemgetter"}:
        return Value((f"{name}()",), items=tuple(enumerate(args)))
    if name == "operator.attrgetter()" and args:
        return attributes(ev, func, args[0])
    if name == "operator.methodcaller()" and args and func.items:
        found = looked_up(ev, args[0], func.items[0][1], ())
        return merge(ev.applied(node, found, [part for _, part in func.items[1:]], {})) if found.names else found
    if name == "operator.itemgetter()" and args and func.items:
        return ev.subscript(args[0], func.items[0][1])
    if name == "inspect.getmembers" and args and _is_outside_module(args[0]):
        return Value(items=((None, Value(items=((0, UNKNOWN), (1, Value(dynamic=True, open=True))))),), open=True)
    if name in {"operator.getitem"} and len(args) > 1:
        return ev.subscript(args[0], args[1])
    return _decoded(node, name, func, args) or _built(ev, node, name, args, keywords)


def _is_outside_module(value: Value) -> bool:
    return any("(" not in name and name != "__main__" and name not in rules.LEAVES for name in value.names)


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
            made = [merge(ev.applied(node, args[0], [part], {})) for part in each]
            return Value(items=tuple(enumerate(made)), built=True)
        return Value(items=((None, merge([UNKNOWN, *ev.applied(node, args[0], [elements(args[1])], {})])),))
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
    if name in _SEARCHES and args:
        return _searched(node, args[0], walks=name in _WALKS)
    if name == "itertools.product" and "repeat" in keywords:
        # All words of a length: what is tried one after the other.
        return Value(items=((None, Value(taints={"guess": node}, open=True)),), taints={"guess": node}, open=True)
    if name.endswith("socket().accept"):
        return Value(items=((0, tainted(named("socket.socket()"), {"net": node})), (1, UNKNOWN)))
    if name == "shlex.quote" and args and not args[0].consts:
        # Whatever it is, it stays one word.
        return Value((), (QUOTED,), args[0].taints, built=False)
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
    return (
        Value(items=((None, Value(items=((0, UNKNOWN), (1, elements(args[0]))))),))
        if name == "enumerate" and args
        else None
    )


def _searched(node: ast.Call, pattern: Value, *, walks: bool) -> Value:
    """Return the paths that a search gives: all that is known of them is the pattern."""
    found = {"file": node}
    if walks:
        under = tuple(f"{const}/{HOLE}" for const in pattern.consts if isinstance(const, str))
        base = Value(consts=(*pattern.consts, *under), taints=found, open=pattern.open)
        names = Value(items=((None, UNKNOWN),), taints=found, open=True)
        return Value(items=((None, Value(items=((0, base), (1, names), (2, names)))),), taints=found, open=True)
    path = Value(consts=pattern.consts, taints=found, open=True)
    return Value(items=((None, path),), taints=found, open=True)


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
        so_far = merge(ev.applied(node, args[0], [so_far, part], {}))
    return so_far


def folded(name: str, args: Sequence[Value]) -> tuple[Constant, ...]:
    """Return the constants that a function of constants gives."""
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
