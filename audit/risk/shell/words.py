"""From the syntax tree of a word to the words that the shell makes of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import is_root
from audit.risk.shell import arithmetic
from audit.risk.shell.parameters import operate, unescape
from audit.risk.shell.values import (
    EMPTY,
    MAX_TEXT,
    MYSTERY,
    NOTHING,
    SPLIT,
    UNKNOWN,
    UNSET,
    Value,
    Word,
    braces,
    hide,
    hide_braces,
    joined,
    quoted,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tree_sitter import Node

    from audit.risk.shell.state import State

_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_IN_QUOTES = re.compile(r'\\([$`"\\]|\n)')
_PLAIN = re.compile(r"[\w./=:@%^-]+\Z")
_LETTERS = re.compile(r"\\(?:x[67][0-9a-fA-F]|u00[67][0-9a-fA-F]|U000000[67][0-9a-fA-F]|1[4-7][0-7])")
_DECODED = frozenset({"decoded"})
_RESHAPED = frozenset({"reshaped"})
_NAMES = re.compile(r"[A-Za-z_]\w*")
_INDEX = re.compile(r"\w\[[^\]]*\$\(([^)]*)\)")
_BLANKS = re.compile(r"[ \t\n]+")
_QUOTING = re.compile(r"['\"\\]")
_QUOTES = frozenset({"raw_string", "string"})
_SUBSTITUTIONS = frozenset({"command_substitution", "process_substitution"})
_EXPANSIONS = frozenset({"simple_expansion", "expansion", "arithmetic_expansion"}) | _SUBSTITUTIONS
_OPERATORS = frozenset({":-", "-", ":=", "=", ":+", "+", ":?", "?"})
_CHANGES = frozenset({":", "/", "//", "/#", "/%", "#", "##", "%", "%%", "^", "^^", ",", ",,", "@", "!"})
_LATE = re.compile(r"`([^`]*)`|\$\(([^()]*)\)")


class Expander:
    """Expands the words of one source in one shell's memory."""

    def __init__(self, state: State, substitute: Callable[[Node], Value], run: Callable[[str, Node], Value]) -> None:
        self._state = state
        self._substitute = substitute
        self._run = run
        self.pick = 0
        """Which of a variable's possible values is taken."""
        self.widest = 1
        """The most values that a variable asked for since the last reset may have."""

    def words(self, node: Node, before: str = "") -> list[Word]:
        """Return the words that one word of the source becomes: none, one, or many.

        `before` is text that the tree put outside the word.
        """
        kind = node.type
        is_name = kind == "command_name"
        if (is_name or kind == "word") and not before:
            raw = _text(node)
            if _PLAIN.match(raw):
                return [Word(raw, NOTHING, node)]
        elif kind in _QUOTES and not before and (quoted := _constant(node, kind)) is not None:
            return [Word(quoted, NOTHING, node)]
        flat, taints = self._flat(node)
        flat = before + flat
        # Only a command's name is suspicious when it is put together; looking costs time.
        escaped = is_name and _has_escape(node)
        assembled = escaped or (is_name and _is_assembled(node))
        shredded = assembled and _is_shredded(node)
        found = []
        for expanded in braces(flat) if "{" in flat else (flat,):
            parts = (
                [part for part in expanded.split(SPLIT) if part] if SPLIT in expanded or not expanded else [expanded]
            )
            if not parts and _is_quoted(node):
                parts = [""]
            for part in parts:
                pattern = "*" in part or "?" in part or "[" in part
                text = show(_home(part))[:MAX_TEXT]
                if pattern and is_root(text):
                    taints |= {"everywhere"}
                found.append(Word(text, taints, node, pattern, assembled, escaped, shredded))
        return found

    def value(self, node: Node) -> Value:
        """Return what a word is where the shell doesn't split: assignments, here-strings, patterns."""
        kind = node.type
        if kind in _QUOTES and (quoted := _constant(node, kind)) is not None:
            return Value(quoted)
        flat, taints = self._flat(node)
        return Value(show(_home(flat.replace(SPLIT, " ")))[:MAX_TEXT], taints)

    def here_document(self, body: Node, *, quoted: bool) -> Value:
        """Return the text of a here-document's body."""
        if quoted:
            return Value(_text(body))
        flat, taints = self._inside(body, here=True)
        return Value(show(flat.replace(SPLIT, " "))[:MAX_TEXT], taints)

    def _flat(self, node: Node) -> tuple[str, frozenset[str]]:
        """Return a word with quoted specials hidden, and its origins."""
        kind = node.type
        if kind in {"word", "number", "variable_name", "regex", "extglob_pattern", "test_operator"}:
            if node.child_count and kind in {"number", "word"}:
                return self._concatenated(node)
            return _BACKSLASHED.sub(_unquoted_backslash, _text(node)), NOTHING
        if kind == "raw_string":
            return hide(_text(node)[1:-1]), NOTHING
        if kind == "ansi_c_string":
            text = _text(node)
            # Letters that are written as numbers are hidden, wherever they go.
            return hide(unescape(text[2:-1])), _DECODED if _LETTERS.search(text) else NOTHING
        if kind in {"string", "translated_string"}:
            return self._inside(node)
        if kind in {"concatenation", "command_name", "array", "brace_expression"}:
            return self._concatenated(node)
        if kind in _EXPANSIONS:
            value = self._expanded(node)
            if kind == "process_substitution":
                return value.text, value.taints
            text = value.text
            if text.isalnum() and "IFS" not in self._state.variables:
                return text, value.taints
            return hide_braces(self._separators().sub(SPLIT, text)), value.taints
        return _text(node), NOTHING

    def _separators(self) -> re.Pattern[str]:
        """Return what an unquoted expansion is split at."""
        own = self._state.variables.get("IFS")
        if not own or not own[0].known or not own[0].text:
            return _BLANKS
        return re.compile(f"[{re.escape(own[0].text[:16])}]+")

    def _concatenated(self, node: Node) -> tuple[str, frozenset[str]]:
        if node.type == "brace_expression" or not node.child_count:
            return _text(node), NOTHING
        texts, taints = [], NOTHING
        for child in node.children:
            text, origin = self._flat(child)
            texts.append(text)
            taints |= origin
        return "".join(texts)[:MAX_TEXT], taints

    def _inside(self, node: Node, *, here: bool = False) -> tuple[str, frozenset[str]]:
        """Return what stands between double quotes. The tree leaves blanks out of its nodes: read the gaps as well."""
        raw, begin = node.text or b"", node.start_byte
        if b"$" not in raw and b"`" not in raw and not here:
            text = raw.decode("utf-8", "surrogateescape")[1:-1]
            return hide(_IN_QUOTES.sub(_quoted_backslash, text) if "\\" in text else text), NOTHING
        texts, taints, at = [], NOTHING, begin

        def literal(end: int) -> None:
            if end == at:
                return
            gap = raw[at - begin : end - begin].decode("utf-8", "surrogateescape")
            texts.append(
                self._late(gap, node) if here else hide(_IN_QUOTES.sub(_quoted_backslash, gap) if "\\" in gap else gap)
            )

        for child in node.children:
            if child.type in _EXPANSIONS:
                shown = child.text or b""
                # The dollar's node may begin before the dollar.
                literal(child.start_byte + len(shown) - len(shown.lstrip()))
                value = self._expanded(child)
                texts.append(hide(value.text))
                taints |= value.taints
                at = child.end_byte
        literal(begin + len(raw))
        text = "".join(texts)
        if here:
            return text, taints
        return (text[2:-1] if text.startswith("$") else text[1:-1]), taints

    def _late(self, text: str, node: Node) -> str:
        """Run the substitutions that the tree takes for text in a here-document."""
        text = _LATE.sub(lambda found: hide(self._run(found[1] or found[2] or "", node).text), text)
        return hide(_IN_QUOTES.sub(_quoted_backslash, text))

    def _expanded(self, node: Node) -> Value:
        if node.type in _SUBSTITUTIONS:
            return self._substitute(node)
        if node.type == "arithmetic_expansion":
            return self._computed(node)
        if node.type == "simple_expansion":
            return self._named(_text(node).strip()[1:])
        return self._operated(node)

    def _computed(self, node: Node) -> Value:
        """Evaluate `$((...))`; the substitutions in it run first."""
        text, taints = _text(node)[3:-2], NOTHING
        waiting = list(node.children)
        while waiting:
            child = waiting.pop()
            if child.type in _SUBSTITUTIONS:
                value = self._substitute(child)
                text = text.replace(_text(child), value.text.strip() or "0")
                taints |= value.taints
            else:
                waiting += child.children
        for found in _NAMES.finditer(text):
            named = self._state.get(found[0])
            if named is not None and (hidden := _INDEX.search(named.text)):
                # The index of an array that a value names is evaluated as well.
                self._run(f"eval {quoted(hidden[1])}", node)
        return Value(arithmetic.evaluate(text, lambda name: self._named(name).text), taints)

    def _named(self, name: str, *, in_full: bool = False) -> Value:
        self.widest = max(self.widest, self._state.alternatives(name))
        value = self._state.get(name, self.pick, in_full=in_full)
        if value is not None and name == "@" and self._state.positional is not None:
            return joined(self._state.positional, SPLIT)
        if value is not None:
            return value
        return MYSTERY if name.isdigit() or name in {"@", "*"} else UNSET

    def _operated(self, node: Node) -> Value:
        """Evaluate `${...}`."""
        children = [child for child in node.children if child.type not in {"${", "}"}]
        if not children:
            return MYSTERY
        if children[0].type in {"#", "!"} and len(children) > 1:
            return self._prefixed(children)
        subject, *rest = children
        is_set = subject.type == "subscript" or self._state.get(_text(subject)) is not None
        operator = _text(rest[0]) if rest else ""
        value = self._subject(subject, in_full=bool(operator) and operator not in _OPERATORS)
        if not operator:
            return value
        if operator in _OPERATORS:
            other = self.value(rest[1]) if len(rest) > 1 else EMPTY
            present = is_set and (not operator.startswith(":") or value.text != "")
            if operator[-1] == "+":
                return other if present else EMPTY
            if operator[-1] == "=" and not present:
                self._state.set(_text(subject), other)
            if not present and _text(subject).isdigit():
                # Whoever starts the script may give another.
                return Value(other.text, other.taints | UNSET.taints)
            return value if present else other
        operands = self._operands(rest[1:], operator)
        if operator == "@" and operands == ["P"] and any(mark in value.text for mark in ("$(", "`", UNKNOWN)):
            # What is expanded like a prompt runs the substitutions in it.
            return self._run(f"eval {quoted(value.text)}", node)
        made = operate(value.text, operator, operands)[:MAX_TEXT]
        # What was written down in other letters than it is used in.
        return Value(made, value.taints | _RESHAPED if value.known and made != value.text else value.taints)

    def _operands(self, nodes: list[Node], operator: str) -> list[str]:
        operands = []
        for node in nodes:
            if node.type in {":", "/"}:
                continue
            if operator == ":":
                operands.append(arithmetic.evaluate(self.value(node).text, lambda name: self._named(name).text))
            else:
                operands.append(self.value(node).text)
        return operands

    def _prefixed(self, children: list[Node]) -> Value:
        """Evaluate `${#name}` and `${!name}`."""
        value = self._subject(children[1], in_full=True)
        if children[0].type == "#":
            return Value(str(len(value.text)) if value.known else UNKNOWN)
        if len(children) > 2 or not value.known:
            return Value(UNKNOWN, value.taints)
        pointed = self._named(value.text) if value.text else MYSTERY
        return Value(pointed.text, pointed.taints | _RESHAPED) if pointed.known else pointed

    def _subject(self, node: Node, *, in_full: bool) -> Value:
        if node.type != "subscript":
            return self._named(_text(node), in_full=in_full)
        name, index = _text(node.children[0]), self.value(node.children[2]).text if node.child_count > 2 else ""
        keyed = self._state.get(f"{name}[{index}]")
        if keyed is not None:
            return keyed
        values = self._state.arrays.get(name)
        if values is None:
            return self._named(name)
        if index == "*":
            own = self._state.variables.get("IFS")
            whole = joined(values, own[0].text[:1] if own else " ")
            return Value(whole.text, whole.taints | _RESHAPED) if own and len(values) > 1 else whole
        if index == "@":
            return joined(values, SPLIT)
        place = arithmetic.evaluate(index, lambda inner: self._named(inner).text)
        if not place.lstrip("-").isdigit():
            return Value(UNKNOWN)
        number = int(place)
        return values[number] if -len(values) <= number < len(values) else EMPTY


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape")


def _constant(node: Node, kind: str) -> str | None:
    """Return what stands between quotes when it means only itself."""
    if kind == "raw_string":
        return _text(node)[1:-1][:MAX_TEXT]
    if kind == "string":
        text = _text(node)
        if text.startswith('"') and "$" not in text and "`" not in text and "\\" not in text:
            return text[1:-1][:MAX_TEXT]
    return None


def _unquoted_backslash(found: re.Match[str]) -> str:
    return "" if found[1] == "\n" else hide(found[1])


def _quoted_backslash(found: re.Match[str]) -> str:
    return "" if found[1] == "\n" else found[1]


def _home(text: str) -> str:
    return text if not text.startswith("~+") and not text.startswith("~-") else "." + text[2:]


def _is_quoted(node: Node) -> bool:
    if node.type in {"concatenation", "command_name"}:
        return any(_is_quoted(child) for child in node.children)
    return node.type in {"string", "raw_string", "ansi_c_string", "translated_string"}


def _has_escape(node: Node) -> bool:
    if node.type == "command_name":
        return any(_has_escape(child) for child in node.children)
    if node.type == "ansi_c_string":
        return re.search(rb"\\[xuU0-7]", node.text or b"") is not None
    return any(_has_escape(child) for child in node.children if child.type in {"concatenation", "ansi_c_string"})


def _is_shredded(node: Node) -> bool:
    """Whether hardly two letters of a word stand together: it is written so that nobody finds it."""
    if node.type == "command_name":
        return node.child_count > 0 and _is_shredded(node.children[0])
    pieces = [child for child in node.children if child.type not in {'"', "string_start", "string_end"}]
    if node.type not in {"concatenation", "string"} or len(pieces) < 2:
        return False
    return all(
        piece.type in {"simple_expansion", "expansion"} or len(_QUOTING.sub("", _text(piece))) < 3 for piece in pieces
    )


def _is_assembled(node: Node) -> bool:
    """Whether a word is put together from pieces, as nobody writes a command's name who has nothing to hide."""
    if node.type == "command_name":
        return any(_is_assembled(child) for child in node.children)
    if node.type == "concatenation":
        return not any(child.type == "word" and b"/" in (child.text or b"") for child in node.children)
    if node.type == "string":
        return sum(child.type in {"simple_expansion", "expansion"} for child in node.children) > 1
    if node.type == "expansion":
        return any(child.type in _CHANGES for child in node.children)
    return node.type == "word" and b"\\" in (node.text or b"")[1:]
