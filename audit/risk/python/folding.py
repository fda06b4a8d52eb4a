"""Work out constants as Python would: only what can be done quickly, in little memory, and without running anything."""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import codecs
import html
import itertools
import json
import lzma
import posixpath
import re
import shlex
import urllib.parse
import zlib
from collections.abc import Callable, Sequence

from audit.risk.python.values import HOLE, MAX_ALTERNATIVES, Constant

MAX_TEXT = 1 << 16
_MAX_NUMBER = 1 << 512
_MAX_LITERAL = 4096
_WIDTH = re.compile(r"\d{4,}|\*")
_CONVERSIONS: dict[int, Callable[[Constant], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
_Args = Sequence[Constant]
# Loaded now: the process that judges can open no file later, and a codec is a file until it is first used.
for _codec in (
    *(
        "utf-7",
        "utf-16",
        "utf-32",
        "cp037",
        "cp500",
        "cp1252",
        "cp437",
        "utf-8-sig",
        "punycode",
        "idna",
        "unicode_escape",
    ),
    *("raw_unicode_escape", "rot13", "hex", "base64", "zlib", "bz2", "uu", "quopri"),
):
    codecs.lookup(_codec)

_BINARY: dict[type[ast.operator], Callable[..., Constant]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitAnd: lambda a, b: a & b,
    ast.RShift: lambda a, b: a >> b,
    ast.LShift: lambda a, b: a << b if b < 64 else None,
    ast.Pow: lambda a, b: a**b if 0 <= b <= 64 and abs(a) < 1 << 16 else None,
}
_FAILURES = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
)


def binary(operator: ast.operator, left: Constant, right: Constant) -> Constant:
    """Return the result of an operator on two constants, or None."""
    work = _BINARY.get(type(operator))
    if work is None or left is None or right is None:
        return None
    if isinstance(operator, ast.Mult) and not _may_repeat(left, right):
        return None
    if isinstance(operator, ast.Mod) and isinstance(left, str | bytes):
        text = left if isinstance(left, str) else left.decode("latin-1")
        if re.search(r"%[^%a-zA-Z]*(?:\d{4,}|\*)", text):
            return None
    return bounded(lambda: work(left, right))


def formatted(template: str, args: _Args, keywords: dict[str, Constant]) -> Constant:
    """Return what `str.format` gives, or None."""
    if _WIDTH.search(template) or ".__" in template or "[__" in template:
        return None
    return bounded(lambda: template.format(*args, **keywords))


def shown(value: Constant, layout: Constant, conversion: int) -> Constant:
    """Return what an f-string makes of a value, or None."""
    if not isinstance(layout, str) or _WIDTH.search(layout) or (HOLE in layout):
        return None
    turned = _CONVERSIONS[conversion](value) if conversion in _CONVERSIONS else value
    return bounded(lambda: format(turned, layout))


def percent(template: Constant, args: _Args) -> Constant:
    """Return what `%` with a tuple gives, or None."""
    if not isinstance(template, str) or re.search(r"%[^%a-zA-Z]*(?:\d{4,}|\*)", template):
        return None
    return bounded(lambda: template % tuple(args))


def bounded(work: Callable[[], Constant]) -> Constant:
    """Return a result that is a constant of bearable size, or None; failing is Python's own way to say no."""
    try:
        result = work()
    except _FAILURES:
        return None
    if isinstance(result, str | bytes):
        return result if len(result) <= MAX_TEXT else None
    if isinstance(result, int):
        return result if abs(result) < _MAX_NUMBER else None
    return result if isinstance(result, float) else None


def _may_repeat(left: Constant, right: Constant) -> bool:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, str | bytes):
            return isinstance(count, int) and len(text) * max(count, 0) <= MAX_TEXT
    return isinstance(left, int | float) and isinstance(right, int | float)


def sliced(text: Constant, lower: Constant, upper: Constant, step: Constant) -> Constant:
    """Return a slice of a constant."""
    if not isinstance(text, str | bytes):
        return None
    return bounded(lambda: text[slice(lower, upper, step)])  # type: ignore[arg-type]


def indexed(text: Constant, index: Constant) -> Constant:
    """Return one element of a constant."""
    if not isinstance(text, str | bytes) or not isinstance(index, int):
        return None
    return bounded(lambda: text[index])


def words(text: Constant) -> list[str] | None:
    """Return the words of a command line as `shlex.split` does; None if there are none or some part is not known."""
    if not isinstance(text, str) or HOLE in text or len(text) > _MAX_LITERAL:
        return None
    try:
        return shlex.split(text)
    except ValueError:
        return None


def literal(name: str, text: Constant) -> object:
    """Return what a reader of literals, `ast.literal_eval` or `json.loads`, makes of a constant; None if nothing."""
    if not isinstance(text, str | bytes) or len(text) > _MAX_LITERAL:
        return None
    try:
        return json.loads(text) if name == "json.loads" else ast.literal_eval(_text(text))
    except (*_FAILURES, SyntaxError, RecursionError, MemoryError):
        return None


def _joined(glue: Constant, parts: _Args) -> Constant:
    if sum(len(part) for part in parts if isinstance(part, str | bytes)) > MAX_TEXT:
        return None
    return bounded(lambda: glue.join(parts))  # type: ignore[union-attr,arg-type]


def _replaced(text: str | bytes, old: Constant, new: Constant, *rest: Constant) -> Constant:
    if not isinstance(new, str | bytes) or (len(text) + 1) * (len(new) + 1) > 4 * MAX_TEXT:
        return None
    return bounded(lambda: text.replace(old, new, *rest))  # type: ignore[arg-type]


_PLAIN_METHODS = frozenset(
    {
        "lower",
        "upper",
        "strip",
        "lstrip",
        "rstrip",
        "title",
        "capitalize",
        "swapcase",
        "casefold",
        "hex",
        "removeprefix",
        "removesuffix",
    }
)


def method(text: Constant, name: str, args: _Args) -> Constant:
    """Return what a method of a constant text returns, or None."""
    if not isinstance(text, str | bytes):
        return None
    if name in _PLAIN_METHODS:
        return bounded(lambda: getattr(text, name)(*args))
    if name == "replace" and len(args) >= 2:
        return _replaced(text, *args)
    if name == "join":
        return _joined(text, args)
    if name == "__add__" and args:
        return binary(ast.Add(), text, args[0])
    if name in {"encode", "decode"}:
        return recoded(text, *args[:1])
    if name == "translate" and isinstance(text, bytes):
        return bounded(lambda: text.translate(*args))  # type: ignore[arg-type]
    return bounded(lambda: text[args[0]]) if name == "__getitem__" and args else None  # type: ignore[index]


def number_bytes(number: Constant, length: Constant, order: Constant) -> Constant:
    """Return what `int.to_bytes` gives, or None."""
    if not isinstance(number, int) or not isinstance(length, int) or length > _MAX_LITERAL:
        return None
    return bounded(lambda: number.to_bytes(length, str(order)))  # type: ignore[arg-type]


def translated(text: str, table: dict[Constant, Constant]) -> Constant:
    """Return what `str.translate` with a dictionary gives, or None."""
    known = {_code(key): value for key, value in table.items() if isinstance(value, str | int | None)}
    return bounded(lambda: text.translate(known))


def _code(key: Constant) -> int:
    if isinstance(key, int):
        return key
    return ord(key) if isinstance(key, str) and len(key) == 1 else -1


def maketrans(*parts: Constant) -> dict[Constant, Constant]:
    """Return the table that `str.maketrans` makes of two or three texts."""
    texts = [part for part in parts if isinstance(part, str) and len(part) <= _MAX_LITERAL]
    if len(texts) != len(parts) or not 2 <= len(texts) <= 3 or len(texts[0]) != len(texts[1]):
        return {}
    table: dict[Constant, Constant] = {ord(old): new for old, new in zip(texts[0], texts[1], strict=True)}
    return table | {ord(gone): None for gone in "".join(texts[2:])}


def recoded(text: Constant, codec: Constant = "utf-8") -> Constant:
    """Return text in another encoding, the odd ones that Python calls codecs included."""
    if not isinstance(codec, str) or not isinstance(text, str | bytes):
        return None
    kind = codec.lower().replace("-", "_")
    if kind in _TEXT_CODECS:
        return _TEXT_CODECS[kind](text)
    if isinstance(text, str):
        return bounded(lambda: text.encode(codec))
    return bounded(lambda: text.decode(codec))


def _rot13(text: Constant) -> Constant:
    return bounded(lambda: codecs.encode(_text(text), "rot13"))


def _text(data: Constant) -> str:
    return data.decode("latin-1") if isinstance(data, bytes) else str(data)


def _data(data: Constant) -> bytes:
    return data if isinstance(data, bytes) else str(data).encode("latin-1")


def _inflated(data: Constant) -> Constant:
    def work() -> Constant:
        window = zlib.decompressobj(wbits=47)
        return window.decompress(_data(data), MAX_TEXT)

    return bounded(work)


def _deflated(data: Constant, window: int) -> Constant:
    return bounded(lambda: zlib.decompressobj(wbits=window).decompress(_data(data), MAX_TEXT))


def _decoder(work: Callable[[bytes], bytes]) -> Callable[..., Constant]:
    return lambda data, *_: bounded(lambda: work(_data(data)))


def _unpacked(data: Constant, *_: Constant) -> Constant:
    raw = _data(data)
    if raw.startswith(b"BZh"):
        return bounded(lambda: bz2.BZ2Decompressor().decompress(raw, MAX_TEXT))
    if raw.startswith((b"\xfd7zXZ", b"]")):
        return bounded(lambda: lzma.LZMADecompressor(memlimit=1 << 26).decompress(raw, MAX_TEXT))
    return _inflated(raw)


_TEXT_CODECS: dict[str, Callable[[Constant], Constant]] = {
    "rot13": _rot13,
    "rot_13": _rot13,
    "hex": _decoder(lambda data: binascii.unhexlify(data)),
    "hex_codec": _decoder(lambda data: binascii.unhexlify(data)),
    "base64": _decoder(lambda data: binascii.a2b_base64(data)),
    "base64_codec": _decoder(lambda data: binascii.a2b_base64(data)),
    "zlib": _inflated,
    "zip": _inflated,
    "bz2": _unpacked,
}

DECODERS: dict[str, Callable[..., Constant]] = {
    "base64.b64decode": lambda data, *alt: bounded(
        lambda: base64.b64decode(_data(data), _data(alt[0]) if alt and alt[0] is not None else None)
    ),
    "base64.standard_b64decode": _decoder(base64.b64decode),
    "base64.urlsafe_b64decode": _decoder(base64.urlsafe_b64decode),
    "base64.decodebytes": _decoder(base64.decodebytes),
    "base64.b32decode": _decoder(base64.b32decode),
    "base64.b16decode": lambda data, *fold: bounded(lambda: base64.b16decode(_data(data), bool(fold and fold[0]))),
    "base64.b85decode": _decoder(base64.b85decode),
    "base64.a85decode": _decoder(base64.a85decode),
    "binascii.a2b_base64": _decoder(lambda data: binascii.a2b_base64(data)),
    "binascii.unhexlify": _decoder(lambda data: binascii.unhexlify(data)),
    "binascii.a2b_hex": _decoder(lambda data: binascii.unhexlify(data)),
    "bytes.fromhex": lambda text: bounded(lambda: bytes.fromhex(_text(text))),
    "bytearray.fromhex": lambda text: bounded(lambda: bytes.fromhex(_text(text))),
    "zlib.decompress": lambda data, *window: (
        _deflated(data, window[0]) if window and isinstance(window[0], int) else _inflated(data)
    ),
    "gzip.decompress": _unpacked,
    "bz2.decompress": _unpacked,
    "lzma.decompress": _unpacked,
    "codecs.decode": lambda data, *codec: recoded(data, *codec[:1]),
    "codecs.encode": lambda data, *codec: recoded(data, *codec[:1]),
    "urllib.parse.unquote": lambda text, *_: bounded(lambda: urllib.parse.unquote(_text(text))),
    "urllib.parse.unquote_plus": lambda text, *_: bounded(lambda: urllib.parse.unquote_plus(_text(text))),
    "html.unescape": lambda text: bounded(lambda: html.unescape(_text(text))),
}


def _path(*parts: Constant) -> Constant:
    texts = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts]
    if not all(isinstance(part, str) for part in texts):
        return None
    return bounded(lambda: posixpath.join(*texts) if texts else ".")  # type: ignore[arg-type]


FUNCTIONS: dict[str, Callable[..., Constant]] = DECODERS | {
    "format": lambda value, *layout: shown(value, layout[0] if layout else "", -1),
    "bin": lambda number: bounded(lambda: bin(number)),
    "oct": lambda number: bounded(lambda: oct(number)),
    "chr": lambda number: bounded(lambda: chr(number)),
    "ord": lambda letter: bounded(lambda: ord(letter)),
    "int": lambda text, *base: bounded(lambda: int(text, *base)) if len(_text(text)) < 80 else None,
    "str": lambda text, *codec: (
        text.decode("latin-1") if isinstance(text, bytes) and codec else bounded(lambda: str(text))
    ),
    "bytes": lambda text, *codec: (
        text.encode() if isinstance(text, str) and codec else text if isinstance(text, bytes) else None
    ),
    "bytearray": lambda text, *codec: (
        text.encode() if isinstance(text, str) and codec else text if isinstance(text, bytes) else None
    ),
    "memoryview": lambda data: data,
    "hex": lambda number: bounded(lambda: hex(number)),
    "repr": lambda value: bounded(lambda: repr(value)),
    "len": lambda text: bounded(lambda: len(text)),
    "sys.intern": lambda text: text,
    "os.fsencode": lambda text: text,
    "os.fsdecode": lambda text: text,
    "os.fspath": lambda text: text,
    "operator.add": lambda a, b: binary(ast.Add(), a, b),
    "operator.concat": lambda a, b: binary(ast.Add(), a, b),
    "operator.xor": lambda a, b: binary(ast.BitXor(), a, b),
    "operator.mod": lambda a, b: binary(ast.Mod(), a, b),
    "operator.index": lambda number: number,
    "bytes.maketrans": lambda old, new: bounded(lambda: bytes.maketrans(old, new)),
    "shlex.quote": lambda text: text,
    "textwrap.dedent": lambda text: text,
    "inspect.cleandoc": lambda text: text,
    "os.path.join": _path,
    "os.path.expanduser": lambda path: path,
    "os.path.expandvars": lambda path: path,
    "os.path.abspath": lambda path: path,
    "os.path.realpath": lambda path: path,
    "os.path.normpath": lambda path: bounded(lambda: posixpath.normpath(path)),
    "os.path.dirname": lambda path: bounded(lambda: posixpath.dirname(path)),
    "os.path.basename": lambda path: bounded(lambda: posixpath.basename(path)),
    "pathlib.Path": _path,
    "pathlib.PurePath": _path,
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib.Path.home": lambda: "~",
}


SEARCHES = frozenset({"glob", "rglob", "iterdir"})


def path_method(path: Constant, name: str, args: _Args) -> Constant:
    """Return the path that a method of a `pathlib` path returns, or None."""
    if not isinstance(path, str):
        return None
    if name in {"resolve", "absolute", "expanduser", "as_posix", "__str__", "__fspath__"}:
        return path
    if name in {"joinpath", "__truediv__", "__rtruediv__"}:
        return _path(path, *args)
    if name in SEARCHES:
        return _path(path, *(["**"] if name == "rglob" else []), *(args[:1] or ["*"]))
    if name == "with_name" and args:
        return _path(posixpath.dirname(path), args[0])
    if name == "parent":
        return posixpath.dirname(path) or "."
    if name == "with_suffix" and args and isinstance(args[0], str):
        return posixpath.splitext(path)[0] + args[0]
    return posixpath.basename(path) if name == "name" else None


def combinations(parts: Sequence[Sequence[Constant]]) -> list[tuple[Constant, ...]]:
    """Return the ways to choose one constant for each part: none when there are too many."""
    count = 1
    for part in parts:
        count *= len(part)
        if not 0 < count <= MAX_ALTERNATIVES:
            return []
    return list(itertools.product(*parts))
