"""What text and containers become: sums, joins, formats, splits, elements."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import folding
from audit.risk.python.values import HOLE, UNKNOWN, Value, constant, elements, merge, merged_taints, replace, tainted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.values import Constant

GETTERS = frozenset({"get", "pop", "setdefault", "__getitem__"})


def combine(operator: ast.operator, left: Value, right: Value) -> Value:
    """Return what an operator makes of two values."""
    taints = merged_taints((left, right))
    if not (left.consts or right.consts or left.items or right.items or left.names or right.names):
        return Value((), (), taints, built=True, dynamic=left.dynamic or right.dynamic, open=True)
    if isinstance(operator, ast.Div) and "pathlib.Path()" in (*left.names, *right.names):
        consts = [folding.FUNCTIONS["pathlib.Path"](*pair) for pair in _pairs(left, right)]
        return Value(
            ("pathlib.Path()",),
            tuple(const for const in consts if const is not None),
            taints,
            open=left.open or right.open,
        )
    if isinstance(operator, ast.Mod) and right.items is not None:
        found = _percent(left, right)
    else:
        found = [
            folding.binary(operator, one, other)
            for one, other in _pairs(left, right, text=isinstance(operator, ast.Add))
        ]
    kept = tuple(const for const in found if const is not None)
    items = (
        (*(left.items or ()), *(right.items or ()))
        if isinstance(operator, ast.Add) and (left.items or right.items)
        else None
    )
    if isinstance(operator, ast.Mult) and left.items:
        items = left.items
    if isinstance(operator, ast.BitOr) and (left.items is not None or right.items is not None):
        items = (*(left.items or ()), *(right.items or ()))
    # Flags and types are joined by `|`: each of them still counts.
    names = (*left.names, *right.names) if isinstance(operator, ast.BitOr) else ()
    return Value(
        names,
        kept,
        taints,
        items=items,
        built=True,
        dynamic=left.dynamic or right.dynamic,
        open=left.open or right.open or not kept,
    )


def _pairs(left: Value, right: Value, *, text: bool = True) -> list[tuple[Constant, ...]]:
    one, other = left.consts, right.consts
    if text and not one and any(isinstance(const, str) for const in other):
        one = (HOLE,)
    if text and not other and any(isinstance(const, str) for const in one):
        other = (HOLE,)
    return folding.combinations([one, other])


def shown(value: Value, spec: Value, conversion: int) -> Value:
    """Return the text that a part of an f-string makes of a value."""
    pairs = folding.combinations([value.consts, spec.consts])
    made = [folding.shown(const, layout, conversion) for const, layout in pairs]
    consts = tuple(text for text in made if text is not None)
    return replace(value, consts=consts or (HOLE,), open=value.open or not consts)


def interpolated(parts: Sequence[Value]) -> Value:
    """Return the text that the parts of an f-string make."""
    made = [folding.method("", "join", choice) for choice in folding.combinations([part.consts for part in parts])]
    return Value(
        consts=tuple(const for const in made if const is not None) or ((HOLE,) if parts else ("",)),
        taints=merged_taints(parts),
        built=True,
        open=any(part.open for part in parts),
    )


def is_known(base: Value) -> bool:
    """Return whether enough is known of a value to tell what its methods give."""
    return bool(base.consts or base.scopes or base.items is not None or "pathlib.Path()" in base.names)


def method(ev: Evaluator, base: Value, attr: str, args: Sequence[Value], keywords: dict[str, Value]) -> list[Value]:
    """Return what a method of constant text, a path or a literal container may give."""
    if attr in {"format", "format_map"}:
        return _formatted(base, args, keywords)
    if attr == "join" and args and base.consts:
        return _joined(base, args[0])
    if attr in GETTERS and args and (base.items is not None or base.scopes):
        return [ev.subscript(replace(base, names=()), args[0])]
    if attr in {"values", "items", "copy", "popitem", "split", "splitlines"} and base.items is not None:
        return [
            replace(base, names=())
            if attr != "items"
            else Value(items=((None, Value(items=((0, UNKNOWN), (1, elements(base))))),))
        ]
    if "pathlib.Path()" in base.names:
        return _path(base, attr, args)
    if not base.consts:
        return []
    if attr in {"split", "splitlines"}:
        return _split(base, args)
    if attr in {"encode", "decode"} and not args and "encoding" in keywords:
        args = [keywords["encoding"]]
    if attr == "to_bytes":
        return _number_bytes(base, args, keywords)
    if attr == "translate" and args and not args[0].consts:
        return _translated(base, args[0])
    choices = [base.consts, *(arg.consts for arg in args)]
    consts = []
    for text, *rest in folding.combinations(choices):
        made = folding.method(text, attr, rest)
        if made is not None:
            consts.append(made)
    if not consts:
        return []
    taints = (
        {"decoded": ev.outline.module.node} if attr in {"decode", "encode"} and args and _odd_codec(args[0]) else None
    )
    return [Value(consts=tuple(consts), built=True, open=base.open, taints=taints)]


def _number_bytes(base: Value, args: Sequence[Value], keywords: dict[str, Value]) -> list[Value]:
    length = args[0] if args else keywords.get("length", constant(1))
    order = args[1] if len(args) > 1 else keywords.get("byteorder", constant("big"))
    made = [folding.number_bytes(*each) for each in folding.combinations([base.consts, length.consts, order.consts])]
    return _computed(base, made)


def _translated(base: Value, table: Value) -> list[Value]:
    known: dict[Constant, Constant] = {
        key: part.consts[0] for key, part in table.items or () if key is not None and len(part.consts) == 1
    }
    made = [folding.translated(text, known) for text in base.consts if known and isinstance(text, str)]
    return _computed(base, made)


def _computed(base: Value, made: Sequence[Constant]) -> list[Value]:
    """Return text that was worked out; where it could not be, that it was computed is still known."""
    consts = tuple(const for const in made if const is not None)
    return [Value(consts=consts, taints=base.taints, built=True, open=base.open or not consts)]


def plain(found: object) -> Value:
    """Return the value of a literal: a constant, or a container of them."""
    if isinstance(found, dict):
        return Value(items=tuple((_key(key), plain(part)) for key, part in found.items()))
    if isinstance(found, list | tuple | set | frozenset):
        return Value(items=tuple((place, plain(part)) for place, part in enumerate(found)))
    return constant(found, built=True) if isinstance(found, str | bytes | int | float) else UNKNOWN


def _key(key: object) -> Constant:
    return key if isinstance(key, str | bytes | int | float) else None


def _odd_codec(codec: Value) -> bool:
    return any(
        str(const).lower().replace("-", "_").startswith(("rot", "hex", "base64", "zlib", "zip", "bz2"))
        for const in codec.consts
    )


def _split(base: Value, args: Sequence[Value]) -> list[Value]:
    glue = args[0].consts[0] if args and args[0].consts else None
    text = base.consts[0]
    if (
        len(base.consts) != 1
        or not isinstance(text, str)
        or not isinstance(glue, str | None)
        or glue == ""
        or len(text) > 4096
    ):
        return []
    most = args[1].consts[0] if len(args) > 1 and args[1].consts else -1
    pieces = text.split(glue, most if isinstance(most, int) else -1)[:512]
    return [Value(items=tuple((place, constant(piece, built=True)) for place, piece in enumerate(pieces)))]


def _path(base: Value, attr: str, args: Sequence[Value]) -> list[Value]:
    choices = [base.consts, *(arg.consts or (HOLE,) for arg in args)]
    made = [folding.path_method(path, attr, rest) for path, *rest in folding.combinations(choices)]
    consts = tuple(const for const in made if const is not None)
    if not consts:
        return []
    found = Value(("pathlib.Path()",), consts, open=base.open)
    # Searching a folder gives many paths.
    return [Value(items=((None, found),), open=True) if attr in folding.SEARCHES else found]


def _formatted(base: Value, args: Sequence[Value], keywords: dict[str, Value]) -> list[Value]:
    choices = [tuple(base.consts), *(arg.consts or (HOLE,) for arg in (*args, *keywords.values()))]
    made = []
    for template, *rest in folding.combinations(choices):
        if isinstance(template, str):
            named_parts = dict(zip(keywords, rest[len(args) :], strict=True))
            made.append(folding.formatted(template, rest[: len(args)], named_parts))
    consts = tuple(const for const in made if const is not None)
    return (
        [Value(consts=consts, built=True, open=any(not arg.consts for arg in (*args, *keywords.values())))]
        if consts
        else []
    )


def _percent(left: Value, right: Value) -> list[Constant]:
    """Return what `%` makes of a template and a tuple."""
    choices = [left.consts, *(part.consts or (HOLE,) for _, part in right.items or ())]
    return [folding.percent(template, rest) for template, *rest in folding.combinations(choices)]


def _joined(base: Value, arg: Value) -> list[Value]:
    each = parts(arg)
    if each is None:
        return [Value(consts=(HOLE,), built=True, open=True)]
    choices = [base.consts, *(part.consts or (HOLE,) for part in each)]
    made = [folding.method(glue, "join", rest) for glue, *rest in folding.combinations(choices)]
    consts = tuple(const for const in made if const is not None)
    return [Value(consts=consts, built=True, open=any(part.open or not part.consts for part in each))] if consts else []


def parts(value: Value) -> list[Value] | None:
    """Return the elements of a container or of one constant text, or None when they are not known."""
    if value.items is not None:
        return [part for _, part in value.items]
    if (
        len(value.consts) == 1
        and isinstance(value.consts[0], str | bytes)
        and not value.open
        and len(value.consts[0]) <= 4096
    ):
        return [constant(letter) for letter in value.consts[0]]
    return None


def item(base: Value, key: str | int) -> Value:
    """Return what a container holds under a known key."""
    found: list[Value] = []
    if base.items is not None:
        size = len(base.items)
        wanted = key + size if isinstance(key, int) and key < 0 else key
        exact = [part for known, part in base.items if known == wanted and type(known) is type(wanted)]
        vague = [part for known, part in base.items if known is None]
        found += exact + vague
        if not found:
            found.append(elements(base))
    if isinstance(key, int):
        letters = [folding.indexed(const, key) for const in base.consts]
        found += [constant(letter, built=True) for letter in letters if letter is not None]
    return tainted(merge(found) if found else Value(open=True, dynamic=base.dynamic), merged_taints([base]))
