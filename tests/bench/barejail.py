"""What a bare jail costs: bubblewrap and the guest agent, driven by nothing but this script."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from sandboxes.node.runtimes.syscallfilter import compile_filter
from tests.bench.client import Wire
from tests.live import UnixConnection

_FIRST_UID = 0x3100_0000
_USER = 1000
_LISTENER = 3


class BareJail:
    """Starts jails the shortest way that still has a uid of its own, all namespaces and our seccomp filter."""

    def __init__(self, rootfs: str, guest: str, directory: Path) -> None:
        self._directory = directory
        self._rootfs = rootfs
        self._guest = guest
        self._filter = compile_filter()
        self.pids: list[int] = []

    def start(self, number: int) -> Wire:
        """Start one jail and return a client of its guest agent."""
        home = self._directory / f"j{number}"
        home.mkdir()
        os.chown(home, _FIRST_UID + number, _FIRST_UID + number)
        path = home / "guest.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, tempfile.TemporaryFile() as filter_file:
            listener.bind(str(path))
            listener.listen(16)
            filter_file.write(self._filter)
            filter_file.seek(0)
            self._bubblewrap(home, listener.fileno(), filter_file.fileno(), number)
        return Wire(UnixConnection(path))

    def _bubblewrap(self, home: Path, listener: int, filter_fd: int, number: int) -> None:
        root = self._rootfs
        command = ["bwrap", "--unshare-all", "--uid", str(_USER), "--gid", str(_USER), "--as-pid-1", "--new-session"]
        command += ["--ro-bind", f"{root}/usr", "/usr", "--ro-bind", f"{root}/etc", "/etc"]
        for name in ("bin", "lib", "lib64", "sbin"):
            command += ["--symlink", f"usr/{name}", f"/{name}"]
        command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", str(home), "/home/user"]
        command += ["--ro-bind", self._guest, "/opt/gatehouse/guest", "--seccomp", str(filter_fd)]

        def move_listener() -> None:
            os.dup2(listener, _LISTENER, inheritable=True)

        jail = subprocess.Popen(
            [*command, "--", "/opt/gatehouse/guest"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[_LISTENER, filter_fd],
            user=_FIRST_UID + number,
            group=_FIRST_UID + number,
            extra_groups=[],
            preexec_fn=move_listener,
        )
        assert jail.stdin is not None
        jail.stdin.write(json.dumps({"sandbox_id": "bare", "template_id": "base", "env": {}}).encode())
        jail.stdin.close()
        self.pids.append(jail.pid)

    def end(self) -> None:
        """End every jail."""
        for pid in self.pids:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for process in (pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.pids.clear()
