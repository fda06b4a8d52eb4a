"""Before anything is started the ground is checked; each refusal is one sentence that says what to do."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.node import hostfacts, pidnotes
from sandboxes.node.config import NodeConfig
from sandboxes.node.hostfacts import Tier
from sandboxes.node.hostsettings import Setting
from sandboxes.node.supervisor import SetupError, preflight, services
from sandboxes.node.supervisor.listeners import Listeners
from sandboxes.node.supervisor.loop import Account

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNTS = preflight.Accounts(
    web=Account(64001, 64001, (64000,)),
    worker=Account(64002, 64002, (64000,)),
    gateway=Account(64003, 64003),
    egress=Account(64004, 64004),
)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user may enter, outside pytest's private one."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-test-", dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def test_a_home_that_was_set_up_is_accepted(tmp_path: Path) -> None:
    for name in ("keys", "anchors", "run", "db"):
        (tmp_path / name).mkdir()
    for name in ("django.key", "seed.key", "ledger.key", "vault.key"):
        (tmp_path / "keys" / name).touch()

    preflight.require_bootstrap(tmp_path)


def test_a_home_that_was_not_set_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"django\.key is missing: run `manage\.py bootstrap` as root first\.$"):
        preflight.require_bootstrap(tmp_path)


def test_missing_users_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SERVICE_USERS", ("gatehouse-none",) * 4)
    monkeypatch.setattr(preflight, "SHARED_GROUP", "root")

    with pytest.raises(SetupError, match=r"gatehouse-none does not exist: run `manage\.py bootstrap` as root first\.$"):
        preflight.Accounts.find()


def test_anybody_but_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(SetupError, match="sudo make run"):
        preflight.require_root()


def test_this_host_is_accepted(tmp_path: Path) -> None:
    preflight.require_containers(tmp_path)


def test_a_host_without_a_kernel_feature_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = Tier("L2", "container", reason="Idmapped mounts: Invalid argument.", fix="use Linux 5.19 or newer")
    monkeypatch.setattr(hostfacts, "container_verdict", lambda _home: tier)

    with pytest.raises(SetupError) as refused:
        preflight.require_containers(tmp_path)
    assert str(refused.value) == (
        "This host can't run sandboxes yet. Idmapped mounts: Invalid argument. "
        "Mend: use Linux 5.19 or newer; `manage.py doctor` says more."
    )


def test_a_host_whose_settings_hold_is_accepted(tmp_path: Path) -> None:
    preflight.require_safe_host(tmp_path)


def test_a_host_that_undoes_isolation_is_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Setting("core_pattern", "fatal", "|/bin/x", "it runs as root", "sysctl -w kernel.core_pattern=core")
    monkeypatch.setattr(hostfacts, "settings_of", lambda _home: [pipe])

    with pytest.raises(SetupError) as refused:
        preflight.require_safe_host(tmp_path)
    assert str(refused.value) == (
        "This host would undo the isolation of sandboxes: core_pattern is |/bin/x: it runs as root. Mend: sysctl -w "
        "kernel.core_pattern=core. If you accept this, start with GATEHOUSE_ACCEPT_RISKS=core_pattern; "
        "`manage.py doctor` says more."
    )


def test_an_unknown_risk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_ACCEPT_RISKS", "everything")

    with pytest.raises(SetupError, match="names no setting of this host: everything"):
        preflight.require_safe_host(tmp_path)


def test_a_free_port_is_accepted(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    preflight.require_port(tmp_path, "127.0.0.1", port)


def test_a_busy_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SetupError) as refused:
            preflight.require_port(tmp_path, "127.0.0.1", port)
    assert str(refused.value) == (
        f"Port {port} is taken by another program: stop it, or choose a port with GATEHOUSE_PORT."
    )


def test_a_port_held_by_our_own_gateway_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    pidnotes.write(tmp_path / "run" / "gateway.json", os.getpid())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        preflight.require_port(tmp_path, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot_id": "another"}, {"pid": None}, {"pid": 2**22 + 1}])
def test_a_note_of_a_dead_gateway_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    note = tmp_path / "run" / "gateway.json"
    note.parent.mkdir()
    pidnotes.write(note, os.getpid())
    assert preflight.running_service(tmp_path, "gateway") == os.getpid()

    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    assert preflight.running_service(tmp_path, "gateway") is None
    note.unlink()
    assert preflight.running_service(tmp_path, "gateway") is None


def test_an_address_of_another_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^192\.0\.2\.1:8000 cannot be used .*: check GATEHOUSE_BIND\.$"):
        preflight.require_port(tmp_path, "192.0.2.1", 8000)


def test_one_home_carries_one_supervisor(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = preflight.take_lock(tmp_path)
    try:
        with pytest.raises(SetupError, match=rf"running already in .* \(process {os.getpid()}\): stop that one first"):
            preflight.take_lock(tmp_path)
    finally:
        os.close(held)
    os.close(preflight.take_lock(tmp_path))


def test_code_of_root_is_accepted(open_dir: Path) -> None:
    (open_dir / "code.py").touch(mode=0o644)

    preflight.require_protected([open_dir], ACCOUNTS)


@pytest.mark.parametrize("case", ["owned", "group", "everybody", "directory"])
def test_code_that_a_service_could_change_is_refused(open_dir: Path, case: str) -> None:
    package = open_dir / "package"
    package.mkdir(mode=0o755)
    file = package / "code.py"
    file.touch(mode=0o644)
    if case == "owned":
        os.chown(file, ACCOUNTS.web.uid, 0)
    elif case == "group":
        os.chown(file, 0, ACCOUNTS.worker.groups[0])
        file.chmod(0o664)
    elif case == "everybody":
        file.chmod(0o646)
    else:
        package.chmod(0o757)
    bad = package if case == "directory" else file

    with pytest.raises(SetupError, match=rf"^{re.escape(str(bad))} can be changed by .*: run `chown -R root:root "):
        preflight.require_protected([open_dir], ACCOUNTS)


def test_a_parent_that_a_service_could_change_is_refused(open_dir: Path) -> None:
    (open_dir / "code").mkdir()
    open_dir.chmod(0o777)

    with pytest.raises(SetupError, match=re.escape(str(open_dir))):
        preflight.require_protected([open_dir / "code"], ACCOUNTS)


def test_a_readable_checkout_is_accepted(open_dir: Path) -> None:
    (open_dir / "manage.py").touch(mode=0o644)
    (open_dir / "run").mkdir(mode=0o755)

    preflight.require_readable(open_dir, Path("/bin/true"), open_dir, ACCOUNTS)


def test_a_checkout_in_a_private_home_is_refused(open_dir: Path) -> None:
    private = open_dir / "private"
    private.mkdir(mode=0o700)
    (private / "manage.py").touch(mode=0o644)

    with pytest.raises(SetupError) as refused:
        preflight.require_readable(private, Path("/bin/true"), open_dir, ACCOUNTS)
    assert str(refused.value) == (
        f"The user gatehouse-web cannot reach {private}/manage.py: move the checkout to a directory that everybody may "
        "enter (such as /srv/gatehouse), or `chmod o+x` its parents."
    )


def test_refusals_reach_the_operator_as_one_line(tmp_path: Path) -> None:
    """The whole program, in a home that does not exist yet."""
    done = subprocess.run(
        [sys.executable, "-m", "sandboxes.node.supervisor"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "GATEHOUSE_HOME": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"up: .*: run `manage\.py bootstrap` as root first\.\n", done.stderr)


SERVERS = ("DATABASE_URL", "REDIS_URL")
SHELL = {
    "GATEHOUSE_PORT": "9000",
    "GATEHOUSE_SEED": "s",
    "GATEHOUSE_SECRET_KEY_FILE": "/k",
    "GATEHOUSE_LEDGER_KEY": "l",
    "GATEHOUSE_ANCHOR_WEBHOOK": "https://example.com/",
    "DATABASE_URL": "postgresql://user:password@db/gatehouse",
    "REDIS_URL": "redis://cache",
    "AWS_SECRET_ACCESS_KEY": "not ours",
    "LD_PRELOAD": "/tmp/evil.so",
    "PYTHONSTARTUP": "/tmp/evil.py",
}


@pytest.mark.parametrize(
    ("service", "secrets"),
    [
        ("node", set()),
        ("worker", {"GATEHOUSE_LEDGER_KEY", "GATEHOUSE_ANCHOR_WEBHOOK", "GATEHOUSE_SECRET_KEY_FILE", *SERVERS}),
        ("web", {"GATEHOUSE_SECRET_KEY_FILE", "GATEHOUSE_SEED", *SERVERS}),
    ],
)
def test_each_service_sees_its_own_secrets_only(service: str, secrets: set[str]) -> None:
    environment = services.environment(service, "root", Path("/srv/gatehouse"), SHELL)

    assert set(environment) & set(SHELL) == secrets | {"GATEHOUSE_PORT"}
    assert environment["PYTHONPATH"] == "/srv/gatehouse:/srv/gatehouse/platform"
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["GATEHOUSE_SERVICE"] == service


def test_only_web_signs_in_to_azure() -> None:
    shell = dict.fromkeys(("KEY_VAULT_URL", "REQUESTS_CA_BUNDLE", "AZURE_CLIENT_SECRET", "IDENTITY_HEADER"), "x")
    for service in ("web", "worker", "node"):
        environment = services.environment(service, "root", Path("/srv/gatehouse"), shell)
        assert set(environment) & set(shell) == (set(shell) if service == "web" else set())


def test_only_the_node_stays_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.getpwuid(0))
    config = NodeConfig.from_env({"GATEHOUSE_HOME": str(tmp_path)})
    planned = services.services(config, Path("/srv/gatehouse"), ACCOUNTS, {"fd": 7, "internal-fd": 8}, {})

    assert [service.name for service in planned] == ["web", "worker", "node"]
    assert {service.name: service.account for service in planned} == {
        "web": ACCOUNTS.web,
        "worker": ACCOUNTS.worker,
        "node": None,
    }
    assert planned[1].after == ("web", "node")


def test_each_listener_of_web_is_open_to_its_callers_only(tmp_path: Path) -> None:
    listeners = Listeners(tmp_path, ACCOUNTS)
    found = {path.name: path.stat() for path in tmp_path.iterdir()}
    handed_over = listeners.options()
    listeners.close()

    assert {name: (info.st_uid, info.st_gid, info.st_mode & 0o777) for name, info in found.items()} == {
        "web.sock": (ACCOUNTS.web.uid, ACCOUNTS.gateway.gid, 0o660),
        "internal.sock": (ACCOUNTS.gateway.uid, ACCOUNTS.egress.gid, 0o660),
        "broker.sock": (ACCOUNTS.web.uid, ACCOUNTS.egress.gid, 0o660),
    }
    assert list(handed_over) == ["fd", "internal-fd", "broker-fd"]
    assert list(tmp_path.iterdir()) == []
