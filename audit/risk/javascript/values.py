"""What JavaScript expressions mean without running them: the names they stand for and the texts they hold."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tree_sitter import Node

# Stands in a text for the part that is not known.
HOLE = "\ufffc"
_MAX_DEPTH = 24
_MAX_TEXT = 1 << 16
_GLOBALS = frozenset({"globalThis", "window", "global", "self", "top", "frames"})
_LITERALS = {
    "array": "[]",
    "object": "{}",
    "string": '""',
    "regex": "/./",
    "function_expression": "()=>",
    "arrow_function": "()=>",
}
_WRAPPERS = frozenset({"parenthesized_expression", "await_expression", "non_null_expression", "as_expression"})
# Imports that bind a module, not something in it.
_WHOLE = frozenset({"import_clause", "namespace_import"})
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|(\r\n|.))", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": "", "\r\n": ""}
_HOMES = frozenset({"os.homedir()", "os.userInfo().homedir", "process.env.HOME", "process.env.USERPROFILE"})


class Values:
    """What is known of the names of a program, wherever they are bound."""

    def __init__(self, root: Node) -> None:
        # Each name with the expressions it may be, and the properties to take of them.
        self._bound: dict[str, list[tuple[Node, tuple[str, ...]]]] = {}
        self._imported: dict[str, str] = {}
        for node in nodes(root):
            if node.type == "variable_declarator":
                self._bind(node.child_by_field_name("name"), node.child_by_field_name("value"))
            elif node.type == "assignment_expression":
                self._bind(node.child_by_field_name("left"), node.child_by_field_name("right"))
            elif node.type == "import_statement":
                self._import(node)

    def _bind(self, target: Node | None, value: Node | None, path: tuple[str, ...] = ()) -> None:
        if target is None or value is None:
            return
        if target.type in {"identifier", "shorthand_property_identifier_pattern"}:
            self._bound.setdefault(text_of(target), []).append((value, path))
        elif target.type == "object_pattern":
            for part in target.named_children:
                if part.type == "pair_pattern":
                    key = text_of(part.child_by_field_name("key"))
                    self._bind(part.child_by_field_name("value"), value, (*path, key))
                else:
                    self._bind(part, value, (*path, text_of(part)))

    def _import(self, node: Node) -> None:
        source = node.child_by_field_name("source")
        module = bare(self.text(source) or "") if source is not None else ""
        for part in nodes(node):
            if part.type == "import_specifier":
                name = text_of(part.child_by_field_name("name"))
                self._imported[text_of(part.child_by_field_name("alias")) or name] = f"{module}.{name}"
            elif part.type == "identifier" and part.parent is not None and part.parent.type in _WHOLE:
                self._imported[text_of(part)] = module

    # Names

    def name(self, node: Node | None, depth: int = 0) -> str:
        """Return the dotted name of what an expression stands for, the globals' own prefix left out, or nothing."""
        if node is None or depth > _MAX_DEPTH:
            return ""
        kind = node.type
        if kind == "identifier":
            return self._identifier(text_of(node), depth)
        if kind in _WRAPPERS or kind == "sequence_expression":
            return self.name(node.named_children[-1] if node.named_children else None, depth + 1)
        if kind in {"member_expression", "subscript_expression"}:
            return self._member(node, depth)
        if kind in {"call_expression", "new_expression"}:
            return self._called(node, depth)
        return _LITERALS.get(kind, "")

    def _identifier(self, name: str, depth: int) -> str:
        if name in self._imported:
            return self._imported[name]
        for value, path in self._bound.get(name, ()):
            found = self.name(value, depth + 1)
            if found:
                return ".".join((found, *path))
        return name if name not in self._bound else ""

    def _member(self, node: Node, depth: int) -> str:
        owner = self.name(node.child_by_field_name("object"), depth + 1)
        if node.type == "member_expression":
            key: str | None = text_of(node.child_by_field_name("property"))
        else:
            key = self.text(node.child_by_field_name("index"), depth + 1)
        if not owner or key is None or HOLE in key:
            return ""
        return key if owner in _GLOBALS else f"{owner}.{key}"

    def _called(self, node: Node, depth: int) -> str:
        function = callee(node)
        if function is None:
            return ""
        if text_of(function) in {"require", "import"}:
            given = arguments(node)
            module = self.text(given[0], depth + 1) if given else None
            return bare(module) if module is not None and HOLE not in module else ""
        found = self.name(function, depth + 1)
        return f"{found}()" if found else ""

    # Texts

    def text(self, node: Node | None, depth: int = 0) -> str | None:
        """Return the text that an expression holds, with holes for what is not known, or None if nothing is."""
        if node is None or depth > _MAX_DEPTH:
            return None
        handler = _TEXTS.get(node.type)
        found = handler(self, node, depth + 1) if handler is not None else None
        return found if found is None or len(found) <= _MAX_TEXT else None

    def _string(self, node: Node, _: int) -> str | None:
        return _ESCAPE.sub(_escaped, text_of(node)[1:-1])

    def _template(self, node: Node, depth: int) -> str | None:
        made, at = [], node.start_byte + 1
        for part in node.children:
            if part.type == "template_substitution":
                made.append(_slice(node, at, part.start_byte))
                made.append(self.text(part.named_children[0] if part.named_children else None, depth) or HOLE)
                at = part.end_byte
        made.append(_slice(node, at, node.end_byte - 1))
        return "".join(made)

    def _sum(self, node: Node, depth: int) -> str | None:
        if text_of(node.child_by_field_name("operator")) != "+":
            return None
        parts = [self.text(node.child_by_field_name(side), depth) for side in ("left", "right")]
        return None if parts == [None, None] else "".join(HOLE if part is None else part for part in parts)

    def _known(self, node: Node, depth: int) -> str | None:
        if self.name(node, depth) in _HOMES:
            return "~"
        if node.type != "identifier":
            return None
        found = [self.text(value, depth) for value, path in self._bound.get(text_of(node), ()) if not path]
        return found[0] if found else None

    def _inner(self, node: Node, depth: int) -> str | None:
        return self.text(node.named_children[-1] if node.named_children else None, depth)

    def _number(self, node: Node, _: int) -> str | None:
        return text_of(node)

    def _either(self, node: Node, depth: int) -> str | None:
        return self.text(node.child_by_field_name("consequence"), depth)

    def _call(self, node: Node, depth: int) -> str | None:
        function, given = callee(node), arguments(node)
        name = self.name(node, depth)
        if name in _HOMES:
            return "~"
        first = self.text(given[0], depth) if given else None
        if name.endswith(("path.join()", "path.resolve()")) or name in {"join()", "resolve()"}:
            return "/".join(self.text(part, depth) or HOLE for part in given)
        if name in _DECODERS and first is not None:
            return _DECODERS[name](first)
        if name == "String.fromCharCode()":
            return "".join(_letter(self.text(part, depth)) for part in given)
        if name == "Buffer.from()" and first is not None:
            return _decoded(first, self.text(given[1], depth) if len(given) > 1 else "utf8")
        if function is None or function.type != "member_expression":
            return None
        return self._method(function, given, depth)

    def _method(self, function: Node, given: list[Node], depth: int) -> str | None:
        owner, method = function.child_by_field_name("object"), text_of(function.child_by_field_name("property"))
        if method == "join":
            parts = self._parts(owner, depth)
            return None if parts is None else (self._argument(given, depth, ",") or "").join(parts)
        text = self.text(owner, depth)
        if text is None or HOLE in text:
            return None
        if method in {"replace", "replaceAll"} and len(given) == 2:
            old, new = self.text(given[0], depth), self.text(given[1], depth)
            return text.replace(old, new) if old and new is not None else None
        simple = _METHODS.get(method)
        return simple(text) if simple is not None else None

    def _argument(self, given: list[Node], depth: int, default: str) -> str | None:
        return self.text(given[0], depth) if given else default

    def _parts(self, node: Node | None, depth: int) -> list[str] | None:
        """Return the texts of an array, also of a text that is taken apart or turned round."""
        if node is None or depth > _MAX_DEPTH:
            return None
        if node.type == "array":
            return [self.text(part, depth) or HOLE for part in node.named_children]
        if node.type == "identifier":
            for value, path in self._bound.get(text_of(node), ()):
                return self._parts(value, depth + 1) if not path else None
        function = callee(node) if node.type == "call_expression" else None
        if function is None or function.type != "member_expression":
            return None
        owner, method = function.child_by_field_name("object"), text_of(function.child_by_field_name("property"))
        if method == "reverse":
            parts = self._parts(owner, depth + 1)
            return parts[::-1] if parts is not None else None
        if method == "split":
            text, glue = self.text(owner, depth + 1), self._argument(arguments(node), depth + 1, "")
            return None if text is None or glue is None else (text.split(glue) if glue else list(text))
        return None


def nodes(root: Node) -> Iterator[Node]:
    """Yield all nodes in the order of the text; a stack of our own, for the text decides how deep it goes."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def text_of(node: Node | None) -> str:
    """Return a node's own text."""
    return (node.text or b"").decode("utf-8", "replace") if node is not None else ""


def callee(node: Node) -> Node | None:
    """Return what a call calls or `new` makes."""
    return node.child_by_field_name("function") or node.child_by_field_name("constructor")


def arguments(node: Node) -> list[Node]:
    """Return what a call is given."""
    given = node.child_by_field_name("arguments")
    return [part for part in given.named_children if part.type != "comment"] if given is not None else []


def bare(module: str) -> str:
    """Return the name of a module without what only says where it comes from."""
    return module.removeprefix("node:").replace("fs/promises", "fs")


def _slice(node: Node, start: int, end: int) -> str:
    data = node.text or b""
    raw = data[start - node.start_byte : end - node.start_byte].decode("utf-8", "replace")
    return _ESCAPE.sub(_escaped, raw)


def _escaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code:
        return chr(int(code, 16)) if int(code, 16) < 0x110000 else ""
    return _PLAIN_ESCAPES.get(found[4], found[4])


def _letter(number: str | None) -> str:
    try:
        return chr(int(number or "", 0))
    except (ValueError, OverflowError):
        return HOLE


def _decoded(text: str, codec: str | None) -> str | None:
    try:
        if codec in {"base64", "base64url"}:
            return base64.b64decode(text + "==", altchars=b"-_" if codec == "base64url" else None).decode("latin-1")
        return bytes.fromhex(text).decode("latin-1") if codec == "hex" else text
    except (ValueError, binascii.Error):
        return None


_TEXTS: dict[str, Callable[[Values, Node, int], str | None]] = {
    "string": Values._string,
    "template_string": Values._template,
    "binary_expression": Values._sum,
    "identifier": Values._known,
    "member_expression": Values._known,
    "parenthesized_expression": Values._inner,
    "await_expression": Values._inner,
    "sequence_expression": Values._inner,
    "number": Values._number,
    "ternary_expression": Values._either,
    "call_expression": Values._call,
}
_DECODERS: dict[str, Callable[[str], str | None]] = {
    "atob()": lambda text: _decoded(text, "base64"),
    "unescape()": urllib.parse.unquote,
    "decodeURIComponent()": urllib.parse.unquote,
    "decodeURI()": urllib.parse.unquote,
    "String()": lambda text: text,
    "String.raw()": lambda text: text,
}
_METHODS: dict[str, Callable[[str], str]] = {
    "toString": lambda text: text,
    "valueOf": lambda text: text,
    "trim": str.strip,
    "toLowerCase": str.lower,
    "toUpperCase": str.upper,
}
