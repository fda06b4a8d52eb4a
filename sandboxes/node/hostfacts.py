"""What this host can run, found out by trying: facts with reasons and fixes, and a verdict for every tier.

Nothing here changes the host: whatever is mounted or made is made in a process of its own and gone with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxes.node import cgroups, hostsettings, linux, pidnotes, redirection
from sandboxes.node.nft import LIBRARY, Nft
from sandboxes.node.runtimes import gvisor, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.node.hostsettings import Setting

_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION_FLAG = 1
_KVM_GET_API_VERSION = 0xAE00
_KVM_API_VERSION = 12
_SHIFT = 100_000
_SHIFT_COUNT = 65_536
_PROGRAM_TIMEOUT_S = 5
# Where programs of the system may lie although the caller's PATH does not say so.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at. `good` is None when it was seen but nothing is proven."""

    name: str
    good: bool | None
    value: str
    fix: str | None = None


@dataclass(frozen=True)
class Tier:
    """Whether sandboxes of a tier can run here, with which programs, or why not and what would mend it."""

    level: str
    name: str
    available: bool = False
    runtimes: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class HostFacts:
    """Everything that `manage.py doctor` tells."""

    host: dict[str, str]
    facts: list[Fact]
    tiers: list[Tier]
    settings: list[Setting] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @property
    def can_run_containers(self) -> bool:
        """Whether tier L2, which the platform needs, is available."""
        return any(tier.name == "container" and tier.available for tier in self.tiers)

    @property
    def is_safe(self) -> bool:
        """Whether no setting of the host undoes isolation, but those that the operator accepts."""
        return hostsettings.refusal(self.settings) is None


# --- single facts


def program_version(program: str, *arguments: str) -> str | None:
    """Return the version that a program tells, or None when it is absent or broken."""
    found = _find(program)
    if found is None:
        return None
    try:
        done = subprocess.run(
            [found, *(arguments or ("--version",))],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.PIPE,
            timeout=_PROGRAM_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+(\.\d+)+\S*", done.stdout + done.stderr)
    return match[0].rstrip(",)") if done.returncode == 0 and match else None


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def _in_child(task: Callable[[], None]) -> str | None:
    """Run a task in a process of its own; return None when it went well, else what the kernel said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            task()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must not return into its parent's code
            os.write(writer, str(error).encode()[:500])
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return None if status == 0 else said or "the trial ended without a word"


def root_fact() -> Fact:
    """Say whether this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        return Fact("root", good=False, value="this is not root, so some trials could not be made", fix="use sudo")
    error = _in_child(lambda: linux.unshare(linux.CLONE_NEWNS))
    if error:
        return Fact("root", good=False, value=f"root without rights ({error})", fix="run outside of a container")
    return Fact("root", good=True, value="yes, with the right to mount")


def cgroup_fact(hierarchies: cgroups.Hierarchies) -> Fact:
    """Say where the limits live."""
    missing = hierarchies.missing()
    if missing:
        return Fact(
            "control groups",
            good=False,
            value=f"mode {hierarchies.mode}, without {', '.join(missing)}",
            fix="mount the cgroup v2 tree at /sys/fs/cgroup and boot with cgroup_enable= for these controllers",
        )
    where = {
        name: "v1" if name in hierarchies.v1 else "v2"
        for name in ("cpu", "memory", "pids", "blkio", "io", "freezer")
        if name in hierarchies.v1 or name in hierarchies.v2_controllers
    }
    told = ", ".join(f"{name} {version}" for name, version in where.items())
    return Fact("control groups", good=True, value=f"mode {hierarchies.mode}: {told}")


def user_namespace_fact() -> Fact:
    """Say whether a user namespace with its own ids can be made."""
    limit = _number("/proc/sys/user/max_user_namespaces")
    if limit == 0:
        return Fact("user namespaces", good=False, value="switched off", fix="sysctl -w user.max_user_namespaces=10000")
    if os.geteuid() != 0:
        return Fact("user namespaces", good=None, value=f"{limit} allowed; not tried without root")
    error = _in_child(lambda: os.close(linux.new_user_namespace(_SHIFT, _SHIFT_COUNT)))
    if error:
        return Fact("user namespaces", good=False, value=error, fix="use a kernel with CONFIG_USER_NS")
    return Fact("user namespaces", good=True, value=f"{limit} allowed, one was made")


def mount_facts(directory: Path) -> list[Fact]:
    """Try an id-mapped mount and an overlay on top of it, in a mount namespace of their own.

    `directory` decides which file system is tried: it must be the one that templates lie on.
    """
    if os.geteuid() != 0:
        return [Fact(name, good=None, value="not tried without root") for name in ("idmapped mounts", "overlay")]
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=directory) as name:
        idmap = _in_child(lambda: _try_idmap(Path(name)))
        overlay = _in_child(lambda: _try_overlay(Path(name))) if idmap is None else None
    facts = [
        Fact("idmapped mounts", good=True, value="one was made")
        if idmap is None
        else Fact("idmapped mounts", good=False, value=idmap, fix="use Linux 5.19 or newer with ext4, xfs or btrfs"),
    ]
    if idmap is not None:
        facts.append(Fact("overlay", good=None, value="not tried without an idmapped mount"))
    elif overlay is None:
        facts.append(Fact("overlay", good=True, value="one was made on an idmapped layer"))
    else:
        facts.append(Fact("overlay", good=False, value=overlay, fix="load the module: modprobe overlay"))
    return facts


def _try_idmap(directory: Path) -> None:
    namespace = linux.new_user_namespace(_SHIFT, _SHIFT_COUNT)
    linux.unshare(linux.CLONE_NEWNS)
    linux.make_mounts_private()
    os.chdir(directory)
    for name in ("source", "lower", "upper", "work", "root"):
        Path(name).mkdir(exist_ok=True)
    linux.attach_tree(linux.idmapped_tree("source", namespace), "lower")
    if Path("lower").stat().st_uid != _SHIFT:
        raise OSError("the mount does not shift owners")


def _try_overlay(directory: Path) -> None:
    _try_idmap(directory)
    linux.mount("overlay", "root", "overlay", linux.MS_NODEV, "lowerdir=lower,upperdir=upper,workdir=work")
    Path("root/file").write_text("x")


def loop_fact() -> Fact:
    """Say whether disks with a limit can be made: ext4 images on loop devices."""
    try:
        handle = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        fix = "load the module: modprobe loop" if isinstance(error, FileNotFoundError) else "run as root"
        return Fact("disk quota", good=False, value=f"no loop devices ({error.strerror})", fix=fix)
    os.close(handle)
    if _find("mkfs.ext4") is None:
        return Fact("disk quota", good=False, value="mkfs.ext4 is missing", fix="apt-get install e2fsprogs")
    return Fact("disk quota", good=True, value="ext4 images on loop devices")


def landlock_fact() -> Fact:
    """Say which Landlock interface the kernel has."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    if version < 1:
        return Fact(
            "Landlock", good=False, value="not in this kernel", fix="boot a kernel with lsm=landlock (tier L1 uses it)"
        )
    return Fact("Landlock", good=True, value=f"ABI {version}")


def seccomp_fact() -> Fact:
    """Say whether system calls can be filtered, and with which library."""
    actions = _text("/proc/sys/kernel/seccomp/actions_avail")
    if "errno" not in actions:
        return Fact("seccomp", good=False, value="no filters", fix="use a kernel with CONFIG_SECCOMP_FILTER")
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return Fact("seccomp", good=False, value="libseccomp is missing", fix="apt-get install libseccomp2")

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    library.seccomp_version.restype = ctypes.POINTER(Version)
    version = library.seccomp_version().contents
    return Fact("seccomp", good=True, value=f"filters, libseccomp {version.major}.{version.minor}.{version.micro}")


def gvisor_fact() -> Fact:
    """Say whether sandboxes of tier L2 may have a kernel of their own."""
    version = gvisor.version()
    if version is None:
        return Fact("gVisor", good=False, value="no runsc that can run sandboxes", fix="apt-get install runsc")
    return Fact("gVisor", good=True, value=f"runsc {version}, for whoever asks for it")


def redirection_fact() -> Fact:
    """Say whether programs in a sandbox can be led to its way out without knowing of it, by trying."""
    if os.geteuid() != 0:
        return Fact("packet filter", good=None, value="not tried without root")
    try:
        Nft.load()
    except OSError:
        return Fact("packet filter", good=False, value=f"no {LIBRARY}", fix="apt-get install nftables")
    error = _in_child(_lead_trial_here)
    if error:
        return Fact("packet filter", good=False, value=error, fix="use a kernel with nf_tables and its NAT")
    return Fact("packet filter", good=True, value="a network was set up as sandboxes get it")


def _lead_trial_here() -> None:
    linux.unshare(linux.CLONE_NEWNET)
    linux.bring_up_loopback()
    redirection.lead_everything_here()


def egress_fact(home: Path) -> Fact:
    """Say whether the way out of the sandboxes of `home` is served at the moment."""
    try:
        pwd.getpwnam("gatehouse-egress")
    except KeyError:
        return Fact("egress", good=False, value="no user gatehouse-egress", fix="manage.py bootstrap")
    pid = pidnotes.running(home / "run" / "egress.json")
    if pid is None:
        return Fact("egress", good=None, value="does not run now; it starts with the node")
    return Fact("egress", good=True, value=f"runs as process {pid}")


def kvm_fact(device: str = "/dev/kvm") -> Fact:
    """Look at KVM. Opening it proves little: a nested host may open and then never run a real guest."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Fact("KVM", good=False, value=f"no {device}", fix="switch virtualisation on in the firmware")
    except OSError as error:
        return Fact("KVM", good=False, value=f"{device} does not open ({error.strerror})", fix="run as root")
    try:
        version = fcntl.ioctl(handle, _KVM_GET_API_VERSION)
    except OSError as error:
        return Fact("KVM", good=False, value=f"{device} opens but is not KVM ({error.strerror})")
    finally:
        os.close(handle)
    if version != _KVM_API_VERSION:
        return Fact("KVM", good=False, value=f"unknown interface {version}", fix="use a current kernel")
    return Fact("KVM", good=None, value="opens, but that is no proof: only a guest that boots is")


def confidential_fact() -> Fact:
    """Say whether the processor offers memory that the host cannot read."""
    switches = {
        "SEV-SNP": "/sys/module/kvm_amd/parameters/sev_snp",
        "SEV": "/sys/module/kvm_amd/parameters/sev",
        "TDX": "/sys/module/kvm_intel/parameters/tdx",
    }
    found = [name for name, path in switches.items() if _text(path) in {"Y", "1"}]
    if Path("/dev/sgx_enclave").exists():
        found.append("SGX")
    if found:
        return Fact("confidential computing", good=None, value=", ".join(found))
    return Fact("confidential computing", good=False, value="no SEV, TDX or SGX", fix="needs another machine")


# --- all together


def gather(directory: Path) -> HostFacts:
    """Look at everything, for an installation in `directory`. Takes well under a second."""
    facts = container_facts(directory)
    tiers = [
        _without_runtime("L0", "language", {}),
        process_tier(),
        container_tier(facts, _versions("crun", "runc")),
        _without_runtime("L3", "microvm", _versions("qemu-system-x86_64")),
    ]
    facts += [redirection_fact(), egress_fact(directory)]
    facts += [landlock_fact(), gvisor_fact(), kvm_fact(), confidential_fact()]
    return HostFacts(_host(directory), facts, tiers, settings_of(directory))


def settings_of(home: Path) -> list[Setting]:
    """Look at what could undo isolation on this host, for an installation in `home`, and what of it is accepted."""
    return hostsettings.accept(hostsettings.look(home, _versions("crun", "runc")))


def container_facts(directory: Path) -> list[Fact]:
    """Look at what tier L2 rests on."""
    return [
        root_fact(),
        cgroup_fact(cgroups.detect()),
        user_namespace_fact(),
        *mount_facts(directory),
        loop_fact(),
        seccomp_fact(),
    ]


def container_verdict(directory: Path) -> Tier:
    """Say whether tier L2, without which nothing starts, can run for an installation in `directory`."""
    return container_tier(container_facts(directory), _versions("crun", "runc"))


def process_tier() -> Tier:
    """Judge tier L1 by trying it."""
    found = process.probe(cgroups.detect())
    return Tier("L1", "process", found.available, found.runtimes, found.reason, found.fix)


def container_tier(facts: list[Fact], runtimes: dict[str, str]) -> Tier:
    """Judge tier L2 from the facts it rests on and the OCI runtimes that were found."""
    if not runtimes:
        return Tier("L2", "container", reason="No OCI runtime is installed.", fix="apt-get install crun")
    needed = ("root", "control groups", "user namespaces", "idmapped mounts", "overlay", "disk quota", "seccomp")
    for fact in facts:
        if fact.name in needed and not fact.good:
            reason = f"{fact.name[0].upper()}{fact.name[1:]}: {fact.value}."
            return Tier("L2", "container", runtimes=runtimes, reason=reason, fix=fact.fix)
    return Tier("L2", "container", available=True, runtimes=runtimes)


def _versions(*programs: str) -> dict[str, str]:
    found = {name: program_version(name) for name in programs}
    return {name: version for name, version in found.items() if version is not None}


def _without_runtime(level: str, name: str, runtimes: dict[str, str]) -> Tier:
    return Tier(
        level,
        name,
        runtimes=runtimes,
        reason="This version of Gatehouse has no runtime for this tier.",
        fix="none on this host: use tier L2",
    )


def _host(directory: Path) -> dict[str, str]:
    release = dict(
        line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line and line[0] != "#"
    )
    memory = re.search(r"MemTotal:\s+(\d+) kB", _text("/proc/meminfo"))
    return {
        "system": release.get("PRETTY_NAME", "unknown system").strip('"'),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processors": str(os.cpu_count() or 1),
        "memory_mib": str(int(memory[1]) // 1024) if memory else "unknown",
        "disk_free_mib": str(shutil.disk_usage(directory).free // 1024**2),
    }


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").strip()
    return ""


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
