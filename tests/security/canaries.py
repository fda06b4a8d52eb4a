"""Canaries: secrets of the tests that are told from everything else, and the search for them in any encoding."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from corekit.needles import Needles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.live import Stack

_AT_ONCE = 8 << 20


def canary(kind: str) -> str:
    """Return a new value. It has characters that every encoding writes in another way."""
    return f'sk-{kind}"/+%\\{secrets.token_hex(16)}>?~'


class Search:
    """Looks for the values, in the six encodings of each."""

    def __init__(self, values: Iterable[str]) -> None:
        self._needles = Needles(value.encode() for value in values)

    def __contains__(self, data: bytes | str) -> bool:
        """Say whether one of them stands in the data."""
        return self._needles.found_in(data.encode() if isinstance(data, str) else data)

    def files(self, folder: Path, *, since: float = 0.0) -> list[str]:
        """Return the files of a folder that hold one: of its own file system, changed since then."""
        find = ["find", str(folder), "-xdev", "-type", "f", "-newerct", f"@{since:.3f}", "-print0"]
        # Files of sandboxes come and go while they are listed.
        listed = subprocess.run(find, capture_output=True, check=False).stdout.split(b"\0")
        return [os.fsdecode(path) for path in listed if path and self._in_file(Path(os.fsdecode(path)))]

    def _in_file(self, path: Path) -> bool:
        kept = b""
        for piece in _written(path):
            if self._needles.found_in(kept + piece):
                return True
            # One that begins at the end of a piece ends in the next.
            kept = (kept + piece)[-self._needles.longest :]
        return False

    def processes(self) -> list[str]:
        """Return the environments and command lines of this host, those of sandboxes too, that hold one."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("environ", "cmdline"):
                try:
                    data = (process / name).read_bytes()
                except OSError:
                    continue
                if self._needles.found_in(data):
                    found.append(f"{process.name}/{name}")
        return found

    def memory(self, pid: int) -> bool:
        """Say whether a process's memory holds one."""
        return any(self._needles.found_in(chunk) for chunk in _memory(pid))


def _written(path: Path) -> Iterator[bytes]:
    """Return what was written into a file: disks of sandboxes are mostly holes."""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        end = 0
        while True:
            # At the end this is an error, as where the file is gone.
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            os.lseek(file.fileno(), start, os.SEEK_SET)
            while start < end and (piece := file.read(min(_AT_ONCE, end - start))):
                start += len(piece)
                yield piece


def _memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, access = line.split()[:2]
            if not access.startswith("r") or "[v" in line:
                continue
            start, end = (int(place, 16) for place in span.split("-"))
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except (OSError, OverflowError):
                continue


def dump_of(stack: Stack) -> bytes:
    """Return all rows of an installation's database as a dump has them."""
    url = stack.environment.get("DATABASE_URL")
    if url is None:
        with contextlib.closing(sqlite3.connect(stack.home / "db" / "gatehouse.sqlite3")) as database:
            return "\n".join(database.iterdump()).encode()
    return subprocess.run(["pg_dump", "--inserts", url], capture_output=True, check=True).stdout


def cache_of(stack: Stack) -> bytes:
    """Return all that an installation has in Redis; nothing where it has none."""
    url = stack.environment.get("REDIS_URL")
    if url is None:
        return b""
    with redis.Redis.from_url(url) as client:
        return b"\n".join(key + b"=" + repr(_value(client, key)).encode() for key in client.scan_iter())


def _value(client: Any, key: bytes) -> object:
    read: dict[bytes, Callable[[], object]] = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"hash": lambda: client.hgetall(key),
        b"stream": lambda: client.xrange(key),
        # It went meanwhile.
        b"none": lambda: b"",
    }
    return read[client.type(key)]()
