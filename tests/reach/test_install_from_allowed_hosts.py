"""Package managers and git fetch from an allowed host with nothing set up by the user but which index to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.reach import luggage
from tests.reach.conftest import both_ways
from tests.reach.indexes import git_repository, node_registry, python_index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reach.conftest import Alice

pytestmark = pytest.mark.asyncio(loop_scope="module")


@both_ways
async def test_pip_installs_from_an_allowed_index(alice: Alice, way: str) -> None:
    python_index(alice.internet)
    line = "rm -rf target; pip install -q --target target --index-url https://pypi.allowed.test/simple greeting"
    await alice.text(line, way=way)
    greet = "PYTHONPATH=target python3 -c 'import greeting; print(greeting.words)'"
    assert await alice.text(greet) == "hello from the index\n"


async def test_pip_says_why_another_index_cannot_be_used(alice: Alice) -> None:
    line = "pip install --retries 1 --target target --index-url https://pypi.evil.test/simple greeting"
    done = await alice.run(line)
    assert done.exit_code == 1
    assert "403 Forbidden (network policy: no_rule, add pypi.evil.test:443)" in done.stderr
    assert (await alice.refusal("egress.denied", "pypi.evil.test"))["reason"] == "no_rule"


@both_ways
async def test_npm_installs_from_an_allowed_registry(alice: Alice, way: str) -> None:
    node_registry(alice.internet)
    await alice.bring(luggage.node_and_npm())
    npm = "PATH=$HOME/programs:$PATH node $HOME/programs/npm/bin/npm-cli.js"
    where = "rm -rf project ~/.npm; mkdir project; cd project"
    flags = "--registry https://npm.allowed.test --no-audit --no-fund --no-update-notifier"
    await alice.text(f"{where}; {npm} install {flags} greeting", way=way)
    greet = "cd project; ../programs/node -p 'require(\"greeting\")'"
    assert await alice.text(greet) == "hello from the registry\n"


@both_ways
async def test_git_clones_from_an_allowed_host(alice: Alice, way: str, tmp_path: Path) -> None:
    git_repository(alice.internet, tmp_path)
    await alice.text("rm -rf greeting; git clone -q https://git.allowed.test/greeting.git", way=way)
    assert await alice.text("cat greeting/greeting.txt") == "hello from the repository\n"


async def test_git_says_why_another_host_cannot_be_cloned_from(alice: Alice) -> None:
    done = await alice.run("git clone https://git.evil.test/other.git")
    assert done.exit_code not in (None, 0)
    assert "403" in done.stderr
    assert (await alice.refusal("egress.denied", "git.evil.test"))["reason"] == "no_rule"
