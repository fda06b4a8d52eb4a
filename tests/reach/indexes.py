"""Sites that package managers and git fetch from."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.internet.sites import Answer, Request
    from tests.internet.world import Internet

_NOT_FOUND = 404


def _serve(internet: Internet, host: str, pages: dict[str, tuple[str, bytes]]) -> None:
    """Let a host serve these pages: type and content by path."""

    def site(request: Request) -> Answer:
        kind, body = pages.get(request.target.partition("?")[0], ("", b""))
        return (200, {"Content-Type": kind}, body) if kind else (_NOT_FOUND, {}, b"")

    internet.sites.sites[host] = site


def python_index(internet: Internet) -> None:
    """Serve an index with one Python package."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greeting.py", "words = 'hello from the index'\n")
        archive.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        archive.writestr(
            "greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("greeting-1.0.dist-info/RECORD", "")
    name = "greeting-1.0-py3-none-any.whl"
    page = f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a></body></html>'
    files = {
        "/simple/greeting/": ("text/html", page.encode()),
        f"/files/{name}": ("application/octet-stream", wheel.getvalue()),
    }
    _serve(internet, "pypi.allowed.test", files)


def node_registry(internet: Internet) -> None:
    """Serve a registry with one package for Node.js."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        manifest = {"name": "greeting", "version": "1.0.0", "main": "index.js"}
        files = {"package.json": json.dumps(manifest), "index.js": 'module.exports = "hello from the registry";\n'}
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    data = packed.getvalue()
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    tarball = {"tarball": "https://npm.allowed.test/greeting/-/greeting-1.0.0.tgz", "integrity": f"sha512-{digest}"}
    versions = {"1.0.0": {"name": "greeting", "version": "1.0.0", "dist": tarball}}
    about = {"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    pages = {
        "/greeting": ("application/json", json.dumps(about).encode()),
        "/greeting/-/greeting-1.0.0.tgz": ("application/octet-stream", data),
    }
    _serve(internet, "npm.allowed.test", pages)


def git_repository(internet: Internet, directory: Path) -> None:
    """Serve a repository as files, as any web server can."""
    work, bare = directory / "work", directory / "greeting.git"
    git: Callable[..., object] = functools.partial(
        subprocess.run,
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1"},
    )
    work.mkdir()
    (work / "greeting.txt").write_text("hello from the repository\n")
    git(["git", "init", "-q", "-b", "main", str(work)])
    git(["git", "-C", str(work), "add", "."])
    who = ["-c", "user.name=Alice", "-c", "user.email=alice@example.test"]
    git(["git", "-C", str(work), *who, "commit", "-q", "-m", "Greet"])
    git(["git", "clone", "-q", "--bare", str(work), str(bare)])
    git(["git", "-C", str(bare), "update-server-info"])
    files = {
        f"/greeting.git/{path.relative_to(bare)}": ("application/octet-stream", path.read_bytes())
        for path in bare.rglob("*")
        if path.is_file()
    }
    _serve(internet, "git.allowed.test", files)
