"""What the same costs with the Docker Engine, where a daemon runs."""

from __future__ import annotations

import shutil
import subprocess
import time

from tests.live import templates_of_this_checkout

_IMAGE = "gatehouse-bench:base"
_RUNS = 10


def has_daemon() -> bool:
    """Tell whether a Docker daemon answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def docker_run_ms() -> list[float]:
    """Time `docker run --rm IMAGE true` with the template base as its image."""
    templates = templates_of_this_checkout()
    rootfs = templates / (templates / "base.current").read_text().strip() / "rootfs"
    with subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", _IMAGE], stdin=tar.stdout, capture_output=True, check=True)
    samples = []
    try:
        for _ in range(_RUNS):
            began = time.perf_counter()
            command = ["docker", "run", "--rm", "--network=none", _IMAGE, "/bin/true"]
            subprocess.run(command, capture_output=True, check=True)
            samples.append((time.perf_counter() - began) * 1e3)
    finally:
        subprocess.run(["docker", "rmi", "-f", _IMAGE], capture_output=True, check=False)
    return samples
