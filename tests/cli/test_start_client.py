"""The client before it reaches anything: what it loads, and what it says when it can't go on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Shell
from tests.servers import free_port

KEY = "e2b_" + "0" * 40


def test_it_loads_the_standard_library_and_our_plain_modules_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import gatehouse.cli.__main__;"
        "tops = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(tops - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=Shell().environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "['corekit', 'gatehouse']"), done.stderr


def test_every_command_explains_itself() -> None:
    for command in (
        "create",
        "ls",
        "execute",
        "exec",
        "shell",
        "cp",
        "logs",
        "info",
        "pause",
        "resume",
        "extend",
        "kill",
    ):
        assert Shell().ok(command, "--help").startswith(f"usage: gatehouse {command}")


def test_without_a_key() -> None:
    assert Shell().failed("ls") == (2, "There is no API key: set GATEHOUSE_API_KEY, or pass --api-key.")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "nonsense"])
def test_a_url_that_is_none(url: str) -> None:
    code, said = Shell(GATEHOUSE_URL=url, GATEHOUSE_API_KEY=KEY).failed("ls")
    assert (code, said) == (2, f"{url!r} is no URL: GATEHOUSE_URL must look like http://localhost:8000.")


def test_a_key_that_would_break_a_header() -> None:
    code, said = Shell(GATEHOUSE_API_KEY=f"{KEY}\nX-Evil: 1").failed("ls")
    assert (code, said) == (2, "The API key holds characters that no key has: copy it once more.")


def test_nobody_listens() -> None:
    url = f"http://localhost:{free_port()}"
    code, said = Shell(GATEHOUSE_URL=url, GATEHOUSE_API_KEY=KEY).failed("ls")
    assert (code, said) == (
        1,
        f"Nothing answers at {url} (Connection refused): start Gatehouse, or set GATEHOUSE_URL to where it is.",
    )


def test_a_label_that_is_no_pair() -> None:
    code, out, err = Shell(GATEHOUSE_API_KEY=KEY).run("create", "-m", "nopair")
    assert (code, out) == (2, b"")
    assert b"write -m as KEY=VALUE" in err
