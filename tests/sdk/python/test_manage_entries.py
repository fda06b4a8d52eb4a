"""filesystem.Filesystem through the SDK: Stat, MakeDir, Move, ListDir, Remove."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from e2b import FileType
from e2b.exceptions import (
    FileNotFoundException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
)


async def test_info_of_a_file(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a.txt", "test"))
    info = await ok(box.files.get_info(f"{folder}/a.txt"))
    assert (info.name, info.type, info.path, info.size) == ("a.txt", FileType.FILE, f"/home/user/{folder}/a.txt", 4)
    assert (info.mode, info.permissions, info.owner, info.group) == (0o644, "-rw-r--r--", "user", "user")
    assert info.symlink_target is None
    age = datetime.now(timezone.utc) - info.modified_time.astimezone(timezone.utc)  # noqa: UP017
    assert abs(age) < timedelta(minutes=1)


async def test_info_of_a_directory(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(folder))
    info = await ok(box.files.get_info(folder))
    assert (info.name, info.type, info.path) == (folder, FileType.DIR, f"/home/user/{folder}")
    assert (info.mode, info.permissions, info.owner, info.group) == (0o755, "drwxr-xr-x", "user", "user")


async def test_info_of_a_symlink(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/real", "12345"))
    await ok(box.commands.run(f"cd {folder} && ln -s real link"))
    info = await ok(box.files.get_info(f"{folder}/link"))
    assert (info.name, info.path) == ("link", f"/home/user/{folder}/link")
    assert info.symlink_target == f"/home/user/{folder}/real"
    assert info.permissions == "Lrwxrwxrwx"


async def test_info_of_something_missing(box: Any, ok: Any) -> None:
    with pytest.raises((FileNotFoundException, NotFoundException)):
        await ok(box.files.get_info("missing"))


async def test_exists(box: Any, ok: Any, folder: str) -> None:
    assert await ok(box.files.exists(folder)) is False
    await ok(box.files.make_dir(folder))
    assert await ok(box.files.exists(folder)) is True
    assert await ok(box.files.exists("/etc/passwd")) is True


async def test_make_dir_makes_its_parents_once(box: Any, ok: Any, folder: str) -> None:
    assert await ok(box.files.make_dir(f"{folder}/a/b")) is True
    assert await ok(box.files.make_dir(f"{folder}/a/b")) is False
    listed = await ok(box.commands.run(f"stat -c '%U:%G %a' {folder} {folder}/a {folder}/a/b"))
    assert listed.stdout == "user:user 755\n" * 3


async def test_make_dir_over_a_file_is_invalid(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "x"))
    with pytest.raises(InvalidArgumentException):
        await ok(box.files.make_dir(f"{folder}/a"))


async def test_list_one_level(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    assert [(entry.name, entry.type) for entry in await ok(box.files.list(folder))] == [
        ("a", FileType.DIR),
        ("b", FileType.DIR),
        ("z.txt", FileType.FILE),
    ]


async def plant(box: Any, ok: Any, folder: str) -> None:
    """Make a small tree."""
    for path in ("a/deep/deeper.txt", "b/file.txt", "z.txt"):
        await ok(box.files.write(f"{folder}/{path}", "x"))


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, ["a", "b", "z.txt"]),
        (2, ["a", "a/deep", "b", "b/file.txt", "z.txt"]),
        (3, ["a", "a/deep", "a/deep/deeper.txt", "b", "b/file.txt", "z.txt"]),
        (9, ["a", "a/deep", "a/deep/deeper.txt", "b", "b/file.txt", "z.txt"]),
    ],
)
async def test_list_deeper(box: Any, ok: Any, folder: str, depth: int, expected: list[str]) -> None:
    await plant(box, ok, folder)
    listed = [entry.path for entry in await ok(box.files.list(folder, depth=depth))]
    assert listed == [f"/home/user/{folder}/{path}" for path in expected]


async def test_list_with_an_impossible_depth_is_refused(box: Any, ok: Any) -> None:
    with pytest.raises(InvalidArgumentException):
        await ok(box.files.list(".", depth=0))


async def test_list_shows_links_without_following_them(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    await ok(box.commands.run(f"cd {folder} && ln -s a link && ln -s z.txt file-link && ln -s nowhere dangling"))
    entries = {entry.name: entry for entry in await ok(box.files.list(folder, depth=2))}
    assert entries["file-link"].symlink_target == f"/home/user/{folder}/z.txt"
    assert entries["link"].symlink_target == f"/home/user/{folder}/a"
    assert f"/home/user/{folder}/link/deep" not in [entry.path for entry in entries.values()]


async def test_list_through_a_link(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    await ok(box.commands.run(f"ln -s {folder} {folder}-link"))
    paths = [entry.path for entry in await ok(box.files.list(f"{folder}-link"))]
    assert paths == [f"/home/user/{folder}-link/{name}" for name in ("a", "b", "z.txt")]


async def test_list_of_something_missing_or_of_a_file(box: Any, ok: Any, folder: str) -> None:
    with pytest.raises((FileNotFoundException, NotFoundException)):
        await ok(box.files.list("missing"))
    await ok(box.files.write(f"{folder}/a", "x"))
    with pytest.raises((InvalidArgumentException, SandboxException), match="not a directory"):
        await ok(box.files.list(f"{folder}/a"))


async def test_rename_a_file(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/old", "12345"))
    info = await ok(box.files.rename(f"{folder}/old", f"{folder}/new/place"))
    assert (info.name, info.path, info.size) == ("place", f"/home/user/{folder}/new/place", 5)
    assert await ok(box.files.exists(f"{folder}/old")) is False
    assert await ok(box.files.read(f"{folder}/new/place")) == "12345"


async def test_rename_over_a_file_replaces_it(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "a"))
    await ok(box.files.write(f"{folder}/b", "b"))
    await ok(box.files.rename(f"{folder}/a", f"{folder}/b"))
    assert await ok(box.files.read(f"{folder}/b")) == "a"


async def test_rename_a_directory(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    await ok(box.files.rename(folder, f"{folder}-moved"))
    assert await ok(box.files.read(f"{folder}-moved/a/deep/deeper.txt")) == "x"


async def test_rename_of_something_missing(box: Any, ok: Any) -> None:
    with pytest.raises((FileNotFoundException, NotFoundException)):
        await ok(box.files.rename("missing", "anywhere"))


async def test_remove_takes_files_and_whole_trees(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    await ok(box.files.remove(f"{folder}/z.txt"))
    assert await ok(box.files.exists(f"{folder}/z.txt")) is False
    await ok(box.files.remove(folder))
    assert await ok(box.files.exists(folder)) is False
    await ok(box.files.remove(folder))


async def test_remove_takes_a_link_and_not_what_it_names(box: Any, ok: Any, folder: str) -> None:
    await plant(box, ok, folder)
    await ok(box.commands.run(f"ln -s {folder} {folder}-link"))
    await ok(box.files.remove(f"{folder}-link"))
    assert await ok(box.files.exists(f"{folder}/z.txt")) is True
