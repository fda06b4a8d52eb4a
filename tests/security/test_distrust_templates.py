"""A root file system may be anybody's work: its links and device nodes lead to nothing outside of its own sandbox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node.errors import StartFailed
from tests.node.rig import TEMPLATES, base_build, eventually, leftovers, open_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
_LOADER = Path("usr/lib64/ld-linux-x86-64.so.2")
_PASSWD = "root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"
_DIRECTORIES = ("usr/bin", "usr/lib64", _LIBRARIES, "dev", "proc", "sys", "etc", "tmp", "srv", "opt", "root")


@pytest.fixture
def rootfs(place: Place) -> Iterator[Path]:
    """Return the root of a template `crafted` with little more than a shell."""
    base = TEMPLATES / base_build() / "rootfs"
    root = place.home / "templates" / "crafted" / "rootfs"
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for file in (Path("usr/bin/bash"), _LIBRARIES / "libc.so.6", _LIBRARIES / "libtinfo.so.6"):
        shutil.copy((base / file).resolve(), root / file)
    loader = (base / _LOADER).readlink().name
    shutil.copy(base / _LIBRARIES / loader, root / _LOADER)
    (root / "etc/passwd").write_text(_PASSWD)
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    yield root
    shutil.rmtree(root.parent)


@pytest.fixture
def victim(place: Place) -> Iterator[Path]:
    """Return a directory of the host that nothing may touch; it is looked at again after the test."""
    path = place.home / "victim"
    path.mkdir(mode=0o700)
    (path / "file").write_text("kept")
    before = path.stat()
    yield path
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert [entry.name for entry in path.iterdir()] == ["file"]
    assert (path / "file").read_text() == "kept"
    shutil.rmtree(path)


async def test_a_plain_one_works(place: Place, rootfs: Path) -> None:
    inside = await place.sandbox(build="crafted")
    assert await inside.still_works()
    await place.end(inside)


@pytest.mark.parametrize("climb", ["", "../../../../../../../.."])
async def test_dev_as_a_link_out_of_it_starts_nothing(place: Place, rootfs: Path, victim: Path, climb: str) -> None:
    (rootfs / "dev").rmdir()
    (rootfs / "dev").symlink_to(f"{climb}{victim}")
    with pytest.raises(StartFailed):
        await place.sandbox(build="crafted")
    await eventually(lambda: set(leftovers(place.home)["groups"]) <= {"0", "1"} or None)


@pytest.mark.parametrize("name", ["proc", "sys", "etc", "opt", "root", "tmp", "home"])
async def test_another_directory_as_a_link_out_of_it_leads_nowhere(
    place: Place, rootfs: Path, victim: Path, name: str
) -> None:
    shutil.rmtree(rootfs / name, ignore_errors=True)
    (rootfs / name).symlink_to(victim)
    try:
        inside = await place.sandbox(build="crafted")
    except StartFailed:
        return
    assert not Path(f"/proc/{inside.pid}/root{victim}/file").exists()
    await place.end(inside)


@pytest.mark.parametrize("name", ["etc/resolv.conf", "opt", "opt/gatehouse", "opt/gatehouse/egress"])
async def test_the_way_out_is_mounted_over_no_link_of_a_template(
    place: Place, rootfs: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def opened(_spec: object, _slot: int) -> None:
        return

    # Egress has nothing to do with what is mounted.
    monkeypatch.setattr(place.rig.keeper.ways, "open", opened)
    if (rootfs / name).is_dir():
        shutil.rmtree(rootfs / name)
    (rootfs / name).parent.mkdir(parents=True, exist_ok=True)
    (rootfs / name).symlink_to(victim / "file" if name.endswith("conf") else victim)
    inside = await place.sandbox(build="crafted", **open_network())
    # In the sandbox they are what they should be, or it would not have been handed out.
    shown = await inside.text(
        "read -r first < /etc/resolv.conf; echo $first; [ -d /opt/gatehouse/egress ] && echo there"
    )
    assert shown == "nameserver 127.0.0.1\nthere\n"
    await place.end(inside)


async def test_dev_null_as_a_link_into_proc_is_covered(place: Place, rootfs: Path) -> None:
    core_pattern = Path("/proc/sys/kernel/core_pattern")
    before = core_pattern.read_text()
    (rootfs / "dev/null").symlink_to(core_pattern)
    (rootfs / "dev/pts").symlink_to("/proc/sys/kernel")
    inside = await place.sandbox(build="crafted")
    assert (await inside.shell("echo '|/evil' >/dev/null; echo '|/evil' >/proc/sys/kernel/core_pattern")).exit_code == 1
    assert core_pattern.read_text() == before
    await place.end(inside)


async def test_device_nodes_in_it_do_not_open(place: Place, rootfs: Path) -> None:
    for name, kind, number in (
        ("mem", 0o020666, os.makedev(1, 1)),
        ("zero", 0o020666, os.makedev(1, 5)),
        ("loop", 0o060666, os.makedev(7, 0)),
    ):
        os.mknod(rootfs / "srv" / name, kind, number)
        (rootfs / "srv" / name).chmod(0o666)
    inside = await place.sandbox(build="crafted")
    for name in ("mem", "zero", "loop"):
        done = await inside.shell(f": </srv/{name}")
        assert (done.exit_code, done.stderr) == (1, f"/bin/bash: line 1: /srv/{name}: Permission denied\n")
    await place.end(inside)


async def test_a_guest_agent_in_it_is_covered_by_ours(place: Place, rootfs: Path) -> None:
    (rootfs / "opt/gatehouse").mkdir()
    (rootfs / "opt/gatehouse/guest").write_text("#!/bin/bash\nwhile :; do :; done\n")
    (rootfs / "opt/gatehouse/guest").chmod(0o755)
    inside = await place.sandbox(build="crafted")
    assert await inside.still_works()
    await place.end(inside)


async def test_nothing_that_happens_inside_changes_it(place: Place, rootfs: Path) -> None:
    inside = await place.sandbox(build="crafted")
    await inside.text("echo changed >/etc/passwd; echo new >/srv/new; : >/usr/bin/bash; true")
    assert (rootfs / "etc/passwd").read_text() == _PASSWD
    assert list((rootfs / "srv").iterdir()) == []
    assert (rootfs / "etc/passwd").stat().st_uid == 0
    await place.end(inside)
