"""Package managers and git fetch from an allowed host with nothing set up by the user but which index to use."""

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

import pytest

from tests.reach import luggage
from tests.reach.conftest import both_ways

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.internet.sites import Answer, Request
    from tests.internet.world import Internet
    from tests.reach.conftest import Alice

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NOT_FOUND = 404


def _serve(internet: Internet, host: str, pages: dict[str, tuple[str, bytes]]) -> None:
    """Let a host serve these pages: type and content by path."""

    def site(request: Request) -> Answer:
        kind, body = pages.get(request.target.partition("?")[0], ("", b""))
        return (200, {"Content-Type": kind}, body) if kind else (_NOT_FOUND, {}, b"")

    internet.sites.sites[host] = site


def _index(internet: Internet) -> None:
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


def _registry(internet: Internet) -> None:
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


def _repository(internet: Internet, directory: Path) -> None:
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


@both_ways
async def test_pip_installs_from_an_allowed_index(alice: Alice, way: str) -> None:
    _index(alice.internet)
    line = "rm -rf target; pip install -q --target target --index-url https://pypi.allowed.test/simple greeting"
    await alice.text(line, way=way)
    greet = "PYTHONPATH=target python3 -c 'import greeting; print(greeting.words)'"
    assert await alice.text(greet) == "hello from the index\n"


async def test_pip_says_why_another_index_cannot_be_used(alice: Alice) -> None:
    line = "pip install --retries 1 --target target --index-url https://pypi.evil.test/simple greeting"
    done = await alice.run(line)
    assert done.exit_code == 1
    assert "403 Forbidden (network policy: no_rule, add pypi.evil.test:443)" in done.stderr
    assert (await alice.refusal("egress.denied", "pypi.evil.test"))["reason"] == "no_rule"


@both_ways
async def test_npm_installs_from_an_allowed_registry(alice: Alice, way: str) -> None:
    _registry(alice.internet)
    await alice.bring(luggage.node_and_npm())
    npm = "PATH=$HOME/programs:$PATH node $HOME/programs/npm/bin/npm-cli.js"
    where = "rm -rf project ~/.npm; mkdir project; cd project"
    flags = "--registry https://npm.allowed.test --no-audit --no-fund --no-update-notifier"
    await alice.text(f"{where}; {npm} install {flags} greeting", way=way)
    greet = "cd project; ../programs/node -p 'require(\"greeting\")'"
    assert await alice.text(greet) == "hello from the registry\n"


@both_ways
async def test_git_clones_from_an_allowed_host(alice: Alice, way: str, tmp_path: Path) -> None:
    _repository(alice.internet, tmp_path)
    await alice.text("rm -rf greeting; git clone -q https://git.allowed.test/greeting.git", way=way)
    assert await alice.text("cat greeting/greeting.txt") == "hello from the repository\n"


async def test_git_says_why_another_host_cannot_be_cloned_from(alice: Alice) -> None:
    done = await alice.run("git clone https://git.evil.test/other.git")
    assert done.exit_code not in (None, 0)
    assert "403" in done.stderr
    assert (await alice.refusal("egress.denied", "git.evil.test"))["reason"] == "no_rule"
