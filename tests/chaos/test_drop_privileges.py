"""Only the node runs as root; every other service has a user of its own and reads nothing that is not its own."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.live import Stack

SERVICES = ("web", "worker", "gateway", "egress")


@pytest.mark.parametrize("service", SERVICES)
def test_service_runs_as_its_own_user(doomed: Stack, service: str) -> None:
    uid = Path(f"/proc/{doomed.pid_of(service)}").stat().st_uid
    assert pwd.getpwuid(uid).pw_name == f"gatehouse-{service}"


def test_every_root_process_is_the_node(doomed: Stack) -> None:
    assert doomed.process is not None
    rows = subprocess.run(["ps", "-eo", "pid=,ppid=,user=,args="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[tuple[int, str, str]]] = {}
    for row in rows.splitlines():
        pid_text, parent, owner, command = row.split(None, 3)
        children.setdefault(int(parent), []).append((int(pid_text), owner, command))
    todo, roots = [doomed.process.pid], []
    while todo:
        for pid, user, arguments in children.get(todo.pop(), []):
            todo.append(pid)
            if user == "root":
                roots.append(arguments)
    assert roots
    assert all("sandboxes.node" in arguments for arguments in roots), roots


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("gatehouse-web", "node/node_id"),
        ("gatehouse-web", "keys/ledger.key"),
        ("gatehouse-web", "anchors"),
        ("gatehouse-worker", "keys/seed.key"),
        ("gatehouse-worker", "keys/vault.key"),
        ("gatehouse-worker", "node/node_id"),
        ("gatehouse-gateway", "keys/seed.key"),
        ("gatehouse-gateway", "keys/vault.key"),
        ("gatehouse-gateway", "keys/django.key"),
        ("gatehouse-gateway", "keys/ledger.key"),
        pytest.param("gatehouse-gateway", "db/gatehouse.sqlite3", marks=pytest.mark.embedded_only),
        ("gatehouse-gateway", "node/node_id"),
        ("gatehouse-egress", "keys/seed.key"),
        ("gatehouse-egress", "keys/vault.key"),
        ("gatehouse-egress", "keys/django.key"),
        ("gatehouse-egress", "keys/ledger.key"),
        pytest.param("gatehouse-egress", "db/gatehouse.sqlite3", marks=pytest.mark.embedded_only),
        ("gatehouse-egress", "node/node_id"),
        ("nobody", "keys/django.key"),
        ("nobody", "keys/vault.key"),
        pytest.param("nobody", "db/gatehouse.sqlite3", marks=pytest.mark.embedded_only),
    ],
)
def test_user_can_not_read(doomed: Stack, user: str, path: str) -> None:
    target = doomed.home / path
    assert target.exists()
    done = subprocess.run(
        ["ls", str(target)] if target.is_dir() else ["cat", str(target)],
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=groups(user),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("user", "socket"),
    [
        ("gatehouse-web", "edge.sock"),
        ("gatehouse-web", "tap.sock"),
        ("gatehouse-gateway", "node.sock"),
        ("gatehouse-egress", "node.sock"),
        ("gatehouse-egress", "tap.sock"),
        ("gatehouse-gateway", "egress.sock"),
        ("nobody", "node.sock"),
        ("nobody", "edge.sock"),
        ("nobody", "tap.sock"),
        ("nobody", "web.sock"),
    ],
)
def test_user_can_not_connect(doomed: Stack, user: str, socket: str) -> None:
    attempt = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", attempt, str(doomed.home / "run" / socket)],
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=groups(user),
        capture_output=True,
        check=False,
    )
    assert b"PermissionError" in done.stderr


@pytest.mark.parametrize(("user", "service"), [("gatehouse-web", "web"), ("gatehouse-egress", "egress")])
def test_no_process_of_the_same_user_looks_into_who_knows_secrets(doomed: Stack, user: str, service: str) -> None:
    folder = f"/proc/{doomed.pid_of(service)}"
    for name in ("environ", "mem", "maps"):
        done = subprocess.run(
            ["cat", f"{folder}/{name}"],
            user=user,
            group=pwd.getpwnam(user).pw_gid,
            extra_groups=groups(user),
            capture_output=True,
            check=False,
        )
        assert b"Permission denied" in done.stderr
    limits = Path(f"{folder}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def groups(user: str) -> list[int]:
    """Return the supplementary groups that the host gives the user."""
    return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
