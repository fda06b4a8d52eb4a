"""Files of the SDK: write, read, list, info, rename, remove, owners, big and odd ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from e2b import AsyncSandbox, FileType, Sandbox
from e2b.exceptions import FileNotFoundException, NotFoundException, SandboxException

if TYPE_CHECKING:
    from e2b.sandbox.filesystem.filesystem import WriteEntry


def test_write_and_read_text(sandbox: Sandbox) -> None:
    info = sandbox.files.write("notes/today.txt", "grüße\n")
    assert info.path == "/home/user/notes/today.txt"
    assert sandbox.files.read("notes/today.txt") == "grüße\n"
    assert sandbox.commands.run("stat -c '%U:%G %a' notes notes/today.txt").stdout == "user:user 755\nuser:user 644\n"


async def test_write_and_read_text_async(async_sandbox: AsyncSandbox) -> None:
    await async_sandbox.files.write("notes/today.txt", "grüße\n")
    assert await async_sandbox.files.read("notes/today.txt") == "grüße\n"


def test_bytes_survive(sandbox: Sandbox) -> None:
    data = os.urandom(5 * 1024 * 1024)
    sandbox.files.write("blob", data)
    assert bytes(sandbox.files.read("blob", format="bytes")) == data
    assert b"".join(sandbox.files.read("blob", format="stream")) == data


def test_empty_file(sandbox: Sandbox) -> None:
    sandbox.files.write("empty", "")
    assert sandbox.files.read("empty") == ""


def test_many_files_at_once(sandbox: Sandbox) -> None:
    entries: list[WriteEntry] = [{"path": f"many/{i}.txt", "data": f"number {i}"} for i in range(30)]
    assert len(sandbox.files.write_files(entries)) == 30
    assert sandbox.commands.run("cat many/7.txt; ls many | wc -l").stdout == "number 730\n"


def test_list_with_depth(sandbox: Sandbox) -> None:
    sandbox.files.write("tree/a/b.txt", "b")
    assert [(entry.name, entry.type) for entry in sandbox.files.list("tree")] == [("a", FileType.DIR)]
    assert sorted(entry.path for entry in sandbox.files.list("tree", depth=2)) == [
        "/home/user/tree/a",
        "/home/user/tree/a/b.txt",
    ]


def test_info_rename_remove(sandbox: Sandbox) -> None:
    sandbox.files.write("old.txt", "12345")
    assert sandbox.files.get_info("old.txt").size == 5
    assert sandbox.files.rename("old.txt", "new.txt").path == "/home/user/new.txt"
    assert not sandbox.files.exists("old.txt")
    sandbox.files.remove("new.txt")
    assert not sandbox.files.exists("new.txt")


def test_make_dir_twice(sandbox: Sandbox) -> None:
    assert sandbox.files.make_dir("folder") is True
    assert sandbox.files.make_dir("folder") is False


def test_missing_file_is_not_found(sandbox: Sandbox) -> None:
    with pytest.raises((FileNotFoundException, NotFoundException)):
        sandbox.files.read("missing.txt")


def test_zero_byte_in_a_path_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException):
        sandbox.files.write("bad\0name", "x")


def test_long_name_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException):
        sandbox.files.write("x" * 300, "x")


def test_traversal_stays_in_the_sandbox(sandbox: Sandbox) -> None:
    sandbox.files.write("../../tmp/seen.txt", "inside")
    assert sandbox.commands.run("cat /tmp/seen.txt").stdout == "inside"


def test_files_belong_to_the_user_who_wrote_them(sandbox: Sandbox) -> None:
    sandbox.files.write("/root/notes/a", "s", user="root")
    assert sandbox.files.read("/root/notes/a", user="root") == "s"
    assert sandbox.commands.run("sudo stat -c %U /root/notes /root/notes/a").stdout == "root\nroot\n"


def test_full_disk_is_an_error_not_a_loss(sandbox: Sandbox) -> None:
    sandbox.commands.run("head -c 900M /dev/zero > filler", timeout=60)
    with pytest.raises(SandboxException):
        sandbox.files.write("too-much", b"x" * (200 * 1024 * 1024))
    sandbox.commands.run("rm -f filler too-much")
    sandbox.files.write("fits", "again")
    assert sandbox.files.read("fits") == "again"
