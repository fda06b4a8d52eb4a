"""A complete Gatehouse on a disk whose every fsync takes 5 ms more, as many real disks do.

Web and worker run under strace, which delays the system calls; the node, whose children must not be traced, has its
own two calls delayed in Python. The supervisor is the product's own, with longer command lines:

    python -m tests.bench.slow_disk        in place of `manage.py up`
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sandboxes.node.supervisor import __main__ as supervisor
from sandboxes.node.supervisor import services
from tests.live import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.node.supervisor.loop import Service

_DELAY_US = 5_000
_STRACE = (
    "strace",
    # The service stays the direct child, so that the supervisor's signals reach it and not its tracer.
    "--daemonize=grandchild",
    "--follow-forks",
    "--seccomp-bpf",
    "--quiet=all",
    "--output=/dev/null",
    "--trace=fsync,fdatasync",
    f"--inject=fsync,fdatasync:delay_enter={_DELAY_US}",
)
_SLOW_NODE = f"""
import os, runpy, sys, time
def slowed(call):
    def later(fd):
        time.sleep({_DELAY_US / 1e6})
        return call(fd)
    return later
os.fsync, os.fdatasync = slowed(os.fsync), slowed(os.fdatasync)
runpy.run_module("sandboxes.node", run_name="__main__", alter_sys=True)
"""


def slowed(service: Service) -> Service:
    """Return the same service on the slow disk."""
    if service.name == "node":
        return replace(service, command=(sys.executable, "-c", _SLOW_NODE))
    return replace(service, command=(*_STRACE, *service.command))


@contextlib.contextmanager
def slow_fsync() -> Iterator[Stack]:
    """Run a fresh Gatehouse on the slow disk."""
    if shutil.which("strace") is None:
        raise SystemExit("The figure with a slow disk needs strace: run `apt-get install strace`.")
    with running_stack(command=("-m", "tests.bench.slow_disk")) as stack:
        yield stack


def main() -> int:
    """Run the supervisor with slowed services."""
    plain = services.services

    def all_slowed(*arguments: Any) -> list[Service]:
        return [slowed(service) for service in plain(*arguments)]

    setattr(services, "services", all_slowed)  # noqa: B010 - a plain assignment would be a type error
    return supervisor.main()


if __name__ == "__main__":
    sys.exit(main())
