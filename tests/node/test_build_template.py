"""Templates are built from Debian packages once, put in place whole, and never hold what a sandbox must not have."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node.builds import BuildError, aptsources, debian, rootfs
from sandboxes.node.builds.__main__ import main
from sandboxes.node.builds.recipe import BASE
from sandboxes.node.builds.store import Manifest, TemplateStore

if TYPE_CHECKING:
    from collections.abc import Callable

DEBIAN = textwrap.dedent("""\
    Types: deb deb-src
    # a comment
    URIs: http://mirror.example/debian
    Suites: bookworm bookworm-updates bookworm-backports
    Components: main contrib
    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
""")


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    """An empty store."""
    store = TemplateStore(tmp_path / "home")
    store.prepare()
    return store


@pytest.fixture
def said() -> list[str]:
    """What a build tells while it works."""
    return []


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program named mmdebstrap first on PATH; returns a function that takes its text."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def write(text: str) -> Path:
        program = programs / "mmdebstrap"
        program.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
        program.chmod(0o755)
        return programs / "mmdebstrap"

    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(rootfs, "PATH", f"{programs}:{os.environ['PATH']}")
    return write


# A stand-in that installs one package with everything in it that must not stay.
INSTALLS = """
import os, pathlib, sys
root = pathlib.Path(sys.argv[-2])
for name in ("dev", "etc/apt/apt.conf.d", "usr/bin", "usr/share/doc/x", "usr/lib/python3.11", "var/lib/dpkg", "home"):
    (root / name).mkdir(parents=True)
(root / "etc/debian_version").write_text("12.9\\n")
(root / "etc/apt/apt.conf.d/99mmdebstrap").write_text('Acquire::http::Proxy "http://user:secret@proxy";')
(root / "usr/lib/python3.11/EXTERNALLY-MANAGED").touch()
(root / "var/lib/dpkg/status").write_text("Package: bash\\nStatus: install ok installed\\nVersion: 5.2\\n\\n"
    "Package: gone\\nStatus: deinstall ok config-files\\nVersion: 1\\n\\n")
sys.stderr.write("I: running apt-get update...\\n")
"""


@pytest.fixture
def _no_chroot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "add_user", lambda root, recipe: None)


@pytest.mark.usefixtures("_no_chroot")
def test_a_build_is_put_in_place_whole(
    store: TemplateStore, mmdebstrap: Callable[[str], Path], said: list[str], tmp_path: Path
) -> None:
    mmdebstrap(INSTALLS)
    sources = tmp_path / "sources"
    sources.write_text(DEBIAN)
    manifest = debian.ensure(store, BASE, sources=sources, progress=said.append)

    assert store.current("base") == manifest
    assert manifest.packages == ("bash 5.2",)
    assert manifest.debian_version == "12.9"
    assert len(manifest.build_id) == 32
    assert {path.name for path in store.directory.iterdir()} == {".lock", manifest.build_id, "base.current"}
    assert stat.S_IMODE((store.directory / manifest.build_id).stat().st_mode) == 0o700
    assert "fetching the package lists" in said[1]
    root = store.directory / manifest.build_id / "rootfs"
    assert not list(root.glob("etc/apt/apt.conf.d/*"))
    assert not list(root.glob("usr/lib/python3.11/EXTERNALLY-MANAGED"))
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777


@pytest.mark.usefixtures("_no_chroot")
def test_a_second_build_of_the_same_recipe_does_nothing(
    store: TemplateStore, mmdebstrap: Callable[[str], Path], said: list[str], tmp_path: Path
) -> None:
    program = mmdebstrap(INSTALLS)
    sources = tmp_path / "sources"
    sources.write_text(DEBIAN)
    first = debian.ensure(store, BASE, sources=sources, progress=said.append)
    program.unlink()
    said.clear()

    assert debian.ensure(store, BASE, sources=sources, progress=said.append) == first
    assert said == []


def test_a_changed_recipe_is_another_build() -> None:
    assert dataclasses.replace(BASE, packages=(*BASE.packages, "jq")).digest() != BASE.digest()
    assert dataclasses.replace(BASE).digest() == BASE.digest()


def test_what_an_interrupted_build_left_is_swept(store: TemplateStore) -> None:
    (store.directory / ".building-1" / "rootfs").mkdir(parents=True)
    with store.building() as work:
        assert not (store.directory / ".building-1").exists()
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert not work.exists()


def test_a_failed_build_leaves_the_current_one(
    store: TemplateStore, mmdebstrap: Callable[[str], Path], said: list[str], tmp_path: Path
) -> None:
    mmdebstrap("import sys; sys.stderr.write('E: disk is full\\n'); sys.exit(1)")
    sources = tmp_path / "sources"
    sources.write_text(DEBIAN)

    with pytest.raises(BuildError, match=r"^mmdebstrap failed \(disk is full\): mend that and run"):
        debian.ensure(store, BASE, sources=sources, progress=said.append)
    assert [path.name for path in store.directory.iterdir()] == [".lock"]


def test_a_program_that_ends_before_it_reads_is_heard(
    store: TemplateStore, mmdebstrap: Callable[[str], Path], said: list[str], tmp_path: Path
) -> None:
    mmdebstrap("import sys; sys.stderr.write('E: no such option\\n'); sys.exit(1)")
    sources = tmp_path / "sources"
    # More than a pipe holds: whoever writes it meets the end of the reader.
    sources.write_text(DEBIAN + "# padding\n" * 20_000)

    with pytest.raises(BuildError, match=r"^mmdebstrap failed \(no such option\)"):
        debian.ensure(store, BASE, sources=sources, progress=said.append)


def test_an_unreachable_mirror_is_named_as_such(
    store: TemplateStore, mmdebstrap: Callable[[str], Path], said: list[str], tmp_path: Path
) -> None:
    failed = "W: Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  Could not resolve"
    mmdebstrap(f"import sys; sys.stderr.write({failed!r}); sys.exit(1)")
    sources = tmp_path / "sources"
    sources.write_text(DEBIAN)

    with pytest.raises(BuildError) as refused:
        debian.ensure(store, BASE, sources=sources, progress=said.append)
    assert str(refused.value).startswith("The Debian mirror cannot be reached (Failed to fetch http://mirror.example/")
    assert str(refused.value).endswith("then run the same command again.")


def test_a_missing_mmdebstrap_is_named(store: TemplateStore, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(BuildError, match="apt-get install mmdebstrap"):
        debian.ensure(store, BASE, sources=None, progress=said.append)


def test_the_command_refuses_anybody_but_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["base", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "template: building a template needs root: run the command with sudo.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"build_id": "x", "packages": []})], ids=["empty", "list", "object", "part"]
)
def test_a_damaged_manifest_counts_as_no_build(store: TemplateStore, text: str) -> None:
    (store.directory / "x" / "rootfs").mkdir(parents=True)
    (store.directory / "x" / "manifest.json").write_text(text)
    (store.directory / "base.current").write_text("x\n")

    assert store.current("base") is None


# --- the host's package sources


def write_sources(etc_apt: Path, **files: str) -> None:
    """Write files below sources.list.d, `_` standing for the dot of the ending."""
    (etc_apt / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        (etc_apt / "sources.list.d" / name.replace("_", ".")).write_text(text)


def test_the_hosts_own_mirror_is_used(tmp_path: Path) -> None:
    write_sources(tmp_path, debian_sources=DEBIAN)

    found = aptsources.host_sources("bookworm", tmp_path)
    assert [(source.uri, source.suite, source.components) for source in found] == [
        ("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        ("http://mirror.example/debian", "bookworm-updates", ("main", "contrib")),
    ]
    assert found[0].signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_one_line_sources_are_read_too(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "sources.list").write_text(
        "deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main # the mirror\n"
        "# deb http://off.example/debian bookworm main\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\n"
    )

    found = aptsources.host_sources("bookworm", tmp_path)
    assert found == [aptsources.Source("https://mirror.example/debian", "bookworm", ("main",), "/k.gpg")]


def test_other_repositories_stay_out(tmp_path: Path) -> None:
    other = "Types: deb\nURIs: https://vendor.example/apt\nSuites: {}\nComponents: {}\n"
    write_sources(
        tmp_path,
        debian_sources=DEBIAN,
        vendor_sources=other.format("nodistro", "main"),
        cloud_sources=other.format("cloud-bookworm", "main"),
        same_sources=other.format("bookworm", "vendor"),
        off_sources=DEBIAN.replace("mirror", "off") + "Enabled: no\n",
    )

    assert {source.uri for source in aptsources.host_sources("bookworm", tmp_path)} == {"http://mirror.example/debian"}


def test_a_password_of_the_mirror_stays_with_the_host() -> None:
    source = aptsources.Source("https://user:secret@mirror.example:8443/debian", "bookworm", ("main",))

    assert "secret" in source.render()
    assert source.public().uri == "https://mirror.example:8443/debian"


def test_a_host_without_the_suite_is_refused(tmp_path: Path) -> None:
    write_sources(tmp_path, debian_sources=DEBIAN.replace("bookworm", "trixie"))

    with pytest.raises(BuildError, match=r"^This host names no package source for Debian bookworm: add one"):
        aptsources.host_sources("bookworm", tmp_path)


# --- what goes out of a tree


def test_privileges_are_stripped(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    for name, mode in (("sudo", 0o4755), ("mount", 0o4755), ("wall", 0o2755)):
        (tmp_path / "usr/bin" / name).touch()
        (tmp_path / "usr/bin" / name).chmod(mode)
    # cap_net_raw=ep, as a file capability is stored
    os.setxattr(
        tmp_path / "usr/bin/wall", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(tmp_path / "fifo")

    rootfs.strip_privileges(tmp_path, ("usr/bin/sudo",))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "usr/bin").iterdir()}
    assert modes == {"sudo": 0o4755, "mount": 0o755, "wall": 0o755}
    assert os.listxattr(tmp_path / "usr/bin/wall") == []
    assert [path.name for path in tmp_path.iterdir()] == ["usr"]


def test_removing_never_follows_a_link(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "kept").mkdir(parents=True)
    (root / "var").mkdir(parents=True)
    (root / "var/log").mkdir()
    (root / "var/log/link").symlink_to(outside)

    rootfs.remove(root, ("var/log/*",))

    assert list((root / "var/log").iterdir()) == []
    assert (outside / "kept").is_dir()


# --- the template that `make template` has built


@pytest.fixture(scope="module")
def base() -> Path:
    """The root of the real template, which every test run builds first."""
    home = Path(__file__).resolve().parents[2] / "var"
    manifest = TemplateStore(home).current("base")
    assert manifest is not None, "run `make template` first"
    assert isinstance(manifest, Manifest)
    return home / "templates" / manifest.build_id / "rootfs"


def test_base_has_its_programs(base: Path) -> None:
    for name in ["bash", "python3", "python", "pip", "git", "curl", "tput", "ps", "sudo", "su", "less", "unzip", "xz"]:
        assert (base / "usr/bin" / name).exists(), name
    assert (base / "usr/bin/python").readlink() == Path("python3")
    assert (base / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000
    assert list(base.glob("usr/lib/python3.11/__pycache__/*.pyc"))


def test_base_has_the_user_with_a_home(base: Path) -> None:
    assert "user:x:1000:1000::/home/user:/bin/bash" in (base / "etc/passwd").read_text().splitlines()
    assert (base / "home/user").stat().st_uid == 1000
    assert "user:!:" in (base / "etc/shadow").read_text()
    assert (base / "etc/sudoers.d/user").read_text() == "user ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert stat.S_IMODE((base / "etc/sudoers").stat().st_mode) == 0o440


@pytest.mark.parametrize("name", ["proc", "sys", "dev/pts", "dev/shm", "dev/mqueue", "opt/gatehouse", "tmp", "run"])
def test_base_has_every_mount_point(base: Path, name: str) -> None:
    assert (base / name).is_dir()
    assert not (base / name).is_symlink()


def test_base_holds_nothing_of_the_host(base: Path) -> None:
    assert (base / "etc/machine-id").read_text() == ""
    assert (base / "etc/resolv.conf").read_text() == ""
    assert (base / "etc/hostname").read_text() == "sandbox\n"
    assert not list(base.glob("etc/apt/apt.conf.d/99*"))
    assert not list(base.glob("var/lib/apt/lists/*"))
    for source in base.glob("etc/apt/sources.list.d/*"):
        assert "@" not in source.read_text()


def test_base_has_few_privileged_files_and_no_devices(base: Path) -> None:
    privileged = set()
    for parent, _directories, names in os.walk(base):
        for name in names:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISLNK(mode), path
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                privileged.add(str(path.relative_to(base)))
            assert not os.listxattr(path, follow_symlinks=False), path
    assert privileged == set(BASE.privileged)
