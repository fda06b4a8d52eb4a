"""What the bare tools cost: crun or bubblewrap and the guest agent, driven by nothing but this script.

Runs in mount and network namespaces of its own (`unshare --mount --net`), so that it leaves nothing behind. Prints
JSON: `create` (ms from the overlay mount to the first command's end, one after the other), `jail` (the same with
bubblewrap), `hundred` (ms for a hundred at once, eight at a time) and `memory` (MB of available memory that each of a
hundred takes).

    python tests/bench/floor.py ROOTFS GUEST_BINARY DIRECTORY
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node import cgroups, linux
from sandboxes.node.runtimes import oci
from tests.bench.barejail import BareJail
from tests.bench.client import Wire
from tests.live import UnixConnection

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_UID = 0x3000_0000
_UIDS = 65_536
_HUNDRED = 100


class Bare:
    """Starts containers the shortest way that still has a user namespace, an overlay and our seccomp filter."""

    def __init__(self, rootfs: str, guest: str, directory: Path) -> None:
        self.directory = directory
        layer = directory / "layer" / "opt" / "gatehouse"
        layer.mkdir(parents=True)
        shutil.copy(guest, layer / "guest")
        userns = linux.new_user_namespace(_FIRST_UID, _UIDS)
        for source, name in ((rootfs, "lower"), (str(directory / "layer"), "guest")):
            (directory / name).mkdir()
            linux.attach_tree(linux.idmapped_tree(source, userns), str(directory / name))
        self.pids: list[int] = []

    def start(self, number: int) -> Wire:
        """Start one container and return a client of its guest agent."""
        bundle = self.directory / f"c{number}"
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir(parents=True)
        os.chown(bundle / "upper", _FIRST_UID, _FIRST_UID)
        facts = oci.ContainerFacts("bare", _FIRST_UID, _UIDS)
        (bundle / "config.json").write_text(json.dumps(oci.workstation(facts)))
        layers = f"lowerdir={self.directory}/guest:{self.directory}/lower,upperdir={bundle}/upper,workdir={bundle}/work"
        linux.mount("overlay", str(bundle / "rootfs"), "overlay", linux.MS_NODEV, layers)
        path = bundle / "guest.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(16)
            self._crun(bundle, listener, f"bare-{number}")
        return Wire(UnixConnection(path))

    def _crun(self, bundle: Path, listener: socket.socket, name: str) -> None:
        root = f"--root={self.directory}/notes"
        command = ["crun", "--cgroup-manager=disabled", root, "run", "-d", f"--bundle={bundle}", "--preserve-fds=1"]
        command += [f"--pid-file={bundle}/pid", name]

        def move_listener() -> None:
            os.dup2(listener.fileno(), 3, inheritable=True)

        crun = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[3],
            preexec_fn=move_listener,
        )
        assert crun.stdin is not None
        config = {"sandbox_id": name, "template_id": "base", "env": {}, "default_user": "user", "max_processes": 200}
        crun.stdin.write(json.dumps(config).encode())
        crun.stdin.close()
        # Not wait(timeout=): that polls.
        if crun.wait() != 0:
            assert crun.stdout is not None
            raise RuntimeError(crun.stdout.read().decode())
        self.pids.append(int((bundle / "pid").read_text()))

    def end(self) -> None:
        """End every container."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.pids.clear()


def available_mb() -> float:
    """Return the host's available memory in MB."""
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6


def main() -> None:
    """Measure and print."""
    # The number that the guest expects its listener at must not be taken by anything else.
    os.dup2(os.open("/dev/null", os.O_RDWR), 3)
    rootfs, guest, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    hierarchies = cgroups.detect()
    if hierarchies.mode == "hybrid" and hierarchies.v2 is not None:
        linux.unmount(str(hierarchies.v2))
    bare = Bare(rootfs, guest, directory)
    try:
        measure(bare)
    finally:
        bare.end()


def measure(bare: Bare) -> None:
    """Start containers one after the other, then a hundred at once."""
    create = _one_by_one(bare.start)
    bare.end()
    jails = BareJail(f"{bare.directory}/lower", f"{bare.directory}/layer/opt/gatehouse/guest", bare.directory)
    jail = _one_by_one(jails.start)
    jails.end()
    time.sleep(1)
    before = available_mb()
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(bare.start, range(1000, 1000 + _HUNDRED)))
    hundred = (time.perf_counter() - began) * 1e3
    time.sleep(3)
    memory = (before - available_mb()) / _HUNDRED
    sys.stdout.write(json.dumps({"create": create, "jail": jail, "hundred": [hundred], "memory": [memory]}))


def _one_by_one(start: Callable[[int], Wire]) -> list[float]:
    samples = []
    for number in range(25):
        began = time.perf_counter()
        start(number).run("/bin/true")
        samples.append((time.perf_counter() - began) * 1e3)
    return samples[5:]


if __name__ == "__main__":
    main()
