"""What a template is made of, as data: a changed recipe is a new build."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from sandboxes.node.spec import Resources

# Raise this when `debian.py` or `rootfs.py` start to produce a different tree from the same recipe.
_STEPS_REVISION = 1

# Plain rules for a place without a network: no host look-ups, no system log, no terminal of sudo's own.
_SUDOERS = """\
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults !use_pty, !fqdn, !syslog, !lecture, !mail_badpass, !mail_no_user
root ALL=(ALL:ALL) ALL
%sudo ALL=(ALL:ALL) NOPASSWD: ALL
"""
# sudoers alone decides; the stock modules would ask for limits and logs that a sandbox has not.
_PAM_SUDO = """\
auth sufficient pam_permit.so
account sufficient pam_permit.so
session optional pam_permit.so
"""
_LOCALE = "LANG=C.UTF-8\n"


@dataclass(frozen=True)
class Recipe:
    """One template. `files` are (path in the tree, mode, text); `directories` are (path, mode).

    `privileged` names the programs that keep their setuid bit; `resources` are what a sandbox gets by default.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    default_user: str
    user_id: int
    user_groups: tuple[str, ...]
    directories: tuple[tuple[str, int], ...]
    files: tuple[tuple[str, int, str], ...]
    removed: tuple[str, ...]
    privileged: tuple[str, ...]
    resources: Resources

    def digest(self) -> str:
        """Return 64 hex digits that change whenever the recipe or the steps that carry it out change."""
        text = json.dumps({"steps": _STEPS_REVISION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


BASE = Recipe(
    name="base",
    suite="bookworm",
    packages=(
        "adduser",
        "bash",
        "bzip2",
        "ca-certificates",
        "coreutils",
        "curl",
        "git",
        "gzip",
        "less",
        "libpam-runtime",
        "login",
        "ncurses-bin",
        "ncurses-term",
        "passwd",
        "procps",
        "python-is-python3",
        "python3",
        "python3-pip",
        "python3-venv",
        "sudo",
        "tar",
        "unzip",
        "util-linux",
        "xz-utils",
    ),
    default_user="user",
    user_id=1000,
    user_groups=("sudo",),
    # Every mount point that a container needs must exist below: the overlay's lower layer is read-only.
    directories=(
        ("proc", 0o755),
        ("sys", 0o755),
        ("dev", 0o755),
        ("dev/pts", 0o755),
        ("dev/shm", 0o1777),
        ("dev/mqueue", 0o755),
        ("run", 0o755),
        ("run/lock", 0o1777),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("opt/gatehouse", 0o755),
    ),
    files=(
        ("etc/sudoers", 0o440, _SUDOERS),
        ("etc/pam.d/sudo", 0o644, _PAM_SUDO),
        ("etc/pam.d/sudo-i", 0o644, _PAM_SUDO),
        ("etc/sudo.conf", 0o644, "Set disable_coredump false\n"),
        ("etc/default/locale", 0o644, _LOCALE),
        ("etc/environment", 0o644, _LOCALE),
        ("etc/hostname", 0o644, "sandbox\n"),
        ("etc/hosts", 0o644, "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n"),
        ("etc/resolv.conf", 0o644, ""),
    ),
    # Patterns; what they match goes, directories with all they hold.
    removed=(
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/*",
        "etc/machine-id",
        "etc/ssh/ssh_host_*",
        "usr/lib/python3*/EXTERNALLY-MANAGED",
        "usr/share/doc/*",
        "usr/share/info/*",
        "usr/share/lintian/*",
        "usr/share/locale/*",
        "usr/share/man/*",
        "var/cache/apt/*",
        "var/cache/debconf/*-old",
        "var/cache/ldconfig/aux-cache",
        "var/cache/man/*",
        "var/lib/apt/lists/*",
        "var/lib/dpkg/*-old",
        "var/lib/systemd/random-seed",
        "var/log/*",
        "dev/*",
        "run/*",
        "tmp/*",
        "var/tmp/*",
    ),
    # The only programs that keep their setuid or setgid bit.
    privileged=("usr/bin/newgrp", "usr/bin/passwd", "usr/bin/su", "usr/bin/sudo", "usr/sbin/unix_chkpwd"),
    resources=Resources(cpu_milli=1_000, memory_mib=512, disk_mib=1_024, pids=256),
)

RECIPES = {BASE.name: BASE}
