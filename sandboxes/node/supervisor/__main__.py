"""`python -m sandboxes.node.supervisor`: checks the ground, then keeps node, web and worker running."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from sandboxes.node.config import NodeConfig
from sandboxes.node.supervisor import SetupError, preflight, services
from sandboxes.node.supervisor.listeners import Listeners
from sandboxes.node.supervisor.loop import Supervisor

ROOT = Path(__file__).resolve().parents[3]
_SERVICE_PATIENCE_S = 5.0
_CODE = ("platform", "sandboxes", "tenants", "audit", "templates", "static")


def say(text: str) -> None:
    """Tell the operator something that is not a log line of a service."""
    sys.stderr.write(f"up: {text}\n")
    sys.stderr.flush()


def check(config: NodeConfig) -> preflight.Accounts:
    """Return the service users when everything holds that must hold; SetupError otherwise."""
    preflight.require_root()
    accounts = preflight.Accounts.find()
    preflight.require_bootstrap(config.home)
    preflight.require_containers(config.home)
    preflight.require_safe_host(config.home)
    preflight.require_readable(ROOT, Path(sys.executable), config.home, accounts)
    code = [ROOT / name for name in _CODE if (ROOT / name).is_dir()]
    preflight.require_protected([*code, Path(sys.prefix)], accounts)
    preflight.require_port(config.home, config.bind, config.port)
    return accounts


def _public_address(config: NodeConfig) -> tuple[str, int]:
    unspecified = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return unspecified.get(config.bind, config.bind), config.port


def _end_service(home: Path, name: str) -> None:
    """End a service that the node leaves running when it is killed, so that nothing outlives `up` but sandboxes."""
    deadline = time.monotonic() + _SERVICE_PATIENCE_S
    number = signal.SIGTERM
    while (pid := preflight.running_service(home, name)) is not None:
        try:
            os.kill(pid, number)
            time.sleep(0.05)
            os.waitpid(pid, os.WNOHANG)
        except (ProcessLookupError, ChildProcessError):
            continue
        if time.monotonic() > deadline:
            number = signal.SIGKILL


def _notify_systemd(path: str) -> None:
    """Tell a service manager that waits for it that everything is ready; sd_notify(3) describes the protocol."""
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.connect("\0" + path[1:] if path.startswith("@") else path)
            peer.send(b"READY=1")


def main() -> int:
    """Run until told to stop; return the exit status."""
    config = NodeConfig.from_env()
    # Checks look for programs where the services will: a shell of `su` knows no /usr/sbin.
    os.environ["PATH"] = services.PATH
    begun = time.monotonic()
    try:
        accounts = check(config)
        lock = preflight.take_lock(config.home)
        listeners = Listeners(config.run, accounts)
    except SetupError as error:
        say(str(error))
        return 1

    def announce(_seconds: float) -> None:
        url = f"http://localhost:{config.port}"
        sys.stdout.write(f"ready: {url} ({time.monotonic() - begun:.1f} s)\n")
        sys.stdout.flush()
        _notify_systemd(os.environ.get("NOTIFY_SOCKET", ""))

    supervisor = Supervisor(
        services.services(config, ROOT, accounts, listeners.options(), os.environ),
        say=say,
        on_ready=announce,
        is_ready=lambda: services.answers(_public_address(config), "/health"),
    )
    try:
        return supervisor.run()
    finally:
        for name in ("gateway", "egress"):
            _end_service(config.home, name)
        listeners.close()
        os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
