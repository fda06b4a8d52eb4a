"""`cp`: files and folders, into a sandbox and out of it."""

from __future__ import annotations

import os
import posixpath
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gatehouse.cli.agent import CHUNK, Agent
from gatehouse.cli.errors import CliError, NotThere

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from gatehouse.cli.control import Control

_FOLDER, _FILE = "FILE_TYPE_DIRECTORY", "FILE_TYPE_FILE"


def copy(control: Control, options: Namespace) -> int:
    """Copy one source to one target, one of them inside."""
    source, target = _split(options.source), _split(options.target)
    if (source[0] is None) == (target[0] is None):
        raise CliError("One side must be SANDBOX:PATH, as in `gatehouse cp report.csv ID:/home/user/`.", status=2)
    sandbox = source[0] or target[0] or ""
    agent = Agent(control.place, control.open(sandbox)["access"], user=options.user)
    if target[0] is not None:
        _upload(agent, source[1], target[1], recursive=options.recursive)
    else:
        _download(agent, source[1], target[1], recursive=options.recursive)
    return 0


def _split(text: str) -> tuple[str | None, str]:
    """Return the sandbox and the path; no sandbox for a path here, which a `/` or `.` before the colon shows."""
    head, colon, path = text.partition(":")
    if not colon or not head.isalnum():
        return None, text
    return head, path or "."


def _upload(agent: Agent, source: str, target: str, *, recursive: bool) -> None:
    if source == "-":
        agent.write(target, _blocks(sys.stdin.buffer.fileno()))
        return
    here = Path(source)
    if here.is_dir():
        if not recursive:
            raise CliError(f"{source} is a folder: use -r.")
        root = posixpath.join(target, here.resolve().name) if _is_folder(agent, target) else target
        _upload_folder(agent, here, root)
    elif here.exists():
        inside = target.endswith("/") or _is_folder(agent, target)
        _upload_file(agent, here, posixpath.join(target, here.name) if inside else target)
    else:
        raise NotThere(f"There is no {source} here.")


def _upload_folder(agent: Agent, here: Path, root: str) -> None:
    for folder, folders, names in os.walk(here):
        folders.sort()
        there = posixpath.join(root, *Path(folder).relative_to(here).parts)
        agent.make_folder(there)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                _upload_file(agent, path, posixpath.join(there, name))
            else:
                _note(f"left out {path}: no file")


def _upload_file(agent: Agent, here: Path, there: str) -> None:
    try:
        with here.open("rb") as file:
            agent.write(there, file, size=os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise CliError(f"{here} can't be read: {error.strerror}.") from error


def _download(agent: Agent, source: str, target: str, *, recursive: bool) -> None:
    if target == "-":
        for block in agent.read(source):
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    here, name = Path(target), posixpath.basename(source.rstrip("/")) or "root"
    if agent.stat(source)["type"] == _FOLDER:
        if not recursive:
            raise CliError(f"{source} is a folder: use -r.")
        _download_folder(agent, source, here / name if here.is_dir() else here)
    else:
        _download_file(agent, source, here / name if here.is_dir() else here)


def _download_folder(agent: Agent, source: str, here: Path) -> None:
    here.mkdir(parents=True, exist_ok=True)
    for entry in agent.list(source):
        name = str(entry["name"])
        # What a sandbox says is not trusted: a name stays a name, below the folder that was asked for.
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise CliError(f"The sandbox named a file {name!r}, which is no name.")
        there = posixpath.join(source, name)
        if entry.get("symlinkTarget") or entry["type"] not in {_FOLDER, _FILE}:
            _note(f"left out {there}: no file")
        elif entry["type"] == _FOLDER:
            _download_folder(agent, there, here / name)
        else:
            _download_file(agent, there, here / name)


def _download_file(agent: Agent, source: str, here: Path) -> None:
    part = here.with_name(f"{here.name}.part-{os.getpid()}")
    try:
        with part.open("wb") as file:
            _write_all(file.fileno(), agent.read(source))
        part.replace(here)
    except OSError as error:
        raise CliError(f"{here} can't be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


def _write_all(descriptor: int, blocks: Iterable[bytes]) -> None:
    for block in blocks:
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]


def _is_folder(agent: Agent, path: str) -> bool:
    try:
        return bool(agent.stat(path)["type"] == _FOLDER)
    except NotThere:
        return False


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, CHUNK):
        yield block


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
