"""Debian's squid in egress's place: the same network, the same name server, the same hosts allowed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.egress import nets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("squid", path="/usr/sbin:/usr/bin")
PORT = 3128


def common(directory: Path) -> str:
    """Return the part of a configuration that every squid here has."""
    return f"""
dns_nameservers {nets.RESOLVER}
pid_filename {directory}/squid.pid
access_log stdio:{directory}/access.log
cache_log {directory}/cache.log
cache deny all
cache_mem 8 MB
coredump_dir {directory}
shutdown_lifetime 0 seconds
hosts_file none
visible_hostname squid.test
pinger_enable off
netdb_filename none
workers 1
"""


@contextlib.contextmanager
def running(directory: Path, namespace: str, configuration: str, *prefix: str) -> Iterator[None]:
    """Run it until the block ends; it listens on 127.0.0.1 in the namespace."""
    directory.chmod(0o777)
    path = directory / "squid.conf"
    path.write_text(common(directory) + configuration)
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", "--", *prefix, str(PROGRAM), "-N", "-f", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_port(namespace, process, directory)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _await_port(namespace: str, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with nets.socket_in(namespace) as sock:
            if sock.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.05)
    log = directory / "cache.log"
    raise RuntimeError("squid does not listen: " + (log.read_text() if log.exists() else "it wrote no log"))
