"""Integer arithmetic of the shell on constants."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING

from audit.risk.shell.values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"(?<!\w)\$?\{?([A-Za-z_]\w*)\}?")
_BASED = re.compile(r"\b(\d+)#([0-9A-Za-z]+)\b")
_OCTAL = re.compile(r"\b0(\d+)\b")
_MAX_LENGTH = 256
_LIMIT = 1 << 63
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}


def evaluate(expression: str, lookup: Callable[[str], str]) -> str:
    """Return the value of an expression as text, or the mark for unknown."""
    text = expression.strip()
    if text.lstrip("-").isdigit() and not text.lstrip("-").startswith("0"):
        return text
    if len(text) > _MAX_LENGTH or UNKNOWN in text:
        return UNKNOWN
    try:
        text = _BASED.sub(lambda found: str(int(found[2], int(found[1]))), text)
        text = _OCTAL.sub(lambda found: str(int(found[1], 8)), text)
        text = _NAME.sub(lambda found: f"({lookup(found[1]) or '0'})", text)
        return str(_value(ast.parse(text or "0", mode="eval").body))
    except (ValueError, SyntaxError, ArithmeticError, MemoryError, RecursionError):
        return UNKNOWN


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        value = _BINARY[type(node.op)](_value(node.left), _value(node.right))
        if abs(value) < _LIMIT:
            return value
    raise ValueError
