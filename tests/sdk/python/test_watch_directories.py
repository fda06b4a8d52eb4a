"""Watching through the SDK: the polled form of the sync face, the streamed form of the async one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from e2b import FilesystemEventType, NotFoundException
from e2b.exceptions import SandboxException


class Watch:
    """A watcher of either face."""

    def __init__(self, box: Any) -> None:
        self.box = box
        self.events: list[Any] = []
        self.handle: Any = None

    async def open(self, path: str, **options: Any) -> Watch:
        """Start watching."""
        if type(self.box).__name__ == "Sandbox":
            self.handle = self.box.files.watch_dir(path, **options)
        else:
            self.handle = await self.box.files.watch_dir(path, on_event=self.events.append, **options)
        return self

    async def until(self, kind: Any, name: str, within_s: float = 5.0) -> Any:
        """Return the first event of that kind and name."""
        deadline = time.monotonic() + within_s
        while True:
            if type(self.box).__name__ == "Sandbox":
                self.events += self.handle.get_new_events()
            for event in self.events:
                if (event.type, event.name) == (kind, name):
                    return event
            assert time.monotonic() < deadline, self.events
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop watching."""
        if type(self.box).__name__ == "Sandbox":
            self.handle.stop()
        else:
            await self.handle.stop()


async def test_a_new_file_is_created_and_written(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(folder))
    watch = await Watch(box).open(folder)
    await ok(box.files.write(f"{folder}/new.txt", "text"))
    await watch.until(FilesystemEventType.CREATE, "new.txt")
    await watch.until(FilesystemEventType.WRITE, "new.txt")
    kinds = [event.type for event in watch.events]
    assert kinds.index(FilesystemEventType.CREATE) < kinds.index(FilesystemEventType.WRITE)
    await watch.close()


async def test_every_kind_of_change(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "x"))
    watch = await Watch(box).open(folder)
    await ok(box.commands.run(f"cd {folder}; chmod 600 a; mv a b; rm b"))
    await watch.until(FilesystemEventType.CHMOD, "a")
    await watch.until(FilesystemEventType.RENAME, "a")
    await watch.until(FilesystemEventType.CREATE, "b")
    await watch.until(FilesystemEventType.REMOVE, "b")
    await watch.close()


async def test_recursive_watching_sees_folders_that_come_later(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(f"{folder}/old"))
    watch = await Watch(box).open(folder, recursive=True)
    await ok(box.files.write(f"{folder}/old/a", "x"))
    await watch.until(FilesystemEventType.WRITE, "old/a")
    await ok(box.files.make_dir(f"{folder}/new/deep"))
    await ok(box.files.write(f"{folder}/new/deep/b", "x"))
    await watch.until(FilesystemEventType.CREATE, "new")
    await watch.until(FilesystemEventType.WRITE, "new/deep/b")
    await watch.close()


async def test_plain_watching_stays_at_its_level(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(f"{folder}/sub"))
    watch = await Watch(box).open(folder)
    await ok(box.files.write(f"{folder}/sub/hidden", "x"))
    await ok(box.files.write(f"{folder}/last", "x"))
    await watch.until(FilesystemEventType.WRITE, "last")
    assert [event.name for event in watch.events if "hidden" in event.name] == []
    await watch.close()


async def test_events_may_carry_the_entry(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(folder))
    watch = await Watch(box).open(folder, include_entry=True)
    await ok(box.files.write(f"{folder}/a", "12345"))
    event = await watch.until(FilesystemEventType.WRITE, "a")
    assert event.entry is not None
    assert event.entry.path == f"/home/user/{folder}/a"
    await watch.close()


async def test_a_stopped_watcher_says_nothing_more(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(folder))
    watch = await Watch(box).open(folder)
    await watch.close()
    await ok(box.files.write(f"{folder}/late", "x"))
    if type(box).__name__ == "Sandbox":
        with pytest.raises((NotFoundException, SandboxException)):
            watch.handle.get_new_events()
    else:
        await asyncio.sleep(0.2)
        assert watch.events == []


async def test_missing_directories_and_files_are_refused(box: Any, ok: Any, folder: str) -> None:
    with pytest.raises((NotFoundException, SandboxException), match="not found"):
        await Watch(box).open("missing-directory")
    await ok(box.files.write(f"{folder}/a", "x"))
    with pytest.raises(SandboxException, match="not a directory"):
        await Watch(box).open(f"{folder}/a")
