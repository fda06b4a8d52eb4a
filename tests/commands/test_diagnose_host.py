"""`manage.py doctor` prints the host's facts for people and for programs; its exit status is the verdict."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from sandboxes.node import hostfacts
from sandboxes.node.hostfacts import Fact, HostFacts, Tier
from sandboxes.node.hostsettings import Setting
from tenants.vaults.masterkeys import master_key
from tests.conftest import VAULT_KEY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.django_db

MASTER = master_key(bytes.fromhex(VAULT_KEY)).id
HOST = {
    "system": "Debian GNU/Linux 12 (bookworm)",
    "kernel": "6.1.0",
    "machine": "x86_64",
    "processors": "2",
    "memory_mib": "16000",
    "disk_free_mib": "50000",
}
FACTS = [
    Fact("overlay", good=True, value="one was made"),
    Fact("KVM", good=None, value="opens, but that is no proof"),
    Fact("Landlock", good=False, value="not in this kernel", fix="boot another"),
]
CONTAINERS = Tier("L2", "container", available=True, runtimes={"crun": "1.8.1"})
PIPE = Setting("core_pattern", "fatal", "|/bin/x", "it runs as root", "sysctl -w kernel.core_pattern=core")
SETTINGS = [Setting("swap", "good", "none"), Setting("KSM", "weak", "on", "neighbours see it", "switch it off")]
GOOD = HostFacts(HOST, FACTS, [CONTAINERS], SETTINGS)
BAD = HostFacts(
    HOST,
    FACTS,
    [Tier("L2", "container", runtimes={"crun": "1.8.1"}, reason="Overlay: absent.", fix="modprobe overlay")],
)


def doctor(monkeypatch: pytest.MonkeyPatch, facts: HostFacts, *arguments: str) -> tuple[int, str]:
    """Run the command on a host with these facts; return exit status and output."""
    monkeypatch.setattr(hostfacts, "gather", lambda _directory: facts)
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", *arguments, stdout=out)
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue()


def test_a_good_host_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor(monkeypatch, GOOD)

    assert code == 0
    assert text.splitlines() == [
        "Debian GNU/Linux 12 (bookworm), Linux 6.1.0, x86_64, 2 processors, 16000 MiB memory, 50000 MiB free disk",
        "",
        "Isolation tiers",
        "  yes L2 container            crun 1.8.1",
        "",
        "What they rest on",
        "  yes overlay                 one was made",
        "  ?   KVM                     opens, but that is no proof",
        "  no  Landlock                not in this kernel",
        "                              fix: boot another",
        "",
        "Settings that isolation depends on",
        "  ok  swap                             none",
        "  !   KSM                              on",
        "                              why: neighbours see it",
        "                              fix: switch it off",
        "",
        "Vaults",
        f"  yes embedded                The newest master key is {MASTER}; tenants with a key: 0.",
        "",
        "Gatehouse can run here.",
    ]


def test_a_host_without_containers_is_told_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor(monkeypatch, BAD)

    assert code == 1
    assert "  no  L2 container            Overlay: absent. (found: crun 1.8.1)\n" in text
    assert "                              fix: modprobe overlay\n" in text
    assert text.endswith("Gatehouse cannot run here yet: mend tier L2 first.\n")


def test_a_host_that_undoes_isolation_is_told_what_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor(monkeypatch, replace(GOOD, settings=[PIPE]))

    assert code == 1
    assert "  NO  core_pattern                     |/bin/x\n" in text
    assert "                              fix: sysctl -w kernel.core_pattern=core\n" in text
    assert text.endswith("Gatehouse does not start here: mend what is marked NO first.\n")


def test_an_accepted_risk_is_shown_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor(monkeypatch, replace(GOOD, settings=[replace(PIPE, accepted=True)]))

    assert code == 0
    assert "  !   core_pattern                     |/bin/x\n" in text
    assert "                              accepted by GATEHOUSE_ACCEPT_RISKS\n" in text


@pytest.mark.parametrize(
    ("facts", "code"), [(GOOD, 0), (BAD, 1), (replace(GOOD, settings=[PIPE]), 1)], ids=["good", "bad", "unsafe"]
)
def test_programs_read_json(monkeypatch: pytest.MonkeyPatch, facts: HostFacts, code: int) -> None:
    status, text = doctor(monkeypatch, facts, "--json")

    assert status == code
    message = f"The newest master key is {MASTER}; tenants with a key: 0."
    vaults = {"embedded": {"ok": True, "message": message, "fix": ""}}
    assert json.loads(text) == facts.as_json() | {"vaults": vaults}


def test_a_vault_without_its_key_is_told_and_stops_no_host(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    settings.GATEHOUSE = replace(settings.GATEHOUSE, home=tmp_path, vault_key_text=None)
    code, text = doctor(monkeypatch, GOOD)

    assert code == 0
    assert f"  no  embedded                The embedded vault's key {tmp_path}/keys/vault.key can't be read" in text
    assert "                              fix: `manage.py bootstrap` makes one" in text


def test_vaults_that_are_not_configured_right_are_told(
    monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    settings.GATEHOUSE = replace(settings.GATEHOUSE, vaults_file=tmp_path / "vaults.toml")
    code, text = doctor(monkeypatch, GOOD)

    assert code == 0
    assert f"GATEHOUSE_VAULTS_FILE {tmp_path}/vaults.toml can't be read: No such file or directory." in text
