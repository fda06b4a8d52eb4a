"""A PostgreSQL and a Redis of the tests' own: `python -m tests.servers COMMAND…` runs a command beside them.

The command finds them in DATABASE_URL and REDIS_URL. Both are thrown away when it ends, however it ends.

The cluster does not sync to disk: a test may kill the server, but none cuts the power, and what a killed server wrote
stays with the kernel. Full page writes stay on: SIGKILL ends a write between two pages of the kernel's, which are
smaller than the database's, and only a whole page in the log mends one that is half old.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

USER = "postgres"
REDIS_DATABASES = 1024
_PROGRAMS = Path("/usr/lib/postgresql")
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_SETTINGS = {
    "fsync": "off",
    # Who waits for a lock that nobody gives back hears of it, and whoever forgot a transaction loses it.
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "120s",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
}


def free_port() -> int:
    """Return a TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A server that runs until its block ends, and may be killed and started again in between."""

    command: list[str]
    home: Path
    url: str
    answers: Callable[[], None]
    stop_signal: signal.Signals
    user: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it answers. It dies with the thread that starts it."""
        guarded = ["setpriv", "--pdeathsig", self.stop_signal.name.removeprefix("SIG"), *self.command]
        if self.user is not None:
            guarded = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *guarded]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                guarded, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait(self.answers, self.home)
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End it and all its children with SIGKILL, and return when none of them is left.

        Each child of PostgreSQL's leads a group of its own, so there is no group to kill. Its first process is
        stopped before: else it would start children anew, or they would see it die and leave in good order.
        """
        process = self.process
        assert process is not None, f"{self.command[0]} does not run"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        children = [os.pidfd_open(pid) for pid in children_of(process.pid)]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)
        process.kill()
        process.wait()
        for child in children:
            select.select([child], [], [], _STOP_TIMEOUT_S)
            os.close(child)
        self.process = None

    def stop(self) -> None:
        """End it in good order, if it runs."""
        if self.process is None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def cluster(**settings: str) -> Iterator[Server]:
    """Run a PostgreSQL cluster of its own; `settings` go beside the usual ones. It keeps its port when it is killed."""
    programs = _programs()
    home = Path(tempfile.mkdtemp(prefix="gatehouse-postgresql-", dir="/var/tmp"))
    account = pwd.getpwnam(USER)
    os.chown(home, account.pw_uid, account.pw_gid)
    password, port = secrets.token_hex(16), free_port()
    try:
        (home / "password").write_text(password)
        os.chown(home / "password", account.pw_uid, account.pw_gid)
        _as_user(
            *(str(programs / "initdb"), "-D", str(home / "data"), "-U", "gatehouse", "--no-sync"),
            *("--encoding=UTF8", "--locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={home}/password"),
        )
        chosen = {**_SETTINGS, **settings, "port": str(port), "unix_socket_directories": str(home)}
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(home / "data"), *options]
        url = f"postgresql://gatehouse:{password}@127.0.0.1:{port}/postgres"

        def answers() -> None:
            psycopg.connect(url, connect_timeout=2).close()

        with Server(command, home, url, answers, signal.SIGINT, USER) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def postgresql(**settings: str) -> Iterator[str]:
    """Run a cluster of its own and return the URL of its database; `settings` go beside the usual ones."""
    with cluster(**settings) as server:
        yield server.url


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis of its own that keeps nothing, and return its URL without a database's number."""
    home = Path(tempfile.mkdtemp(prefix="gatehouse-redis-", dir="/var/tmp"))
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command += ["--databases", str(REDIS_DATABASES), "--dir", str(home)]

    def answers() -> None:
        socket.create_connection(("127.0.0.1", port), 2).close()

    try:
        with Server(command, home, f"redis://127.0.0.1:{port}", answers, signal.SIGTERM) as server:
            yield server.url
    finally:
        shutil.rmtree(home, ignore_errors=True)


def set_of_its_own(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the URLs of an empty database and an empty Redis for the installation at a port.

    Nothing when the tests run on the embedded set.
    """
    if "DATABASE_URL" not in environment:
        return {}
    database, cache = environment["DATABASE_URL"], environment["REDIS_URL"]
    name = f"stack_{port}_{secrets.token_hex(4)}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return {
        "DATABASE_URL": f"{database.rpartition('/')[0]}/{name}",
        # The first ones belong to the tests that run without a stack.
        "REDIS_URL": f"{cache.rpartition('/')[0]}/{64 + port % (REDIS_DATABASES - 64)}",
    }


def _programs() -> Path:
    versions = sorted(_PROGRAMS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise SystemExit(
            "PostgreSQL is missing: `make test` installs it, or `apt-get install postgresql redis-server`."
        )
    return versions[-1].parent


def _as_user(*command: str) -> None:
    done = subprocess.run(command, user=USER, group=USER, extra_groups=[], cwd="/", capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stderr.decode()}")


def _wait(answers: Callable[[], None], home: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            answers()
        except (OSError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise SystemExit(f"The server did not start:\n{(home / 'log').read_text()[-4000:]}") from None
            time.sleep(0.05)
        else:
            return


def main(command: list[str]) -> int:
    """Run a command beside both servers and return its exit status."""
    # Until there is a command to pass it on to: the default would leave the servers' folders behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with postgresql() as database, redis() as cache:
        environment = {**os.environ, "DATABASE_URL": database, "REDIS_URL": f"{cache}/0"}
        with subprocess.Popen(command, env=environment) as child:
            signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
            while True:
                try:
                    return child.wait()
                except KeyboardInterrupt:
                    # The command got it as well, and ends in its own way first.
                    continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
