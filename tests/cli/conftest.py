"""The client as a program of its own, against a running Gatehouse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.live import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

COMMAND = [sys.executable, "-m", "gatehouse.cli"]


class Shell:
    """Somebody's shell, in which `gatehouse` is installed."""

    def __init__(self, **variables: str) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("E2B_", "GATEHOUSE_"))}
        path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
        self.environment = {**plain, "PYTHONPATH": path, "LANG": "C.UTF-8", **variables}

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the client."""
        return subprocess.Popen([*COMMAND, *arguments], env=self.environment, **options)

    def run(self, *arguments: str, stdin: bytes | None = b"", timeout: float = 60) -> tuple[int, bytes, bytes]:
        """Run the client and return its exit code and what it wrote."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def ok(self, *arguments: str, stdin: bytes | None = b"") -> str:
        """Run the client, which must succeed, and return what it wrote."""
        code, out, err = self.run(*arguments, stdin=stdin)
        assert code == 0, (out, err)
        return out.decode().rstrip("\n")

    def failed(self, *arguments: str) -> tuple[int, str]:
        """Run the client, which must fail with one sentence and nothing else."""
        code, out, err = self.run(*arguments)
        said = err.decode()
        assert code != 0
        assert out == b""
        assert said.startswith("gatehouse: "), said
        assert said.count("\n") == 1, said
        return code, said.removeprefix("gatehouse: ").rstrip("\n")

    def json(self, *arguments: str) -> Any:
        """Run the client, which must print JSON."""
        return json.loads(self.ok(*arguments))


@pytest.fixture(scope="session")
def shell(stack: Stack) -> Shell:
    """Return a shell of somebody with a key."""
    return Shell(GATEHOUSE_URL=stack.url, GATEHOUSE_API_KEY=stack.key)


@pytest.fixture
def box(shell: Shell) -> Iterator[str]:
    """Return the id of a sandbox that is killed afterwards."""
    made = shell.ok("create", "--timeout", "600", "-e", "GREETING=hello")
    yield made
    shell.run("kill", made)
