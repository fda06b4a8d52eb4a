"""What the tree of a script tells before anybody follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node

_REDIRECT_MARKS = frozenset({b"<", b">", b"<<", b"<<<", b"<>"})


def is_broken(root: Node) -> bool:
    """Whether a part can't be read; the grammar does not know every redirection to a descriptor of its own."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_missing or (node.type == "ERROR" and (node.text or b"").strip() not in _REDIRECT_MARKS):
            return True
        # Of arithmetic the grammar knows little, and it has its own reader.
        waiting += [child for child in node.children if child.has_error and child.type != "arithmetic_expansion"]
    return False


def assigned_in(body: Node) -> frozenset[str]:
    """Return the variables that a function's body sets."""
    found = set()
    waiting = [body]
    while waiting:
        node = waiting.pop()
        if node.type == "variable_assignment" and (name := node.child_by_field_name("name")) is not None:
            found.add((name.text or b"").decode("utf-8", "replace"))
        waiting += node.children
    return frozenset(found)
