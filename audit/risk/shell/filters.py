"""Filters on constants: what `echo ... | base64 -d` comes to, without running it."""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import lzma
import re
import zlib
from typing import TYPE_CHECKING

from audit.risk.shell.parameters import unescape
from audit.risk.shell.values import MAX_TEXT, UNKNOWN, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DECODED = frozenset({"decoded"})
_CLASSES = {
    "[:lower:]": "abcdefghijklmnopqrstuvwxyz",
    "[:upper:]": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "[:digit:]": "0123456789",
    "[:space:]": " \t\n\r\f\v",
    "[:blank:]": " \t",
}
_RANGE = re.compile(r"(.)-(.)", re.DOTALL)
_CONVERSION = re.compile(r"%(?:%|[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?([a-zA-Z]))")
_SUBSTITUTE = re.compile(r"^s(.)((?:\\.|(?!\1).)*)\1((?:\\.|(?!\1).)*)\1([gI0-9]*)$", re.DOTALL)
_SIMPLE = re.compile(r"^[\w \t/:@#%&=,<>;\"'!~\[\].\-]*$")
_HEX = re.compile(r"\s+")


def echo(arguments: Sequence[str]) -> str:
    """Return what echo writes."""
    words, escapes, newline = list(arguments), False, True
    while words and re.fullmatch(r"-[neE]+", words[0]):
        flags = words.pop(0)
        newline = newline and "n" not in flags
        escapes = (escapes or "e" in flags) and "E" not in flags
    text = " ".join(words)
    return (unescape(text) if escapes else text) + ("\n" if newline else "")


def printf(arguments: Sequence[str]) -> str:
    """Return what printf writes."""
    if not arguments:
        return ""
    form, *values = arguments
    rest = list(values)
    written = ""
    while True:
        before = len(rest)
        written += _CONVERSION.sub(lambda found: _converted(found, rest), unescape(form))
        if not rest or len(rest) == before or len(written) > MAX_TEXT:
            return written[:MAX_TEXT]


def _converted(found: re.Match[str], values: list[str]) -> str:
    if found[0] == "%%":
        return "%"
    value = values.pop(0) if values else ""
    kind = found[1]
    if kind == "b":
        return unescape(value)
    if kind == "c":
        return value[:1]
    if kind in "diuxXo":
        try:
            number = ord(value[1]) if value[:1] in {"'", '"'} and len(value) > 1 else int(value or "0", 0)
        except ValueError:
            return UNKNOWN
        return {"x": f"{number:x}", "X": f"{number:X}", "o": f"{number:o}"}.get(kind, str(number))
    return value


def apply(name: str, arguments: Sequence[str], given: Value) -> Value | None:
    """Return what a filter makes of its known input, or None when it isn't one that can be followed."""
    work = _FILTERS.get(name)
    if work is None or not given.known or any(UNKNOWN in argument for argument in arguments):
        return None
    try:
        made = work(list(arguments), given.text)
    except (ValueError, binascii.Error, zlib.error, OSError, EOFError, lzma.LZMAError, UnicodeError, re.error):
        return None
    if made is None:
        return None
    text, decoded = made
    return Value(text[:MAX_TEXT], given.taints | (DECODED if decoded else frozenset()))


Made = tuple[str, bool] | None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _has(arguments: Sequence[str], *flags: str) -> bool:
    return any(argument in flags for argument in arguments)


def _base64(arguments: list[str], text: str) -> Made:
    if not _has(arguments, "-d", "-D", "-di", "-id", "--decode"):
        return base64.b64encode(_bytes(text)).decode() + "\n", False
    return _text(_decoded64(text)), True


def _decoded64(text: str) -> bytes:
    stripped = re.sub(r"[^A-Za-z0-9+/=]", "", text)
    return base64.b64decode(stripped + "=" * (-len(stripped) % 4))


def _base32(arguments: list[str], text: str) -> Made:
    if not _has(arguments, "-d", "--decode"):
        return base64.b32encode(_bytes(text)).decode(), False
    stripped = _HEX.sub("", text)
    return _text(base64.b32decode(stripped + "=" * (-len(stripped) % 8))), True


def _openssl(arguments: list[str], text: str) -> Made:
    if arguments[:1] in (["base64"], ["enc"]) and _has(arguments, "-d") and _has(arguments, "base64", "-base64", "-a"):
        return _text(_decoded64(text)), True
    return None


def _xxd(arguments: list[str], text: str) -> Made:
    flags = "".join(argument[1:] for argument in arguments if argument.startswith("-"))
    if "r" not in flags or "p" not in flags:
        return None
    return _text(bytes.fromhex(_HEX.sub("", text))), True


def _rev(_arguments: list[str], text: str) -> Made:
    return "\n".join(line[::-1] for line in text.split("\n")), True


def _gunzip(arguments: list[str], text: str) -> Made:
    if arguments and not _has(arguments, "-d", "-c", "-dc", "-cd", "--decompress", "-", "-q", "-f", "-k"):
        return None
    return _text(zlib.decompressobj(47).decompress(_bytes(text), MAX_TEXT)), True


def _gzip(arguments: list[str], text: str) -> Made:
    if _has(arguments, "-d", "-dc", "-cd", "--decompress"):
        return _gunzip(arguments, text)
    return _text(gzip.compress(_bytes(text), mtime=0)), False


def _bunzip(arguments: list[str], text: str) -> Made:
    return _text(bz2.BZ2Decompressor().decompress(_bytes(text), MAX_TEXT)), True


def _unxz(arguments: list[str], text: str) -> Made:
    return _text(lzma.LZMADecompressor(memlimit=64 << 20).decompress(_bytes(text), MAX_TEXT)), True


def _when_decoding(work: Callable[[list[str], str], Made]) -> Callable[[list[str], str], Made]:
    return lambda arguments, text: work(arguments, text) if _has(arguments, "-d", "-dc", "--decompress") else None


def _same(arguments: list[str], text: str) -> Made:
    return None if any(not argument.startswith("-") for argument in arguments) else (text, False)


def _tac(_arguments: list[str], text: str) -> Made:
    return "\n".join(reversed(text.rstrip("\n").split("\n"))) + "\n", False


def _tr(arguments: list[str], text: str) -> Made:
    flags = [argument for argument in arguments if argument.startswith("-") and len(argument) > 1]
    sets = [_members(argument) for argument in arguments if argument not in flags]
    if not sets:
        return None
    if any("d" in flag for flag in flags):
        return text.translate({ord(character): None for character in sets[0]}), True
    if len(sets) < 2 or flags or not sets[1]:
        return None
    by = sets[1] + sets[1][-1] * (len(sets[0]) - len(sets[1]))
    plain = sets[0].lower() == sets[1].lower() or len(sets[0]) == 1
    return text.translate({ord(old): new for old, new in zip(sets[0], by, strict=False)}), not plain


def _members(text: str) -> str:
    for name, characters in _CLASSES.items():
        text = text.replace(name, characters)
    text = unescape(text)

    def spread(found: re.Match[str]) -> str:
        low, high = ord(found[1]), ord(found[2])
        return "".join(map(chr, range(low, min(high, low + 255) + 1)))

    return _RANGE.sub(spread, text)


def _sed(arguments: list[str], text: str) -> Made:
    programs = [argument for argument in arguments if argument not in {"-e", "-E", "-r"}]
    for program in programs:
        for step in program.split(";") if program.count("s") > 1 and ";" in program else [program]:
            found = _SUBSTITUTE.match(step.strip())
            if not found or not _SIMPLE.match(found[2]) or "&" in found[3] or "\\" in found[3]:
                return None
            expression = re.compile(found[2], re.IGNORECASE if "I" in found[4] else 0)
            text = expression.sub(lambda _, by=found[3]: by, text, count=0 if "g" in found[4] else 1)
    return text, True


def _head(arguments: list[str], text: str) -> Made:
    count = _count(arguments)
    return ("".join(text.splitlines(keepends=True)[:count]), False) if count is not None else None


def _tail(arguments: list[str], text: str) -> Made:
    count = _count(arguments)
    return ("".join(text.splitlines(keepends=True)[-count:]), False) if count else None


def _count(arguments: list[str]) -> int | None:
    found = re.fullmatch(r"(?:-n ?|-)?(\d+)", " ".join(arguments)) if arguments else None
    return int(found[1]) if found else (None if arguments else 10)


def _cut(arguments: list[str], text: str) -> Made:
    joined = " ".join(arguments)
    if found := re.fullmatch(r"-c ?(\d*)(-?)(\d*)", joined):
        first = int(found[1] or 1)
        last = int(found[3]) if found[3] else (None if found[2] else first)
        return "\n".join(line[first - 1 : last] for line in text.split("\n")), True
    if found := re.fullmatch(r"-d ?(.) -f ?(\d+)", joined, re.DOTALL):
        return "\n".join(_field(line, found[1], int(found[2])) for line in text.split("\n")), True
    return None


def _field(line: str, separator: str, number: int) -> str:
    parts = line.split(separator)
    return parts[number - 1] if 0 < number <= len(parts) else ""


_FILTERS: dict[str, Callable[[list[str], str], Made]] = {
    "base64": _base64,
    "base32": _base32,
    "openssl": _openssl,
    "xxd": _xxd,
    "rev": _rev,
    "gunzip": _gunzip,
    "zcat": _gunzip,
    "gzip": _gzip,
    "bunzip2": _bunzip,
    "bzcat": _bunzip,
    "bzip2": _when_decoding(_bunzip),
    "unxz": _unxz,
    "xzcat": _unxz,
    "xz": _when_decoding(_unxz),
    "cat": _same,
    "tee": _same,
    "tac": _tac,
    "tr": _tr,
    "sed": _sed,
    "head": _head,
    "tail": _tail,
    "cut": _cut,
}
