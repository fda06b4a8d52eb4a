"""The code interpreter's port: which of its calls run code, and which its clients make without a token."""

from __future__ import annotations

import re

CODE_PORT = 49999
# Clients of the interpreter send the access token with `/execute` alone.
_WITHOUT_TOKEN = (
    ("GET", re.compile(r"/health|/contexts")),
    ("POST", re.compile(r"/contexts|/contexts/[A-Za-z0-9_-]{1,128}/restart")),
    ("DELETE", re.compile(r"/contexts/[A-Za-z0-9_-]{1,128}")),
)
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def needs_token(method: str, path: str) -> bool:
    """Say whether a call must carry an access token.

    Only what the clients are known to call without one goes without; any other spelling of a path needs it,
    because the server may read it as `/execute`. A browser's question before a call can't carry one.
    """
    return method != "OPTIONS" and not _is_about_contexts(method, path)


def runs_code(method: str, path: str) -> bool:
    """Say whether a call's body counts as code: whatever is sent to an unknown path may run."""
    return method not in _READS and not _is_about_contexts(method, path)


def _is_about_contexts(method: str, path: str) -> bool:
    return any(method == known and pattern.fullmatch(path) for known, pattern in _WITHOUT_TOKEN)
