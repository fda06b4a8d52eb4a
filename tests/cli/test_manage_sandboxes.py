"""`gatehouse create, ls, info, pause, resume, extend, logs, kill`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Shell

if TYPE_CHECKING:
    from tests.live import Stack

pytestmark = pytest.mark.stack


def test_a_sandbox_is_created_shown_and_killed(shell: Shell, stack: Stack) -> None:
    made = shell.ok("create", "--timeout", "120", "-m", "job=a&b", "--cpu", "250", "--memory", "256")
    assert made in stack.live_ids()

    found = shell.json("info", made)
    assert (found["state"], found["metadata"], found["timeout"]) == ("running", {"job": "a&b"}, 120)
    assert (found["limits"]["cpu_milli"], found["limits"]["memory_mib"]) == (250, 256)
    [listed] = shell.json("ls", "--json", "-m", "job=a&b")
    assert listed["id"] == made
    assert made in shell.ok("ls")
    assert shell.ok("kill", made) == made

    assert made not in stack.live_ids()
    assert made not in shell.ok("ls")
    assert made in shell.ok("ls", "--all")
    assert shell.json("info", made)["end_reason"] == "killed"


def test_create_as_json_holds_the_access(shell: Shell) -> None:
    made = shell.json("create", "--json", "--private")
    assert made["access"]["token"].startswith("gh_")
    assert made["access"]["headers"]["E2b-Sandbox-Id"] == made["id"]
    assert len(made["access"]["traffic_token"]) == 64
    shell.ok("kill", made["id"])


def test_pause_and_resume_keep_what_runs(shell: Shell, box: str) -> None:
    shell.ok("exec", box, "--", "sh", "-c", "echo kept > /tmp/kept; (sleep 300 &)")

    shell.ok("pause", box)
    assert shell.json("info", box)["state"] == "paused"
    assert shell.failed("exec", box, "true") == (
        1,
        f"The sandbox is paused: let it go on with `gatehouse resume {box}`.",
    )
    shell.ok("resume", box, "--timeout", "100")

    assert shell.ok("exec", box, "cat", "/tmp/kept") == "kept"
    assert shell.run("exec", box, "pgrep", "sleep")[0] == 0


def test_extend_never_shortens(shell: Shell, box: str) -> None:
    before = shell.json("info", box)["end_at"]
    shell.ok("extend", box, "--timeout", "10")
    assert shell.json("info", box)["end_at"] == before
    shell.ok("extend", box, "--timeout", "5000")
    assert shell.json("info", box)["end_at"] > before


def test_logs_tell_what_happened_but_no_arguments(shell: Shell, box: str) -> None:
    shell.ok("exec", box, "echo", "very-secret-word")
    follower = shell.popen("logs", "-f", box, stdout=-1)
    assert follower.stdout is not None
    shown = b""
    while b"exit_code=0" not in shown:
        line = follower.stdout.readline()
        assert line, shown
        shown += line
    shell.ok("kill", box)
    shown += follower.stdout.read()
    follower.stdout.close()

    assert follower.wait(30) == 0
    lines = shown.decode().splitlines()
    assert len(lines) == len(set(lines))
    codes = [line.split()[1] for line in lines]
    assert codes[0] == "sandbox.created"
    assert {"sandbox.started", "command.start", "sandbox.killed"} <= set(codes)
    assert "very-secret-word" not in shown.decode()
    events = [json.loads(line) for line in shell.ok("logs", "--json", box).splitlines()]
    assert {event["object"]["id"] for event in events} == {box}


def test_one_that_cannot_be_killed_stops_no_other(shell: Shell, box: str) -> None:
    code, out, err = shell.run("kill", "inothere", box)
    assert (code, out.decode()) == (1, f"{box}\n")
    assert err.decode() == ("gatehouse: inothere: The sandbox was not found. `gatehouse ls` shows those that live.\n")


def test_a_network_policy_is_named(shell: Shell) -> None:
    made = json.loads(shell.ok("create", "--network", "isolated", "--json"))
    shell.ok("kill", made["id"])

    assert (made["network"]["mode"], made["network"]["policy"]) == ("none", "isolated")
    said = "There is no network policy 'moon'."
    assert shell.failed("create", "--network", "moon") == (1, said)


def test_refusals_name_the_field(shell: Shell) -> None:
    assert shell.failed("create", "--timeout", "0") == (1, "timeout: Must be a whole number from 1.")
    assert shell.failed("create", "-t", "nowhere")[1].startswith("template 'nowhere' not found")
    assert "tier must be one of" in shell.failed("create", "--tier", "moon")[1]


def test_a_wrong_key(stack: Stack) -> None:
    code, said = Shell(GATEHOUSE_URL=stack.url, GATEHOUSE_API_KEY="e2b_" + "0" * 40).failed("ls")
    assert (code, said) == (
        1,
        "The API key is missing or not valid. Set GATEHOUSE_API_KEY to a key of this Gatehouse;"
        " `manage.py apikey create` makes one.",
    )


def test_e2b_variables_will_do(stack: Stack) -> None:
    assert Shell(E2B_API_URL=stack.url, E2B_API_KEY=stack.key).ok("ls").startswith("ID ")
    wrong = Shell(E2B_API_URL=stack.url, E2B_API_KEY=stack.key, GATEHOUSE_API_KEY="e2b_" + "0" * 40)
    assert wrong.failed("ls")[0] == 1
    flags = Shell(GATEHOUSE_URL="http://localhost:1", GATEHOUSE_API_KEY="e2b_" + "0" * 40)
    assert flags.ok("--url", stack.url, "--api-key", stack.key, "ls").startswith("ID ")
