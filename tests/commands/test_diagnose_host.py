"""`manage.py doctor` prints the host's facts for people and for programs; its exit status is the verdict."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command

from sandboxes.node import hostfacts
from sandboxes.node.hostfacts import Fact, HostFacts, Tier

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
GOOD = HostFacts(HOST, FACTS, [Tier("L2", "container", available=True, runtimes={"crun": "1.8.1"})])
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
        "Gatehouse can run here.",
    ]


def test_a_host_without_containers_is_told_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor(monkeypatch, BAD)

    assert code == 1
    assert "  no  L2 container            Overlay: absent. (found: crun 1.8.1)\n" in text
    assert "                              fix: modprobe overlay\n" in text
    assert text.endswith("Gatehouse cannot run here yet: mend tier L2 first.\n")


@pytest.mark.parametrize(("facts", "code"), [(GOOD, 0), (BAD, 1)], ids=["good", "bad"])
def test_programs_read_json(monkeypatch: pytest.MonkeyPatch, facts: HostFacts, code: int) -> None:
    status, text = doctor(monkeypatch, facts, "--json")

    assert status == code
    assert json.loads(text) == facts.as_json()
