"""Programs that take all the memory there is: loops that only grow, and texts of a size that nobody needs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.scopes import Outline

_ENORMOUS = 1 << 32
_EXITS = (ast.Break, ast.Return, ast.Raise, ast.Yield, ast.YieldFrom, ast.Await)
_ENDLESS = frozenset({"count", "cycle", "repeat"})
_GROWING = frozenset({"append", "appendleft", "extend", "insert", "add", "update"})
# What makes things without waiting for anybody: a loop that calls anything else may be a server.
_MAKING = frozenset(
    {"bytes", "bytearray", "str", "list", "dict", "set", "tuple", "object", "range", "len", "print", "urandom"}
    | {"zeros", "ones", "empty", "full", "copy", "chr", "deepcopy", "token_bytes", "token_hex", "array"}
)


def places(outline: Outline, ev: Evaluator) -> Iterator[ast.AST]:
    """Yield the loops that only grow, and the multiplications that make something enormous."""
    for loop in (*outline.endless, *outline.counted):
        if _only_grows(loop):
            yield loop
    for product in outline.products:
        sizes = [size for side in (product.left, product.right) for size in ev.value(side).consts]
        if any(isinstance(size, int) and size >= _ENORMOUS for size in sizes):
            yield product


def counts_for_ever(loop: ast.For | ast.AsyncFor) -> bool:
    """Return whether a loop goes over something without an end."""
    call = loop.iter
    endless = isinstance(call, ast.Call) and _name(call) in _ENDLESS
    return endless or (isinstance(call, ast.Call) and _name(call) == "iter" and len(call.args) == 2)


def _only_grows(loop: ast.While | ast.For | ast.AsyncFor) -> bool:
    grows = False
    for part in (inner for statement in loop.body for inner in ast.walk(statement)):
        if isinstance(part, _EXITS):
            return False
        if isinstance(part, ast.Call):
            name = _name(part)
            if name in _GROWING:
                grows = True
            elif name not in _MAKING:
                return False
        elif isinstance(part, ast.AugAssign | ast.Assign):
            grows = grows or _is_growth(part)
    return grows


def _is_growth(node: ast.AugAssign | ast.Assign) -> bool:
    """Return whether an assignment makes its target longer: a counter or a sum of numbers does not."""
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    value = node.value
    if isinstance(node, ast.Assign):
        if isinstance(target, ast.Subscript):
            return isinstance(value, ast.BinOp | ast.Call)
        if not isinstance(value, ast.BinOp) or not isinstance(value.op, ast.Add):
            return False
        return _same(value.left, target) and (_same(value.right, target) or _is_long(value.right))
    return isinstance(node.op, ast.Add) and (_same(value, target) or _is_long(value))


def _same(one: ast.expr, other: ast.expr) -> bool:
    return isinstance(one, ast.Name) and isinstance(other, ast.Name) and one.id == other.id


def _is_long(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _is_long(node.left) or _is_long(node.right)
    return isinstance(node, ast.List | ast.Tuple) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _name(call: ast.Call) -> str:
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
