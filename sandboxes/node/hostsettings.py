"""Settings of the host that undo isolation: what each is, why it matters, and what mends it.

Two grades. A *fatal* setting gives code in a sandbox a way to the host, to a neighbour or around its own limits that no
wall of ours closes; the node does not start on such a host. A *weak* one takes away a second lock behind one of our
walls, or helps whoever has found a hole; it is told and left to the operator. `GATEHOUSE_ACCEPT_RISKS` names the fatal
settings that an operator accepts in full knowledge; they are then told like the weak ones.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Grade = Literal["good", "weak", "fatal"]

ACCEPT = "GATEHOUSE_ACCEPT_RISKS"
_ROOT = Path(__file__).resolve().parents[2]
_FEW_NAMESPACES = 1_000


@dataclass(frozen=True)
class Setting:
    """One setting as it was found. `why` says what it opens, `fix` what mends it; both are empty for a good one."""

    name: str
    grade: Grade
    value: str
    why: str = ""
    fix: str = ""
    accepted: bool = False


class Host:
    """Where the settings are read: a root directory, which tests replace by one of their own."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Return a file's text without the last line's end, or None when the host has no such file."""
        try:
            return (self._root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def sysctl(self, name: str) -> str | None:
        """Return a kernel setting by its dotted name."""
        return self.text("/proc/sys/" + name.replace(".", "/"))

    def has(self, path: str) -> bool:
        """Tell whether the host has such a file."""
        return (self._root / path.lstrip("/")).exists()

    def changelog(self, package: str) -> str:
        """Return what Debian changed in an installed package; empty when it is not told."""
        path = self._root / "usr/share/doc" / package / "changelog.Debian.gz"
        try:
            return gzip.decompress(path.read_bytes()).decode(errors="replace")
        except (OSError, EOFError):
            return ""


# --- what a handler on the host gets to see


def core_pattern(host: Host) -> Setting:
    """Dumps must not be handed to a program: it runs as the host's root, outside, whatever the dump's limit is."""
    pattern = host.sysctl("kernel.core_pattern") or ""
    if not pattern.startswith(("|", "@")):
        return Setting("core_pattern", "good", pattern or "none")
    return Setting(
        "core_pattern",
        "fatal",
        pattern,
        "a crash in a sandbox runs this handler as root of the host, on data that the sandbox made",
        "sysctl -w kernel.core_pattern=core, in /etc/sysctl.d too, and remove systemd-coredump or apport",
    )


# --- plain kernel settings: the value that is bad, how bad, why, and the mend


@dataclass(frozen=True)
class _Rule:
    sysctl: str
    bad: tuple[str, ...]
    grade: Grade
    why: str
    fix: str


def _rule(sysctl: str, bad: str, grade: Grade, why: str, good: str) -> _Rule:
    return _Rule(sysctl, tuple(bad.split()), grade, why, f"sysctl -w {sysctl}={good}, in /etc/sysctl.d too")


_RULES = (
    _rule(
        "kernel.unprivileged_bpf_disabled",
        "0",
        "fatal",
        "every user may load programs into the kernel; only the seccomp allow-list stands before that",
        "1",
    ),
    _rule("kernel.kptr_restrict", "0", "weak", "addresses of the kernel help whoever attacks it", "1"),
    _rule("kernel.dmesg_restrict", "0", "weak", "the kernel's log tells every user of the host about it", "1"),
    _rule(
        "kernel.yama.ptrace_scope",
        "0",
        "weak",
        "a process of the host may take over every other one of its user; sandboxes have no ptrace",
        "1",
    ),
    _rule(
        "fs.protected_symlinks",
        "0",
        "weak",
        "programs of the host follow other users' links in /tmp; the node itself follows none that a guest can make",
        "1",
    ),
    _rule(
        "fs.protected_hardlinks",
        "0",
        "weak",
        "users of the host may link files that they can't read; sandboxes have file systems of their own",
        "1",
    ),
    _rule(
        "vm.overcommit_memory",
        "2",
        "weak",
        "programs that reserve memory without using it, such as the guest agent, may not start",
        "0",
    ),
)


def kernel_settings(host: Host) -> Iterator[Setting]:
    """Yield the plain kernel settings."""
    for rule in _RULES:
        value = host.sysctl(rule.sysctl)
        if value is None:
            yield _absent(rule)
        elif value in rule.bad:
            yield Setting(rule.sysctl, rule.grade, value, rule.why, rule.fix)
        else:
            yield Setting(rule.sysctl, "good", value)


def _absent(rule: _Rule) -> Setting:
    if not rule.sysctl.startswith("kernel.yama."):
        return Setting(rule.sysctl, "good", "not in this kernel")
    return Setting(rule.sysctl, "weak", "no Yama in this kernel", rule.why, "boot a kernel with lsm=…,yama")


def namespaces(host: Host) -> Setting:
    """Each sandbox takes a user namespace; 0 is told where the tiers are judged."""
    name = "user.max_user_namespaces"
    value = host.sysctl(name) or ""
    if not value.isdigit() or int(value) >= _FEW_NAMESPACES or int(value) == 0:
        return Setting(name, "good", value or "not in this kernel")
    why = "each sandbox takes one, and starts fail once they are used up"
    return Setting(name, "weak", value, why, f"sysctl -w {name}=10000, in /etc/sysctl.d too")


def vsyscall(host: Host) -> Setting:
    """The old call page has a fixed address; where it can be read, its code serves attacks."""
    maps = host.text("/proc/self/maps") or ""
    line = next((line for line in maps.splitlines() if line.endswith("[vsyscall]")), "")
    if not line or line.split()[1].startswith("-"):
        return Setting("vsyscall", "good", "execute only" if line else "none")
    why = "a page of code at a known address in every process"
    return Setting("vsyscall", "weak", "readable", why, "boot with vsyscall=none")


def small_calls(host: Host) -> Setting:
    """32-bit calls reach sockets by `socketcall`, whose arguments no filter can see."""
    if not host.has("/proc/sys/abi/vsyscall32"):
        return Setting("32-bit calls", "good", "not in this kernel")
    why = "socketcall hides its arguments from filters; only the allow-list, which has no 32-bit call, stands before it"
    return Setting("32-bit calls", "weak", "in this kernel", why, "boot with ia32_emulation=0 (Linux 6.7 or newer)")


# --- memory


def swap(host: Host) -> Setting:
    """Swap that is not accounted lets a sandbox use more memory than it was given."""
    areas = (host.text("/proc/swaps") or "").splitlines()[1:]
    if not areas:
        return Setting("swap", "good", "none")
    if _accounts_swap(host):
        return Setting("swap", "good", "accounted, and no sandbox may use it")
    return Setting(
        "swap",
        "fatal",
        "in use, not accounted",
        "a sandbox's memory limit does not hold: what it is denied it takes from the host's swap",
        "swapoff -a, or boot with swapaccount=1",
    )


def _accounts_swap(host: Host) -> bool:
    if host.has("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        return True
    # Version 2 has the file in every group but the first.
    base = host.text("/proc/self/cgroup") or ""
    own = next((line[3:] for line in base.splitlines() if line.startswith("0::")), "/")
    groups = (own, "/system.slice", "/init.scope")
    return any(host.has(f"/sys/fs/cgroup{group}/memory.swap.max") for group in groups)


def merging(host: Host) -> Setting:
    """Pages that the kernel shares between sandboxes tell one what another has in memory."""
    if host.text("/sys/kernel/mm/ksm/run") != "1":
        return Setting("KSM", "good", "off")
    why = "sandboxes can measure which pages a neighbour has too"
    return Setting("KSM", "weak", "on", why, "echo 2 > /sys/kernel/mm/ksm/run, and switch ksmtuned off")


# --- files


def writable(directories: Mapping[str, Path]) -> Iterator[Setting]:
    """Yield for each place whether every user of the host could replace what is in it."""
    for what, directory in directories.items():
        culprit = next((path for path in (directory, *directory.parents) if _is_open(path, directory)), None)
        if culprit is None:
            yield Setting(what, "good", "closed to other users")
        else:
            why = "every user of the host may replace what root runs or keeps there"
            yield Setting(what, "fatal", f"open to all at {culprit}", why, f"chmod o-w {culprit}")


def _is_open(path: Path, directory: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    # In a sticky directory such as /tmp nobody can replace what belongs to others; in our own nobody may add anything.
    return bool(mode & stat.S_IWOTH) and (path == directory or not mode & stat.S_ISVTX)


# --- runtimes


@dataclass(frozen=True)
class _Hole:
    """A hole of a runtime and the versions that close it, the first of each branch."""

    cves: tuple[str, ...]
    grade: Grade
    closed_in: tuple[tuple[int, int, int], ...]
    why: str


_HOLES = {
    "runc": (
        _Hole(("CVE-2024-21626",), "fatal", ((1, 1, 12),), "a sandbox gets a descriptor of the host's file system"),
        _Hole(
            ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
            "weak",
            ((1, 2, 8), (1, 3, 3), (1, 4, 0)),
            "a template whose /dev holds links, or two sandboxes that share mounts, can redirect what runc mounts; "
            "Gatehouse builds its templates on the host, and its sandboxes share no mount",
        ),
        _Hole(
            ("CVE-2026-41579",),
            "weak",
            ((1, 3, 6), (1, 4, 3)),
            "a template whose /dev is a link can redirect what runc mounts; Gatehouse builds its templates on the host",
        ),
    ),
    "crun": (
        _Hole(("CVE-2022-27650",), "weak", ((1, 4, 4),), "programs inherit capabilities; the node asks for none"),
    ),
}


def runtimes(host: Host, found: Mapping[str, str]) -> Iterator[Setting]:
    """Yield for each OCI runtime, by name and version, what is known against it.

    Debian mends old versions instead of raising their numbers: a hole that the package's own changelog names is closed.
    """
    for name, version in found.items():
        holes = [hole for hole in _HOLES[name] if not _is_closed(hole, version, host.changelog(name))]
        if not holes:
            yield Setting(name, "good", f"{version}, every hole that is known here is closed")
        # The node takes crun where both are there, and runc for templates alone that ask for it.
        is_second = name == "runc" and "crun" in found
        for hole in holes:
            told = f"{version}, no word of a mend for {', '.join(hole.cves)}"
            why = f"{hole.why}; it runs only what asks for it by name" if is_second else hole.why
            wanted = " or ".join(".".join(map(str, numbers)) for numbers in hole.closed_in)
            fix = f"install {name} {wanted}, or a package whose changelog names the mend"
            if name == "runc" and not is_second:
                fix = f"apt-get install crun, which the node prefers, or {fix}"
            yield Setting(name, "weak" if is_second else hole.grade, told, why, fix)


def _is_closed(hole: _Hole, version: str, changelog: str) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    have = tuple(numbers + [0] * (3 - len(numbers)))
    if have >= hole.closed_in[-1]:
        return True
    same_branch = any(have[:2] == first[:2] and have >= first for first in hole.closed_in)
    return same_branch or all(cve in changelog for cve in hole.cves)


# --- all together


def look(home: Path, found: Mapping[str, str], host: Host | None = None) -> list[Setting]:
    """Return every setting, in the order in which it is told; `found` are the OCI runtimes. Changes nothing."""
    host = host or Host()
    return [
        core_pattern(host),
        *kernel_settings(host),
        namespaces(host),
        swap(host),
        merging(host),
        vsyscall(host),
        small_calls(host),
        *runtimes(host, found),
        *writable({"home": home, "code": _ROOT, "interpreter": Path(sys.prefix)}),
    ]


def accept(settings: Iterable[Setting], environment: Mapping[str, str] = os.environ) -> list[Setting]:
    """Mark the fatal settings that the operator accepts; SystemExit for a name that is none of them.

    A name that is no setting is a slip that would leave the operator believing that something was decided.
    """
    settings = list(settings)
    wanted = {name.strip() for name in environment.get(ACCEPT, "").split(",") if name.strip()}
    if unknown := wanted - {setting.name for setting in settings}:
        raise SystemExit(f"{ACCEPT} names no setting of this host: {', '.join(sorted(unknown))}.")
    return [replace(setting, accepted=setting.grade == "fatal" and setting.name in wanted) for setting in settings]


def refusal(settings: Iterable[Setting]) -> str | None:
    """Return why nothing may start on this host, in one sentence with the mend, or None when all is well."""
    bad = next((setting for setting in settings if setting.grade == "fatal" and not setting.accepted), None)
    if bad is None:
        return None
    return (
        f"{bad.name} is {bad.value}: {bad.why}. Mend: {bad.fix}. "
        f"If you accept this, start with {ACCEPT}={bad.name}; `manage.py doctor` says more."
    )
