"""Hostile code can neither hang nor end who asks, and what nobody could judge is never low."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.risk.assessor import assess
from audit.risk.pool import Assessor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def assessor() -> Iterator[Assessor]:
    with Assessor(size=2) as pool:
        yield pool


def children() -> set[int]:
    """Return the processes that this one has started and not yet seen the end of."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def test_the_answer_is_that_of_the_assessor(assessor: Assessor) -> None:
    here = assess(b"sudo id", "bash")
    there = assessor.assess_blocking(b"sudo id", "bash")
    assert (there.tier, there.score, there.findings, there.ruleset) == (
        here.tier,
        here.score,
        here.findings,
        here.ruleset,
    )


async def test_the_loop_can_wait_for_it(assessor: Assessor) -> None:
    judged = await asyncio.gather(*(assessor.assess(b"ls %d" % number, "bash") for number in range(20)))
    assert {one.tier for one in judged} == {"L1"}
    assert (await assessor.assess_argv(["sh", "-c", "sudo id"])).tier == "L3"


def test_threads_may_ask_at_the_same_time(assessor: Assessor) -> None:
    with ThreadPoolExecutor(8) as threads:
        codes = [b"import os\nos.system('echo %d')" % number for number in range(40)]
        judged = list(threads.map(lambda code: assessor.assess_blocking(code, "python"), codes))
    assert {(one.tier, one.unassessable) for one in judged} == {("L3", None)}


def test_the_same_code_is_judged_once(assessor: Assessor) -> None:
    first = assessor.assess_blocking(b"echo remembered", "bash")
    assert assessor.assess_blocking(b"echo remembered", "sh") is first


def test_a_command_without_an_interpreter_needs_no_child() -> None:
    before = children()
    with Assessor(size=1) as pool:
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        assert pool.assess_argv_blocking(["ls", "-l"]).tier == "L1"
        assert pool.assess_argv_blocking(["cat", "/etc/shadow"]).tier == "L3"


@pytest.mark.parametrize(
    ("code", "language"),
    [
        (b"(" * 100_000, "python"),
        (b"x = " + b"-" * 300_000 + b"1", "python"),
        (b"[" * 200_000, "javascript"),
        (b"$(" * 50_000, "bash"),
        (b"ls -l a\n" * 30_000, "bash"),
        (b"{a,b}" * 20_000, "bash"),
        (b"if true; then " * 20_000, "bash"),
        (b"cat <<A\n" * 20_000, "bash"),
        (b"x" * 1_000_001, "python"),
        (b"\xff\xfe\x00" * 1000, "python"),
    ],
)
def test_hostile_code_is_answered_and_never_low(assessor: Assessor, code: bytes, language: str) -> None:
    judged = assessor.assess_blocking(code, language)
    assert judged.tier >= "L2"
    assert judged.band != "low"


def test_code_that_takes_too_long_says_so_and_the_next_is_judged() -> None:
    with Assessor(size=1, cpu_limit_s=0.05) as pool:
        slow = pool.assess_blocking(b"ls -l a\n" * 30_000, "bash")
        assert slow.unassessable == "Reading it took more than 0.05 s."
        assert (slow.tier, slow.band) == ("L2", "medium")
        assert pool.assess_blocking(b"ls -l a\n" * 30_000, "bash") is slow
        assert pool.assess_blocking(b"ls after", "bash").unassessable is None


def test_a_child_that_dies_is_replaced() -> None:
    before = children()
    with Assessor(size=1) as pool:
        assert pool.assess_blocking(b"echo 1", "bash").unassessable is None
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        died = pool.assess_blocking(b"echo 2", "bash")
        assert died.unassessable == "The assessor ended while it read it."
        assert died.tier == "L2"
        assert pool.assess_blocking(b"echo 3", "bash").unassessable is None


def test_a_child_has_no_network_no_files_and_no_rights() -> None:
    before = children()
    with Assessor(size=1) as pool:
        pool.assess_blocking(b"echo 1", "bash")
        (pid,) = children() - before
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert status["Seccomp"] == "2"
        if os.geteuid() == 0:
            assert status["Uid"].split() == ["65534"] * 4
            assert status["CapEff"] == "0" * 16
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")  # noqa: PTH115
        assert f"{256 << 20}" in next(line for line in limits.splitlines() if line.startswith("Max address space"))
        assert " 0 " in next(line for line in limits.splitlines() if line.startswith("Max file size"))


def test_a_closed_pool_leaves_no_process_and_calls_nothing_harmless() -> None:
    before = children()
    pool = Assessor(size=2)
    pool.close()
    assert children() <= before
    late = pool.assess_blocking(b"echo late", "bash")
    assert (late.unassessable, late.tier) == ("The assessor is closed.", "L2")


def test_a_language_nobody_knows_needs_a_container(assessor: Assessor) -> None:
    judged = assessor.assess_blocking(b"10 PRINT 1", "basic")
    assert (judged.tier, judged.band, [found.rule for found in judged.findings]) == ("L2", "medium", ["lang.unknown"])
