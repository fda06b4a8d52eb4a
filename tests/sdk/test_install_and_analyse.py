"""The whole day of a data analyst's sandbox: install from the package index, write, run, list, extend, kill.

The index is the one that this machine's own pip uses, reached through the policy `restricted`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from e2b import CommandExitException, Sandbox

from tests.live import running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

pytestmark = [pytest.mark.stack, pytest.mark.embedded_only]

ANALYSIS = """
import numpy as np
import pandas as pd
frame = pd.DataFrame({"price": np.array([1.5, 2.5, 4.0])})
print(pd.__name__, frame["price"].sum())
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A Gatehouse that knows the hosts of this machine's own package clients."""
    with running_stack() as running:
        running.manage("bundles", "discover", "--grant-private")
        made = running.manage(
            *("apikey", "create", "--tenant", "default", "--name", "all"),
            *("--scope=sandboxes:read", "--scope=sandboxes:write", "--scope=sandboxes:use"),
        )
        running.key = made.stdout.strip()
        yield running


def restricted(stack: Stack) -> Sandbox:
    """Return a new sandbox under the policy `restricted`."""
    made = stack.rest("POST", "sandboxes", {"network": "restricted", "template": "base"})
    sandbox: Sandbox = Sandbox.connect(made["id"], timeout=300, **stack.sdk)
    return sandbox


def test_install_write_run_list_extend_kill(stack: Stack) -> None:
    sandbox = restricted(stack)

    # The index is not ours: how fast it is says nothing of this.
    installed = sandbox.commands.run("pip install --user --no-input pandas numpy", timeout=240)
    assert "Successfully installed" in installed.stdout
    sandbox.files.write("/home/user/analysis.py", ANALYSIS)
    assert sandbox.commands.run("python3 /home/user/analysis.py", timeout=60).stdout == "pandas 8.0\n"
    assert "analysis.py" in [entry.name for entry in sandbox.files.list("/home/user")]
    before = sandbox.get_info().end_at
    sandbox.set_timeout(600)
    assert sandbox.get_info().end_at > before
    assert sandbox.kill()
    assert sandbox.sandbox_id not in stack.live_ids()


def test_without_the_bundle_pip_says_what_refused_and_the_ledger_has_it(stack: Stack) -> None:
    # The tests of this file have a system of their own: nobody else misses it.
    stack.manage("bundles", "set", "@python")
    sandbox = restricted(stack)

    with pytest.raises(CommandExitException) as refused:
        sandbox.commands.run("pip install --user --no-input --retries 1 pandas", timeout=120)
    assert "403 Forbidden (network policy: no_rule, add " in refused.value.stderr
    denied = until_denied(stack, sandbox)
    assert {one["reason"] for one in denied} == {"no_rule"}
    assert {one["outcome"] for one in denied} == {"refused"}
    sandbox.kill()


def until_denied(stack: Stack, sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return the sandbox's denials once there are any."""
    deadline = time.monotonic() + 20
    while not (found := stack.rest("GET", f"sandboxes/{sandbox.sandbox_id}/events?code=egress.denied")["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return list(found)
