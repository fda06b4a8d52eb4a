"""Where nobody is root nobody becomes it, nothing but home and memory can be written, and nothing runs from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.security.conftest import without_root

if TYPE_CHECKING:
    from tests.security.conftest import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("place", "bounding"), [("hardened", 1), ("process", 0)], indirect=["place"])
async def test_capabilities_are_none_where_nobody_is_root(place: Place, bounding: int) -> None:
    status = await place.mallory.text("grep -E '^Cap|^Seccomp:|^NoNewPrivs:' /proc/self/status /proc/1/status -h")
    found = [line.split(":\t") for line in status.splitlines()]
    assert [int(value, 16) for name, value in found if name == "CapBnd"] == [bounding] * 2
    assert {value for name, value in found if name.startswith("Cap") and name != "CapBnd"} == {"0" * 16}
    assert [value for name, value in found if not name.startswith("Cap")] == ["1", "2"] * 2


@without_root
async def test_nobody_becomes_another_user(place: Place) -> None:
    done = await place.mallory.python("""
answer([
    os.getresuid(), os.getresgid(), attempt(lambda: os.setuid(0)), attempt(lambda: os.setresgid(0, 0, 0)),
    attempt(lambda: os.setuid(1001)), attempt(lambda: os.chown("/home/user/.profile", 0, 0)),
])
""")
    assert done == [[1000] * 3, [1000] * 3, "EPERM", "EPERM", "EPERM", "EPERM"]
    for program in ("sudo -n id", "su -c id", "mount -t tmpfs none /tmp"):
        assert (await place.mallory.shell(f"{program} </dev/null")).exit_code != 0
    copied = "cp /usr/bin/id /home/user/id && chmod 6755 /home/user/id && /home/user/id -u"
    assert await place.mallory.text(copied) == "1000\n"


@without_root
async def test_nothing_but_home_and_memory_can_be_written(place: Place) -> None:
    tried = await place.mallory.python("""
places = ["/home/user", "/tmp", "/dev/shm", "/dev/mqueue"]
for top, directories, _files in os.walk("/", onerror=None):
    if top.startswith("/proc"):
        directories.clear()
    if not any(top == place or top.startswith(place + "/") for place in places):
        if attempt(lambda: os.close(os.open(top + "/x", os.O_CREAT | os.O_WRONLY))) == "done":
            places.append("!" + top)
answer(places)
""")
    assert [name for name in tried if name.startswith("!")] == []


@without_root
async def test_nothing_runs_from_memory(place: Place) -> None:
    for directory in ("/tmp", "/dev/shm"):
        script = f"cp /bin/true {directory}/t; printf '#!/bin/sh\\n' >{directory}/s; chmod 755 {directory}/s"
        await place.mallory.text(script)
        for name in ("t", "s"):
            done = await place.mallory.shell(f"{directory}/{name}")
            assert (done.exit_code, "Permission denied" in done.stderr) == (126, True)
    assert await place.mallory.text("cp /bin/echo ~/e && ~/e ran") == "ran\n"
