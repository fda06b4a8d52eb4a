"""What expressions that hold others are: sums, texts with parts, containers, choices, comprehensions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from audit.risk.python import texts
from audit.risk.python.memo import MAX_FRAMES
from audit.risk.python.values import UNKNOWN, Value, constant, elements, merge, replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.values import Constant

_CONSTANTS = (str, bytes, int, float, type(None))
# Two quotes and a letter before them.
_QUOTES = 3


def _binop(ev: Evaluator, node: ast.BinOp) -> Value:
    # Long sums lean to the left: no recursion for them.
    spine: list[ast.BinOp] = [node]
    while isinstance(spine[-1].left, ast.BinOp) and ev.memo.get(id(spine[-1].left)) is None:
        spine.append(spine[-1].left)
    found = ev.value(spine[-1].left)
    for part in reversed(spine):
        found = texts.combine(part.op, found, ev.value(part.right))
    return found


def _joined(ev: Evaluator, node: ast.JoinedStr) -> Value:
    parts: list[Value] = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            spec = constant("") if part.format_spec is None else ev.value(part.format_spec)
            parts.append(texts.shown(ev.value(part.value), spec, part.conversion))
        else:
            parts.append(ev.value(part))
    return texts.interpolated(parts)


def _sequence(ev: Evaluator, node: ast.List | ast.Tuple | ast.Set) -> Value:
    items: list[tuple[Constant, Value]] = []
    for element in node.elts[:512]:
        if isinstance(element, ast.Starred):
            inner = ev.value(element.value)
            items += list(inner.items) if inner.items is not None else [(None, elements(inner))]
        else:
            items.append((len(items), ev.value(element)))
    if len(node.elts) > 512:
        items.append((None, UNKNOWN))
    return Value(items=tuple(items))


def _dict(ev: Evaluator, node: ast.Dict) -> Value:
    items: list[tuple[Constant, Value]] = []
    for key, element in zip(node.keys[:512], node.values[:512], strict=True):
        value = ev.value(element)
        if key is None:
            items += list(value.items) if value.items is not None else [(None, value)]
            continue
        keys = ev.value(key).consts or (None,)
        items += [(const, value) for const in keys]
    return Value(items=tuple(items))


def _either(ev: Evaluator, node: ast.IfExp | ast.BoolOp) -> Value:
    options = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
    return merge([ev.value(option) for option in options])


def _inner(ev: Evaluator, node: ast.Await | ast.NamedExpr | ast.Starred | ast.FormattedValue | ast.YieldFrom) -> Value:
    return ev.value(node.value)


def _unary(ev: Evaluator, node: ast.UnaryOp) -> Value:
    if not isinstance(node.op, ast.USub):
        return UNKNOWN
    numbers = [const for const in ev.value(node.operand).consts if isinstance(const, int | float)]
    return Value(consts=tuple(-number for number in numbers), open=not numbers)


def _lambda(ev: Evaluator, node: ast.Lambda) -> Value:
    return Value(scopes=((ev.outline.scope_of[id(node)], False),))


def _comprehension(ev: Evaluator, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
    scope = ev.outline.scope_of[id(node)]
    generator = node.generators[0]
    if len(node.generators) == 1 and not generator.ifs and isinstance(generator.target, ast.Name):
        parts = texts.parts(ev.value(generator.iter))
        if parts is not None and len(parts) <= 4096 and len(ev.memo.frames) < MAX_FRAMES:
            made = ev.each((id(scope), generator.target.id), parts, node.elt)
            return Value(items=tuple(enumerate(made)), built=True)
    return Value(items=((None, ev.value(node.elt)),))


def _dict_comprehension(ev: Evaluator, node: ast.DictComp) -> Value:
    return Value(items=((None, ev.value(node.value)), (None, replace(ev.value(node.key), consts=()))))


def literal(node: ast.Constant) -> Value:
    """Return the value of a constant; one that is written in pieces was put together."""
    value = node.value
    if type(value) is str:
        return Value((), (value,), built=value.isidentifier() and _is_in_pieces(node, value))
    return Value((), (value,)) if isinstance(value, _CONSTANTS) else UNKNOWN


def _is_in_pieces(node: ast.Constant, text: str) -> bool:
    """Return whether a name is written as several literals side by side, or with escapes: longer than it is."""
    end = node.end_col_offset or 0
    return node.end_lineno != node.lineno or (end - node.col_offset > len(text) + _QUOTES and text.isascii())


HANDLERS: dict[type[ast.AST], Callable[..., Value]] = {
    ast.BinOp: _binop,
    ast.JoinedStr: _joined,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.Set: _sequence,
    ast.Dict: _dict,
    ast.IfExp: _either,
    ast.BoolOp: _either,
    ast.Await: _inner,
    ast.NamedExpr: _inner,
    ast.Starred: _inner,
    ast.FormattedValue: _inner,
    ast.YieldFrom: _inner,
    ast.UnaryOp: _unary,
    ast.Lambda: _lambda,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _dict_comprehension,
}
