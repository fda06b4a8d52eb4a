"""The process that faces both the internet and the guests has nothing to lose: no root, no rights, no network."""

from __future__ import annotations

import pwd
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.live import Stack

pytestmark = pytest.mark.stack


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_runs_as_a_user_of_its_own_in_no_other_group(stack: Stack) -> None:
    status = _status(stack.pid_of("gateway"))
    user = pwd.getpwnam("gatehouse-gateway")
    assert status["Uid"].split() == [str(user.pw_uid)] * 4
    assert status["Gid"].split() == [str(user.pw_gid)] * 4
    assert status["Groups"] == ""


def test_it_can_not_gain_a_right(stack: Stack) -> None:
    status = _status(stack.pid_of("gateway"))
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_it_has_no_network_but_the_listener_that_it_was_handed(stack: Stack) -> None:
    pid = stack.pid_of("gateway")
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    names = re.findall(r"^\s*(\S+):", Path(f"/proc/{pid}/net/dev").read_text(), re.MULTILINE)
    assert names == ["lo"]
    assert Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:] == []
    assert stack.answers()


def test_its_environment_holds_no_secret(stack: Stack) -> None:
    text = Path(f"/proc/{stack.pid_of('gateway')}/environ").read_text()
    names = {entry.partition("=")[0] for entry in text.split("\0") if entry}
    allowed = {"PATH", "LANG", "VIRTUAL_ENV", "GATEHOUSE_HOME", "GATEHOUSE_PORT", "GATEHOUSE_LISTEN_FD"}
    assert names <= allowed | {"GATEHOUSE_DOMAIN", "GATEHOUSE_LOG_LEVEL", "LC_CTYPE"}
