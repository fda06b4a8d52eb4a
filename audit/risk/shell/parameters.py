"""The operations inside `${...}`: defaults, slices, cuts and replacements, on texts that are known."""

from __future__ import annotations

import re

from audit.risk.shell.values import UNKNOWN

_SET = re.compile(r"\[[^\]]+\]")
_MAX_PATTERN = 256
_MAX_CUT = 4096
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "E": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "?": "?",
}
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|0?([0-7]{1,3})|c(.)|(.))", re.DOTALL
)


def unescape(text: str) -> str:
    r"""Return the text of `$'...'`, `echo -e` and `printf`: `\x41`, `\101`, `\u0041` and the short ones."""
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def _escaped(found: re.Match[str]) -> str:
    for number, base in ((found[1], 16), (found[2], 16), (found[3], 16), (found[4], 8)):
        if number:
            code = int(number, base) & 0x1FFFFF
            return chr(code) if code < 0x110000 else UNKNOWN
    if found[5]:
        return chr(ord(found[5]) & 0x1F)
    return _ESCAPES.get(found[6], "\\" + found[6])


def operate(value: str, operator: str, operands: list[str]) -> str:
    """Apply one operator of `${name OP operands}` to a set variable."""
    first = operands[0] if operands else ""
    if UNKNOWN in value or any(UNKNOWN in operand for operand in operands):
        return UNKNOWN
    if operator == ":":
        return _slice(value, operands)
    if operator in {"#", "##", "%", "%%"}:
        return _cut(value, operator, first)
    if operator in {"/", "//", "/#", "/%"}:
        return _replaced(value, operator, first, operands[1] if len(operands) > 1 else "")
    if operator in {"^", "^^", ",", ",,", "~", "~~"}:
        return _cased(value, operator)
    if operator == "@":
        return _transformed(value, first)
    return UNKNOWN


def _slice(value: str, operands: list[str]) -> str:
    try:
        numbers = [int(operand.strip() or "0", 0) for operand in operands]
    except ValueError:
        return UNKNOWN
    start = numbers[0] if numbers else 0
    start = max(0, start + len(value)) if start < 0 else start
    if len(numbers) < 2:
        return value[start:]
    return value[start : start + numbers[1] if numbers[1] >= 0 else numbers[1]]


def _cut(value: str, operator: str, pattern: str) -> str:
    longest = len(operator) == 2
    expression = _glob(pattern)
    if expression is None or len(value) > _MAX_CUT:
        return UNKNOWN
    lengths = range(len(value), -1, -1) if longest else range(len(value) + 1)
    for length in lengths:
        if operator[0] == "#" and expression.fullmatch(value[:length]):
            return value[length:]
        if operator[0] == "%" and expression.fullmatch(value[len(value) - length :]):
            return value[: len(value) - length]
    return value


def _replaced(value: str, operator: str, pattern: str, by: str) -> str:
    expression = _glob(pattern, greedy=True)
    if expression is None or not pattern or len(value) > _MAX_CUT:
        return UNKNOWN if pattern else value
    if operator == "/#":
        found = expression.match(value)
        return by + value[found.end() :] if found else value
    if operator == "/%":
        for start in range(len(value) + 1):
            if expression.fullmatch(value[start:]):
                return value[:start] + by
        return value
    return expression.sub(lambda _: by, value, count=0 if operator == "//" else 1)


def _cased(value: str, operator: str) -> str:
    change = {"^": str.upper, ",": str.lower, "~": str.swapcase}[operator[0]]
    return change(value) if len(operator) == 2 else change(value[:1]) + value[1:]


def _transformed(value: str, letter: str) -> str:
    if letter in {"U", "u"}:
        return _cased(value, "^^" if letter == "U" else "^")
    if letter == "L":
        return value.lower()
    if letter == "E":
        return unescape(value)
    # `P` runs the substitutions in it like a prompt.
    return UNKNOWN if letter == "P" and ("$" in value or "`" in value) else value


def _glob(pattern: str, *, greedy: bool = False) -> re.Pattern[str] | None:
    # Python's engine backtracks: a pattern of many stars could keep it busy for ever.
    if len(pattern) > _MAX_PATTERN or pattern.count("*") > 3:
        return None
    parts = re.split(r"(\*|\?|\[[^\]]+\])", pattern)
    meaning = {"*": ".*" if greedy else ".*?", "?": "."}
    translated = [meaning.get(part) or (_set(part) if _SET.fullmatch(part) else re.escape(part)) for part in parts]
    try:
        return re.compile("".join(translated), re.DOTALL)
    except re.error:
        return None


def _set(part: str) -> str:
    inside = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[^{inside[1:]}]" if inside.startswith(("!", "^")) else f"[{inside}]"
