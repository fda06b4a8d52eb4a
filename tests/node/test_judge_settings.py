"""Settings of the host that undo isolation are found, told with the mend, and refused unless accepted by name."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxes.node import hostfacts, hostsettings
from sandboxes.node.hostsettings import Host, Setting
from tests.node.nodeprocess import NodeProcess

GOOD = {
    "proc/sys/kernel/core_pattern": "core",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2",
    "proc/sys/kernel/kptr_restrict": "1",
    "proc/sys/kernel/dmesg_restrict": "1",
    "proc/sys/kernel/yama/ptrace_scope": "1",
    "proc/sys/fs/protected_symlinks": "1",
    "proc/sys/fs/protected_hardlinks": "1",
    "proc/sys/vm/overcommit_memory": "0",
    "proc/sys/user/max_user_namespaces": "96365",
    "proc/swaps": "Filename Type Size Used Priority",
    "proc/self/maps": "7ff000-7ff100 r-xp 0 00:00 0 [vdso]\nffffffffff600000-1 --xp 00000000 00:00 0 [vsyscall]",
    "proc/self/cgroup": "0::/",
    "sys/kernel/mm/ksm/run": "0",
}
SWAP = "Filename Type Size Used Priority\n/dev/vdb partition 1000 0 -2"
MENDED = "runc (1.1.5+ds1-1+deb12u1) bookworm-security\n  * CVE-2024-21626: several container breakouts"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of a host on which everything is as it should be."""
    for name, text in GOOD.items():
        put(tmp_path, name, text)
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text + "\n")


def look(root: Path, **found: str) -> list[Setting]:
    """Look at a made-up host; its directories are those of this one, which are closed."""
    return hostsettings.look(Path("/root"), found or {"crun": "1.8.1"}, Host(root))


def only_bad(settings: list[Setting]) -> list[tuple[str, str, str]]:
    return [(setting.name, setting.grade, setting.value) for setting in settings if setting.grade != "good"]


def test_a_good_host_has_nothing_to_mend(root: Path) -> None:
    settings = look(root)
    assert only_bad(settings) == []
    assert all(not setting.why and not setting.fix for setting in settings)
    assert hostsettings.refusal(settings) is None


def test_this_host_lets_gatehouse_start(tmp_path: Path) -> None:
    assert hostsettings.refusal(hostfacts.settings_of(tmp_path)) is None


@pytest.mark.parametrize("pattern", ["|/usr/lib/systemd/systemd-coredump %P %u", "| /bin/x", "@/run/coredump.sock"])
def test_dumps_must_not_go_to_a_program(root: Path, pattern: str) -> None:
    put(root, "proc/sys/kernel/core_pattern", pattern)
    found = hostsettings.core_pattern(Host(root))
    assert (found.grade, found.value) == ("fatal", pattern)
    assert "runs this handler as root of the host" in found.why
    assert found.fix.startswith("sysctl -w kernel.core_pattern=core")


@pytest.mark.parametrize("pattern", ["core", "/var/cores/%e.%p", ""])
def test_dumps_into_files_are_held_by_the_limit_of_zero(root: Path, pattern: str) -> None:
    put(root, "proc/sys/kernel/core_pattern", pattern)
    assert hostsettings.core_pattern(Host(root)).grade == "good"


@pytest.mark.parametrize(
    ("name", "value", "grade"),
    [
        ("kernel.unprivileged_bpf_disabled", "0", "fatal"),
        ("kernel.kptr_restrict", "0", "weak"),
        ("kernel.dmesg_restrict", "0", "weak"),
        ("kernel.yama.ptrace_scope", "0", "weak"),
        ("fs.protected_symlinks", "0", "weak"),
        ("fs.protected_hardlinks", "0", "weak"),
        ("vm.overcommit_memory", "2", "weak"),
        ("user.max_user_namespaces", "50", "weak"),
    ],
)
def test_a_kernel_setting_is_named_with_its_mend(root: Path, name: str, value: str, grade: str) -> None:
    put(root, "proc/sys/" + name.replace(".", "/"), value)
    settings = look(root)
    assert only_bad(settings) == [(name, grade, value)]
    bad = next(setting for setting in settings if setting.name == name)
    assert bad.why
    assert bad.fix.startswith(f"sysctl -w {name}=")
    assert f"sysctl -w {name}={value}," not in bad.fix
    assert (hostsettings.refusal(settings) is None) == (grade == "weak")


def test_a_kernel_without_a_setting_is_not_blamed(root: Path) -> None:
    (root / "proc/sys/kernel/unprivileged_bpf_disabled").unlink()
    assert only_bad(look(root)) == []


def test_a_kernel_without_yama_is_told(root: Path) -> None:
    (root / "proc/sys/kernel/yama/ptrace_scope").unlink()
    assert only_bad(look(root)) == [("kernel.yama.ptrace_scope", "weak", "no Yama in this kernel")]


def test_swap_that_is_not_accounted_is_refused(root: Path) -> None:
    put(root, "proc/swaps", SWAP)
    settings = look(root)
    assert only_bad(settings) == [("swap", "fatal", "in use, not accounted")]
    assert "swapoff -a" in (hostsettings.refusal(settings) or "")


@pytest.mark.parametrize(
    "file",
    ["sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "sys/fs/cgroup/system.slice/memory.swap.max"],
    ids=["v1", "v2"],
)
def test_swap_that_is_accounted_is_fine(root: Path, file: str) -> None:
    put(root, "proc/swaps", SWAP)
    put(root, file, "0")
    assert only_bad(look(root)) == []


def test_merged_memory_is_told(root: Path) -> None:
    put(root, "sys/kernel/mm/ksm/run", "1")
    assert only_bad(look(root)) == [("KSM", "weak", "on")]


def test_a_readable_vsyscall_page_is_told(root: Path) -> None:
    put(root, "proc/self/maps", "ffffffffff600000-ffffffffff601000 r-xp 00000000 00:00 0 [vsyscall]")
    assert only_bad(look(root)) == [("vsyscall", "weak", "readable")]


def test_calls_of_32_bits_are_told(root: Path) -> None:
    put(root, "proc/sys/abi/vsyscall32", "1")
    assert only_bad(look(root)) == [("32-bit calls", "weak", "in this kernel")]


@pytest.mark.parametrize("version", ["1.1.12", "1.1.15"])
def test_a_runc_that_leaks_no_descriptor_is_not_blamed_for_it(root: Path, version: str) -> None:
    assert "CVE-2024-21626" not in str(only_bad(look(root, runc=version)))


@pytest.mark.parametrize("version", ["1.1.11", "1.1.5+ds1", "1.0.0-rc93"])
def test_a_runc_that_leaks_descriptors_is_refused(root: Path, version: str) -> None:
    settings = look(root, runc=version)
    assert only_bad(settings)[0] == ("runc", "fatal", f"{version}, no word of a mend for CVE-2024-21626")
    assert "apt-get install crun" in (hostsettings.refusal(settings) or "")


def test_a_mend_that_debian_took_into_an_old_version_counts(root: Path) -> None:
    changelog = root / "usr/share/doc/runc/changelog.Debian.gz"
    changelog.parent.mkdir(parents=True)
    changelog.write_bytes(gzip.compress(MENDED.encode()))
    settings = look(root, runc="1.1.5+ds1")
    assert only_bad(settings) == [
        ("runc", "weak", "1.1.5+ds1, no word of a mend for CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"),
        ("runc", "weak", "1.1.5+ds1, no word of a mend for CVE-2026-41579"),
    ]
    assert hostsettings.refusal(settings) is None


@pytest.mark.parametrize("version", ["1.3.6", "1.4.3", "1.5.0", "2.0.0"])
def test_a_current_runc_has_nothing_against_it(root: Path, version: str) -> None:
    assert only_bad(look(root, runc=version)) == []


@pytest.mark.parametrize("version", ["1.2.8", "1.3.3"])
def test_each_branch_has_its_own_mend(root: Path, version: str) -> None:
    assert only_bad(look(root, runc=version)) == [("runc", "weak", f"{version}, no word of a mend for CVE-2026-41579")]


def test_a_runc_beside_crun_does_not_stop_anything(root: Path) -> None:
    settings = look(root, crun="1.8.1", runc="1.1.5+ds1")
    assert {grade for _, grade, _ in only_bad(settings)} == {"weak"}
    assert all(setting.why.endswith("it runs only what asks for it by name") for setting in settings if setting.why)


def test_a_place_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    (found,) = hostsettings.writable({"home": home})
    assert (found.name, found.grade, found.value) == ("home", "fatal", f"open to all at {home}")
    assert found.fix == f"chmod o-w {home}"


def test_so_is_one_below_it_and_a_sticky_one_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "home").mkdir()
    (below,) = hostsettings.writable({"home": tmp_path / "open" / "home"})
    (tmp_path / "open").chmod(0o1777)
    (sticky,) = hostsettings.writable({"home": tmp_path / "open"})
    (above_is_sticky,) = hostsettings.writable({"home": tmp_path / "open" / "home"})
    assert (below.grade, sticky.grade, above_is_sticky.grade) == ("fatal", "fatal", "good")


def test_a_node_does_not_start_in_such_a_place(node_home: Path) -> None:
    node_home.chmod(0o777)
    command = [sys.executable, "-m", "sandboxes.node"]
    environment = {**os.environ, "GATEHOUSE_HOME": str(node_home), "GATEHOUSE_NODE_GATEWAY": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"This host would undo the isolation of sandboxes: home is open to all at {node_home}: every user of the host "
        f"may replace what root runs or keeps there. Mend: chmod o-w {node_home}. If you accept this, start with "
        "GATEHOUSE_ACCEPT_RISKS=home; "
    )
    assert not (node_home / "node").exists()


async def test_it_does_where_the_operator_accepts_that(node_home: Path) -> None:
    node_home.chmod(0o777)
    process = NodeProcess(node_home)
    process.environment = {"GATEHOUSE_ACCEPT_RISKS": "home"}
    await process.start()
    process.kill()


# --- what an operator accepts


def test_a_risk_is_accepted_by_its_name(root: Path) -> None:
    put(root, "proc/sys/kernel/core_pattern", "|/usr/share/apport/apport")
    refused = hostsettings.accept(look(root), {})
    accepted = hostsettings.accept(look(root), {"GATEHOUSE_ACCEPT_RISKS": " core_pattern ,"})
    assert hostsettings.refusal(refused) == (
        "core_pattern is |/usr/share/apport/apport: a crash in a sandbox runs this handler as root of the host, on "
        "data that the sandbox made. Mend: sysctl -w kernel.core_pattern=core, in /etc/sysctl.d too, and remove "
        "systemd-coredump or apport. If you accept this, start with GATEHOUSE_ACCEPT_RISKS=core_pattern; "
        "`manage.py doctor` says more."
    )
    assert hostsettings.refusal(accepted) is None
    assert [setting.name for setting in accepted if setting.accepted] == ["core_pattern"]


def test_one_accepted_risk_accepts_no_other(root: Path) -> None:
    put(root, "proc/sys/kernel/core_pattern", "|/bin/x")
    put(root, "proc/sys/kernel/unprivileged_bpf_disabled", "0")
    settings = hostsettings.accept(look(root), {"GATEHOUSE_ACCEPT_RISKS": "core_pattern"})
    assert (hostsettings.refusal(settings) or "").startswith("kernel.unprivileged_bpf_disabled is 0: ")


def test_a_name_that_is_no_setting_is_refused(root: Path) -> None:
    with pytest.raises(SystemExit, match=r"^GATEHOUSE_ACCEPT_RISKS names no setting of this host: all, core\.$"):
        hostsettings.accept(look(root), {"GATEHOUSE_ACCEPT_RISKS": "core,all"})
