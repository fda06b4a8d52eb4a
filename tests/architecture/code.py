"""Our own source files, as the architecture tests see them."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a checkout may hold beside the project itself; .gitignore keeps it out.
IGNORED = {".git", ".venv", "var", "build", "node_modules", "bin", "__pycache__", "vendor"}


def files(*suffixes: str) -> list[Path]:
    """Return all our files with one of the suffixes, sorted."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in IGNORED and not name.endswith("_cache")]
        found += [Path(folder, name) for name in names if name.endswith(suffixes)]
    return sorted(found)


def product_modules() -> list[Path]:
    """Return the Python modules of the product: no tests, no examples, no migrations."""
    parts = ("platform", "tenants", "sandboxes", "audit")
    return [
        path for path in files(".py") if path.relative_to(ROOT).parts[0] in parts and path.parent.name != "migrations"
    ]


def shown(path: Path) -> str:
    """Return a path as it is written in messages."""
    return path.relative_to(ROOT).as_posix()
