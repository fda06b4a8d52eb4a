"""Paths and names that try to get out, or into a shell: refused, or written inside; nothing else happens."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sdk.wire import Agent


def put(agent: Agent, path: str, content: bytes = b"x") -> Any:
    """Upload a file as bytes."""
    headers = {"Content-Type": "application/octet-stream"}
    return agent.call("POST", "/files", params={"path": path}, content=content, headers=headers)


def test_a_climb_ends_inside(agent: Agent) -> None:
    name = f"climb-{secrets.token_hex(4)}"
    answer = put(agent, f"../../../../../../tmp/{name}")
    assert (answer.status_code, answer.json()[0]["path"]) == (200, f"/tmp/{name}")
    assert agent.run(f"cat /tmp/{name}")[0] == "x"


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/1/mem", "/proc/sys/kernel/core_pattern", "/sys/x"])
def test_the_kernel_s_files_are_no_targets(agent: Agent, path: str) -> None:
    assert 400 <= put(agent, path, b"|/bin/evil").status_code < 600
    assert agent.call("GET", "/health").status_code == 204


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "a/" * 4000])
def test_names_that_cannot_be(agent: Agent, path: str) -> None:
    answer = put(agent, path)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["code"] == answer.status_code


@pytest.mark.parametrize("name", ["$(touch pwned)", "a';touch pwned;'", "`touch pwned`", "-rf", "a\nb", "\\", "*"])
def test_no_shell_reads_a_name(agent: Agent, name: str) -> None:
    assert put(agent, f"names/{name}").json()[0]["path"] == f"/home/user/names/{name}"
    assert agent.call("GET", "/files", params={"path": f"names/{name}"}).content == b"x"
    assert agent.run("find / -name pwned 2>/dev/null")[0] == ""


def test_a_link_to_the_system_gives_no_more_than_its_owner_may(agent: Agent) -> None:
    agent.run("ln -sfn /etc etc-link")
    answer = put(agent, "etc-link/evil.conf")
    seen = agent.run("find /etc/evil.conf -printf %u 2>/dev/null")[0]
    assert (answer.status_code >= 400 and seen == "") or (answer.status_code == 200 and seen == "user")


def test_a_latin_name_breaks_no_listing(agent: Agent) -> None:
    agent.run(r"mkdir -p latin; touch latin/$(printf 'caf\xe9') latin/plain")
    answer = agent.rpc("filesystem.Filesystem/ListDir", {"path": "latin", "depth": 1})
    names = [entry["name"] for entry in answer.json()["entries"]]
    assert (len(names), "plain" in names) == (2, True)


def test_a_download_is_named_for_every_browser(agent: Agent) -> None:
    put(agent, "ü ☃.txt")
    answer = agent.call("GET", "/files", params={"path": "ü ☃.txt"})
    assert "filename*=UTF-8''%C3%BC%20%E2%98%83.txt" in answer.headers["Content-Disposition"]
