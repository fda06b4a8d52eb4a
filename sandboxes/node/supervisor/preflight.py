"""What must hold before anything is started. Every refusal is one sentence that says how to mend it."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.node import hostfacts, hostsettings, pidnotes
from sandboxes.node.supervisor import SetupError
from sandboxes.node.supervisor.loop import Account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SERVICE_USERS = ("gatehouse-web", "gatehouse-worker", "gatehouse-gateway", "gatehouse-egress")
SHARED_GROUP = "gatehouse"
_BOOTSTRAP = "run `manage.py bootstrap` as root first"


@dataclass(frozen=True)
class Accounts:
    """The users that the processes become, with the groups they need for the sockets and the database."""

    web: Account
    worker: Account
    gateway: Account
    egress: Account

    @classmethod
    def find(cls) -> Accounts:
        """Look the users up; SetupError when one is missing."""
        try:
            shared = grp.getgrnam(SHARED_GROUP).gr_gid
            web, worker, gateway, egress = (pwd.getpwnam(name) for name in SERVICE_USERS)
        except KeyError as error:
            missing = str(error.args[0]).rpartition(" ")[2].strip("'")
            raise SetupError(f"The user or group {missing} does not exist: {_BOOTSTRAP}.") from None
        return cls(
            Account(web.pw_uid, web.pw_gid, (shared,)),
            Account(worker.pw_uid, worker.pw_gid, (shared,)),
            Account(gateway.pw_uid, gateway.pw_gid),
            Account(egress.pw_uid, egress.pw_gid),
        )

    def all(self) -> tuple[Account, ...]:
        """Return all accounts."""
        return (self.web, self.worker, self.gateway, self.egress)


def require_root() -> None:
    """Refuse to start without root, which the node needs for namespaces, mounts and control groups."""
    if os.geteuid() != 0:
        raise SetupError("The node needs root to make sandboxes: start with `sudo make run` or `sudo manage.py up`.")


def require_bootstrap(home: Path) -> None:
    """Refuse to start in a home that was never set up."""
    for name in ("keys/django.key", "keys/seed.key", "keys/ledger.key", "keys/vault.key", "anchors", "run", "db"):
        if not (home / name).exists():
            raise SetupError(f"{home / name} is missing: {_BOOTSTRAP}.")


def require_containers(home: Path) -> None:
    """Refuse to start on a host whose kernel or programs cannot run any sandbox."""
    tier = hostfacts.container_verdict(home)
    if not tier.available:
        raise SetupError(
            f"This host can't run sandboxes yet. {tier.reason} Mend: {tier.fix}; `manage.py doctor` says more."
        )


def require_safe_host(home: Path) -> None:
    """Refuse to start on a host with a setting that undoes isolation, unless the operator accepts it by name."""
    try:
        reason = hostsettings.refusal(hostfacts.settings_of(home))
    except SystemExit as error:  # a name that is no setting
        raise SetupError(str(error)) from None
    if reason is not None:
        raise SetupError(f"This host would undo the isolation of sandboxes: {reason}")


def take_lock(home: Path) -> int:
    """Return a descriptor that holds this home for one supervisor; it is let go when the process ends."""
    handle = os.open(home / "run" / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode().strip() or "unknown"
        os.close(handle)
        raise SetupError(f"Gatehouse is running already in {home} (process {owner}): stop that one first.") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def running_service(home: Path, name: str) -> int | None:
    """Return the pid of the `gateway` or `egress` that an earlier node left running, or None."""
    return pidnotes.running(home / "run" / f"{name}.json")


def require_port(home: Path, bind: str, port: int) -> None:
    """Refuse to start when another program listens on the public port."""
    if running_service(home, "gateway") is not None:
        return
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SetupError(
                    f"Port {port} is taken by another program: stop it, or choose a port with GATEHOUSE_PORT."
                ) from None
            raise SetupError(f"{bind}:{port} cannot be used ({error.strerror}): check GATEHOUSE_BIND.") from None


def require_readable(root: Path, python: Path, home: Path, accounts: Accounts) -> None:
    """Refuse to start when a service user cannot reach code, interpreter or sockets."""
    needed = ((root / "manage.py", os.R_OK), (python, os.X_OK), (home / "run", os.X_OK))
    for name, account in zip(SERVICE_USERS, accounts.all(), strict=True):
        for path, how in needed:
            if not _can_access(account, path, how):
                raise SetupError(
                    f"The user {name} cannot reach {path}: move the checkout to a directory that everybody may "
                    "enter (such as /srv/gatehouse), or `chmod o+x` its parents."
                )


def _can_access(account: Account, path: Path, how: int) -> bool:
    """Ask the kernel as that user, in a process that exists only for the question."""
    pid = os.fork()
    if pid == 0:
        answer = 1
        try:
            os.setgroups(account.groups)
            os.setgid(account.gid)
            os.setuid(account.uid)
            answer = 0 if os.access(path, how) else 1
        finally:
            os._exit(answer)
    return os.waitpid(pid, 0)[1] == 0


def require_protected(directories: Iterable[Path], accounts: Accounts) -> None:
    """Refuse to start when a service user could change the code that root or another user runs."""
    uids = {account.uid for account in accounts.all()}
    gids = {gid for account in accounts.all() for gid in (account.gid, *account.groups)}
    for directory in directories:
        for path, info in _tree_and_parents(directory):
            if _writable(info, uids, gids):
                raise SetupError(
                    f"{path} can be changed by Gatehouse's own service users: "
                    f"run `chown -R root:root {directory} && chmod -R go-w {directory}`."
                )


def _writable(info: os.stat_result, uids: set[int], gids: set[int]) -> bool:
    if stat.S_ISLNK(info.st_mode):
        return info.st_uid in uids
    if info.st_uid in uids or (info.st_gid in gids and info.st_mode & stat.S_IWGRP):
        return True
    # In a sticky directory such as /tmp nobody can replace what belongs to others.
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    return bool(info.st_mode & stat.S_IWOTH) and not sticky


def _tree_and_parents(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    for parent in (directory, *directory.parents):
        yield str(parent), parent.stat()
    pending = [str(directory)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                    pending.append(entry.path)
