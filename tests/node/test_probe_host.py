"""`doctor` says what a host can run, and for everything it can't: why, and what would mend it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandboxes.node import cgroups, hostfacts, linux, pidnotes
from sandboxes.node.hostfacts import Fact, container_tier
from sandboxes.node.nft import Nft
from sandboxes.node.runtimes import gvisor

V2 = cgroups.Hierarchies({}, Path("/sys/fs/cgroup"), frozenset({"cpu", "memory", "pids", "io"}))
GOOD = [
    Fact(name, good=True, value="fine")
    for name in ("root", "control groups", "user namespaces", "idmapped mounts", "overlay", "disk quota", "seccomp")
]


def test_this_host_can_run_containers(tmp_path: Path) -> None:
    facts = hostfacts.gather(tmp_path)

    assert facts.can_run_containers, facts
    assert [(tier.level, tier.name) for tier in facts.tiers] == [
        ("L0", "language"),
        ("L1", "process"),
        ("L2", "container"),
        ("L3", "microvm"),
    ]


def test_this_host_can_run_jails(tmp_path: Path) -> None:
    tier = next(tier for tier in hostfacts.gather(tmp_path).tiers if tier.name == "process")

    assert (tier.available, list(tier.runtimes), tier.reason) == (True, ["bwrap"], None)


def test_a_host_without_bubblewrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    tier = hostfacts.process_tier()

    assert (tier.available, tier.reason) == (False, "bubblewrap is not installed.")
    assert tier.fix == "Run `apt-get install bubblewrap`."


@pytest.mark.parametrize(
    ("version", "fact"),
    [
        ("0.0~20221219.0", Fact("gVisor", good=True, value="runsc 0.0~20221219.0, for whoever asks for it")),
        (None, Fact("gVisor", good=False, value="no runsc that can run sandboxes", fix="apt-get install runsc")),
    ],
    ids=["there", "absent"],
)
def test_gvisor_is_told_but_not_needed(monkeypatch: pytest.MonkeyPatch, version: str | None, fact: Fact) -> None:
    monkeypatch.setattr(gvisor, "version", lambda: version)

    assert hostfacts.gvisor_fact() == fact
    assert container_tier([*GOOD, fact], {"crun": "1.8.1"}).available


def test_whatever_is_not_available_has_a_reason_and_a_fix(tmp_path: Path) -> None:
    facts = hostfacts.gather(tmp_path)

    for tier in facts.tiers:
        assert tier.available or (tier.reason and tier.fix), tier
    for fact in facts.facts:
        assert fact.value
        assert fact.good is not False or fact.fix, fact


def test_looking_changes_nothing(tmp_path: Path) -> None:
    def seen() -> tuple[object, ...]:
        null = Path("/dev/null").stat()
        left = list(tmp_path.iterdir())
        return Path("/proc/self/mountinfo").read_text(), null.st_uid, null.st_mode, left

    before = seen()
    hostfacts.gather(tmp_path)

    assert seen() == before


def test_containers_need_everything_they_rest_on() -> None:
    tier = container_tier(GOOD, {"crun": "1.8.1"})

    assert tier.available
    assert tier.runtimes == {"crun": "1.8.1"}
    assert (tier.reason, tier.fix) == (None, None)


@pytest.mark.parametrize("missing", [fact.name for fact in GOOD])
def test_one_missing_feature_is_named_with_its_fix(missing: str) -> None:
    facts = [
        Fact(fact.name, good=False, value="absent", fix="mend it") if fact.name == missing else fact for fact in GOOD
    ]
    tier = container_tier(facts, {"crun": "1.8.1"})

    assert not tier.available
    assert tier.reason == f"{missing[0].upper()}{missing[1:]}: absent."
    assert tier.fix == "mend it"


def test_what_was_not_proven_does_not_count() -> None:
    facts = [Fact("overlay", good=None, value="not tried") if fact.name == "overlay" else fact for fact in GOOD]

    assert not container_tier(facts, {"crun": "1.8.1"}).available


def test_a_host_without_a_runtime_is_told_which_to_install() -> None:
    tier = container_tier(GOOD, {})

    assert (tier.available, tier.reason, tier.fix) == (
        False,
        "No OCI runtime is installed.",
        "apt-get install crun",
    )


def test_control_groups_of_version_2_are_enough() -> None:
    fact = hostfacts.cgroup_fact(V2)

    assert fact.good
    assert fact.value == "mode v2: cpu v2, memory v2, pids v2, io v2"


def test_a_missing_controller_is_named() -> None:
    fact = hostfacts.cgroup_fact(cgroups.Hierarchies({}, Path("/sys/fs/cgroup"), frozenset({"cpu", "pids"})))

    assert fact.good is False
    assert fact.value == "mode v2, without memory"
    assert "cgroup_enable=" in (fact.fix or "")


def test_switched_off_user_namespaces_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "_number", lambda _path: 0)

    assert hostfacts.user_namespace_fact() == Fact(
        "user namespaces", good=False, value="switched off", fix="sysctl -w user.max_user_namespaces=10000"
    )


def test_a_kernel_without_idmapped_mounts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: str, _namespace: int) -> int:
        raise OSError(errno.EINVAL, "mount_setattr: Invalid argument")

    monkeypatch.setattr(linux, "idmapped_tree", refuse)
    idmap, overlay = hostfacts.mount_facts(tmp_path)

    assert idmap.good is False
    assert "mount_setattr: Invalid argument" in idmap.value
    assert idmap.fix == "use Linux 5.19 or newer with ext4, xfs or btrfs"
    assert overlay.good is None


def test_this_host_can_lead_programs_to_their_way_out() -> None:
    before = Nft().run("list tables")
    assert hostfacts.redirection_fact() == Fact(
        "packet filter", good=True, value="a network was set up as sandboxes get it"
    )
    assert Nft().run("list tables") == before


def test_a_host_without_a_packet_filter_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("libnftables.so.1 is missing")

    monkeypatch.setattr(Nft, "load", missing)
    assert hostfacts.redirection_fact() == Fact(
        "packet filter", good=False, value="no libnftables.so.1", fix="apt-get install nftables"
    )


def test_a_kernel_without_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Nft, _commands: str) -> str:
        raise OSError("the packet filter refused its rules: no NAT")

    monkeypatch.setattr(Nft, "run", refuse)
    fact = hostfacts.redirection_fact()
    assert (fact.good, fact.value) == (False, "the packet filter refused its rules: no NAT")
    assert fact.fix == "use a kernel with nf_tables and its NAT"


def test_whether_egress_runs_is_told(tmp_path: Path) -> None:
    assert hostfacts.egress_fact(tmp_path) == Fact(
        "egress", good=None, value="does not run now; it starts with the node"
    )
    (tmp_path / "run").mkdir()
    pidnotes.write(tmp_path / "run" / "egress.json", os.getpid())
    assert hostfacts.egress_fact(tmp_path) == Fact("egress", good=True, value=f"runs as process {os.getpid()}")


def test_kvm_that_opens_is_not_taken_for_proof() -> None:
    fact = hostfacts.kvm_fact()

    assert fact.good is not True
    if Path("/dev/kvm").exists():
        assert fact.value == "opens, but that is no proof: only a guest that boots is"


def test_a_host_without_kvm_is_told(tmp_path: Path) -> None:
    assert hostfacts.kvm_fact(str(tmp_path / "kvm")).value == f"no {tmp_path}/kvm"


def test_a_file_in_place_of_kvm_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()

    assert hostfacts.kvm_fact(str(tmp_path / "kvm")).good is False


def test_programs_tell_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"good": "echo 'good version 1.8.1'", "broken": "exit 1", "silent": "true"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert hostfacts.program_version("good") == "1.8.1"
    assert hostfacts.program_version("broken") is None
    assert hostfacts.program_version("silent") is None
    assert hostfacts.program_version("absent-program") is None


def test_a_kernel_without_landlock_does_not_stop_containers() -> None:
    facts = [*GOOD, Fact("Landlock", good=False, value="not in this kernel", fix="boot another")]

    assert container_tier(facts, {"runc": "1.1.5"}).available
