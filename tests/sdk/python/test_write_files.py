"""/files through the SDK: text, bytes, streams, many at once, metadata, octet streams, gzip; and what is refused."""

from __future__ import annotations

import inspect
import io
import os
from typing import Any

import pytest
from e2b.exceptions import (
    AuthenticationException,
    FileNotFoundException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
)

METADATA = {"author": "alice", "purpose": "upload"}


async def test_write_and_read_text(box: Any, ok: Any, folder: str) -> None:
    info = await ok(box.files.write(f"{folder}/today.txt", "grüße\n"))
    assert (info.name, info.path) == ("today.txt", f"/home/user/{folder}/today.txt")
    assert await ok(box.files.read(f"{folder}/today.txt")) == "grüße\n"
    listed = await ok(box.commands.run(f"stat -c '%U:%G %a' {folder} {folder}/today.txt"))
    assert listed.stdout == "user:user 755\nuser:user 644\n"


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
async def test_bytes_survive_in_every_form(box: Any, ok: Any, folder: str, size: int) -> None:
    data = os.urandom(size)
    await ok(box.files.write(f"{folder}/blob", data))
    assert bytes(await ok(box.files.read(f"{folder}/blob", format="bytes"))) == data
    stream = await ok(box.files.read(f"{folder}/blob", format="stream"))
    pieces = [piece async for piece in stream] if hasattr(stream, "__aiter__") else list(stream)
    assert b"".join(pieces) == data


async def test_write_from_an_open_file(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/io", io.BytesIO(b"from a file")))
    assert await ok(box.files.read(f"{folder}/io")) == "from a file"


async def test_write_over_a_longer_file(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "a long first text"))
    await ok(box.files.write(f"{folder}/a", "short"))
    assert await ok(box.files.read(f"{folder}/a")) == "short"


async def test_writing_keeps_the_mode_of_a_file(box: Any, ok: Any, folder: str) -> None:
    await ok(box.commands.run(f"mkdir {folder}; touch {folder}/run.sh; chmod 750 {folder}/run.sh"))
    await ok(box.files.write(f"{folder}/run.sh", "echo hi"))
    assert (await ok(box.commands.run(f"stat -c %a {folder}/run.sh"))).stdout == "750\n"


async def test_many_files_at_once(box: Any, ok: Any, folder: str) -> None:
    entries: list[Any] = [{"path": f"{folder}/{number}.txt", "data": f"number {number}"} for number in range(25)]
    infos = await ok(box.files.write_files(entries))
    assert [info.path for info in infos] == [f"/home/user/{folder}/{number}.txt" for number in range(25)]
    assert (await ok(box.commands.run(f"cat {folder}/7.txt; ls {folder} | wc -l"))).stdout == "number 725\n"
    assert await ok(box.files.write_files([])) == []


@pytest.mark.parametrize(("octets", "gzip"), [(True, True), (True, False), (False, False)])
async def test_every_way_to_upload(box: Any, ok: Any, folder: str, *, octets: bool, gzip: bool) -> None:
    data = b"compressible " * 50_000
    await ok(box.files.write(f"{folder}/a", data, use_octet_stream=octets, gzip=gzip))
    assert bytes(await ok(box.files.read(f"{folder}/a", format="bytes", gzip=gzip))) == data


@pytest.mark.parametrize(
    "name", ["with space", "plus+and%25", "ümlaut ☃", "quote'\"", "semi;colon&amp", "$(id)", "a\nb"]
)
async def test_odd_names(box: Any, ok: Any, folder: str, name: str) -> None:
    info = await ok(box.files.write(f"{folder}/{name}", "odd"))
    assert info.path == f"/home/user/{folder}/{name}"
    assert await ok(box.files.read(f"{folder}/{name}")) == "odd"
    assert [entry.name for entry in await ok(box.files.list(folder))] == [name]


async def test_home_may_be_written_as_tilde(box: Any, ok: Any, folder: str) -> None:
    assert (await ok(box.files.write(f"~/{folder}/a", "x"))).path == f"/home/user/{folder}/a"


async def test_files_of_the_kernel_are_read_to_their_end(box: Any, ok: Any) -> None:
    assert len(await ok(box.files.read("/proc/sys/kernel/random/boot_id"))) == 37


@pytest.mark.parametrize("octets", [True, False], ids=["octet-stream", "multipart"])
async def test_metadata_is_kept(box: Any, ok: Any, folder: str, *, octets: bool) -> None:
    info = await ok(box.files.write(f"{folder}/a", "x", metadata=METADATA, use_octet_stream=octets))
    assert info.metadata == METADATA
    assert (await ok(box.files.get_info(f"{folder}/a"))).metadata == METADATA
    assert [entry.metadata for entry in await ok(box.files.list(folder))] == [METADATA]


async def test_metadata_of_many_files(box: Any, ok: Any, folder: str) -> None:
    entries: list[Any] = [{"path": f"{folder}/{name}", "data": name} for name in "ab"]
    infos = await ok(box.files.write_files(entries, metadata=METADATA))
    assert [info.metadata for info in infos] == [METADATA, METADATA]


async def test_metadata_follows_a_rename_and_ends_with_the_next_write(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "x", metadata=METADATA))
    assert (await ok(box.files.rename(f"{folder}/a", f"{folder}/b"))).metadata == METADATA
    assert not (await ok(box.files.write(f"{folder}/b", "y"))).metadata
    assert not (await ok(box.files.get_info(f"{folder}/b"))).metadata


async def test_metadata_is_an_extended_attribute(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.write(f"{folder}/a", "x"))
    script = f"import os; os.setxattr('/home/user/{folder}/a', 'user.e2b.author', b'bob')"
    await ok(box.commands.run(f'python3 -c "{script}"'))
    assert (await ok(box.files.get_info(f"{folder}/a"))).metadata == {"author": "bob"}


async def test_metadata_past_its_limit_is_refused(box: Any, ok: Any, folder: str) -> None:
    with pytest.raises((InvalidArgumentException, SandboxException)):
        await ok(box.files.write(f"{folder}/a", "x", metadata={"big": "v" * 5000}))


async def test_missing_file_is_not_found(box: Any, ok: Any) -> None:
    for form in ("text", "bytes", "stream"):
        with pytest.raises((FileNotFoundException, NotFoundException)):
            await read_all(box.files.read("missing.txt", format=form))


async def read_all(answer: Any) -> None:
    """Read a file to its end in whatever form it comes."""
    value = await answer if inspect.isawaitable(answer) else answer
    if hasattr(value, "__aiter__"):
        async for _ in value:
            pass


async def test_a_directory_is_neither_read_nor_written(box: Any, ok: Any, folder: str) -> None:
    await ok(box.files.make_dir(folder))
    with pytest.raises(InvalidArgumentException, match="is a directory"):
        await ok(box.files.read(folder))
    with pytest.raises(InvalidArgumentException, match="is a directory"):
        await ok(box.files.write(folder, "x"))


async def test_names_that_cannot_be_are_refused(box: Any, ok: Any) -> None:
    for name in ("x" * 300, "a/" * 3000 + "b"):
        with pytest.raises(SandboxException):
            await ok(box.files.write(name, "x"))


async def test_an_unknown_user_is_refused(box: Any, ok: Any) -> None:
    with pytest.raises(AuthenticationException, match="mallory"):
        await ok(box.files.write("a", "x", user="mallory"))
    with pytest.raises(AuthenticationException, match="mallory"):
        await ok(box.files.read(".bashrc", user="mallory"))
