"""Headers of requests that would undo what was judged of a request, or keep its answer from being searched."""

from __future__ import annotations

PARTS = frozenset({"range", "if-range"})
"""They ask for an answer in parts, which can be cut in the middle of a secret, where no search finds it."""
_OTHER_LINE = frozenset(
    {
        *("x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-original-url"),
        *("x-rewrite-url", "x-original-uri", "x-rewrite-uri", "x-override-url"),
    }
)


def says_another_line(name: str) -> bool:
    """Say whether some servers believe a header about method or path, more than the request's first line."""
    # To some of them both marks are one.
    return name.lower().replace("_", "-") in _OTHER_LINE
