"""A sandbox starts when it is asked for, once; a start that fails leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from corekit.clock import epoch_ms
from sandboxes.node.errors import GenerationConflict, NodeError, NoRoom, StartFailed, TierUnavailable, UnknownBuild
from sandboxes.node.runtimes import container, prepared
from sandboxes.node.runtimes.base import Availability
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIES = "#!/bin/sh\necho no such luck >&2\nexit 3\n"
IS_NO_PROGRAM = "this is not a program\n"
IS_SILENT = "#!/bin/sh\nexec sleep 1000\n"
LEAVES_A_CHILD = "#!/bin/sh\nsetsid sleep 1000 &\nexec sleep 1000\n"
ANSWERS = """#!/usr/bin/python3
import socket
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.sendall({answer!r})
    connection.close()
"""


@contextlib.asynccontextmanager
async def refused_start(
    node: Rig, error: type[NodeError], **changes: Any
) -> AsyncIterator[pytest.ExceptionInfo[NodeError]]:
    """Start a sandbox that must be refused; afterwards nothing of it is left, and its end is reported."""
    name = rig.new_id()
    with pytest.raises(error) as refusal:
        await node.start(name, **changes)
    yield refusal
    await node.is_clean()
    assert (name in node.keeper.sandboxes, name in node.keeper.starting) == (False, False)


async def test_it_answers_when_the_guest_does(clean_node: Rig) -> None:
    before = epoch_ms()
    sandbox = await clean_node.start("alice", env={"GREETING": "hello"}, ttl_ms=60_000)
    assert before <= sandbox.started_at <= epoch_ms()
    assert sandbox.summary() == {
        "id": "alice",
        "generation": 1,
        "tenant": rig.ACME,
        "state": "running",
        "started_at": sandbox.started_at,
        "end_at": sandbox.started_at + 60_000,
    }
    done = await clean_node.run(sandbox, "echo $GREETING; id -un; id -u; pwd")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "hello\nuser\n1000\n/home/user\n", "")


async def test_its_start_is_reported(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    await rig.eventually(lambda: clean_node.codes(sandbox.spec.id) == ["sandbox.started"])
    event = clean_node.events(sandbox.spec.id)[0]
    assert (event["phase"], event["tenant"], event["generation"]) == ("fact", rig.ACME, 1)
    assert event["node_id"] == clean_node.keeper.node_id


async def test_its_keys_and_environment_are_on_disk_for_root_alone(clean_node: Rig) -> None:
    sandbox = await clean_node.start(env={"PASSWORD": "tulip"})
    assert oct((clean_node.home / "node").stat().st_mode)[-3:] == "700"
    kept = clean_node.home / "node" / "sandboxes" / sandbox.spec.id
    assert [oct(path.stat().st_mode)[-3:] for path in sorted(kept.iterdir())] == ["600", "600"]


async def test_its_guest_listens_to_root_and_the_gateway_alone(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    listener = Path(sandbox.runtime.socket_path(sandbox.state))
    for path, mode in ((listener, 0o660), (listener.parent, 0o750), (listener.parent.parent, 0o750)):
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, 0, clean_node.node.config.gateway_gid)


async def test_the_same_request_again_answers_with_the_same_sandbox(clean_node: Rig) -> None:
    first = await clean_node.start("alice2")
    pids = clean_node.pids(first)
    assert await clean_node.start("alice2") is first
    assert clean_node.pids(first) == pids
    await rig.eventually(lambda: clean_node.codes("alice2") == ["sandbox.started"])


async def test_the_same_request_at_the_same_time_starts_one_sandbox(clean_node: Rig) -> None:
    found = await asyncio.gather(*(clean_node.start("alice3") for _ in range(5)))
    assert {id(sandbox) for sandbox in found} == {id(found[0])}
    assert len(rig.leftovers(clean_node.home)["members"]) == 1


@pytest.mark.parametrize(
    "changes",
    [{"generation": 2}, {"tenant": rig.EVIL_CORP}, {"build": "other"}],
    ids=lambda changes: next(iter(changes)),
)
async def test_another_request_for_its_id_is_refused(clean_node: Rig, changes: dict[str, Any]) -> None:
    name = rig.new_id()
    starting = asyncio.create_task(clean_node.start(name))
    await asyncio.sleep(0)
    with pytest.raises(GenerationConflict):
        await clean_node.start(name, **changes)
    sandbox = await starting
    with pytest.raises(GenerationConflict):
        await clean_node.start(name, **changes)
    assert clean_node.keeper.sandboxes == {name: sandbox}
    assert (await clean_node.run(sandbox, "true")).exit_code == 0


async def test_an_id_whose_end_is_unreported_is_taken(clean_node: Rig) -> None:
    sandbox = await clean_node.start("bob")
    await clean_node.keeper.stop("bob", 1)
    with pytest.raises(GenerationConflict, match="already ended"):
        await clean_node.start("bob")
    clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
    again = await clean_node.start("bob", generation=2)
    assert again is not sandbox
    assert (await clean_node.run(again, "true")).exit_code == 0


async def test_a_caller_who_goes_away_does_not_stop_the_start(clean_node: Rig) -> None:
    caller = asyncio.create_task(clean_node.start("gone"))
    await asyncio.sleep(0.005)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    await rig.eventually(lambda: "gone" in clean_node.keeper.sandboxes)
    assert (await clean_node.run(clean_node.keeper.sandboxes["gone"], "true")).exit_code == 0


async def test_a_key_that_is_revoked_meanwhile_opens_nothing(clean_node: Rig) -> None:
    starting = asyncio.create_task(clean_node.start("shared", grants={"0a" * 8: None, "0b" * 8: None}))
    await asyncio.sleep(0.005)
    assert clean_node.keeper.revoke_key("0a" * 8) == 1
    sandbox = await starting
    assert sandbox.spec.grants == {"0b" * 8: None}
    kept = next(spec for name, spec, _state in clean_node.keeper.store.load() if name == "shared")
    assert kept is not None
    assert kept.grants == {"0b" * 8: None}


async def test_the_smallest_sandbox_works(clean_node: Rig) -> None:
    smallest = {"cpu_milli": 10, "memory_mib": 16, "disk_mib": 16, "pids": 64}
    sandbox = await clean_node.start(resources=smallest)
    assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"


async def test_a_large_environment_arrives_whole(clean_node: Rig) -> None:
    env = {f"PART_{n}": "é" * 4_000 for n in range(15)}
    sandbox = await clean_node.start(env=env)
    done = await clean_node.run(sandbox, "env | grep ^PART_ | wc -c")
    assert done.stdout.strip() == str(sum(len(f"{name}={value}\n".encode()) for name, value in env.items()))


async def test_an_unknown_build_is_refused(clean_node: Rig) -> None:
    async with refused_start(clean_node, UnknownBuild, build="nothing-of-ours") as refusal:
        assert (refusal.value.status, refusal.value.code) == (404, "build_unknown")
        assert refusal.value.details == {"build": "nothing-of-ours"}


@pytest.mark.parametrize("tier", ["language", "microvm"])
async def test_a_tier_without_a_runtime_is_refused_with_a_way_out(clean_node: Rig, tier: str) -> None:
    seen = clean_node.keeper.spool.last_seq
    async with refused_start(clean_node, TierUnavailable, tier=tier) as refusal:
        assert (refusal.value.status, refusal.value.details["tier"]) == (409, tier)
        assert "manage.py doctor" in refusal.value.details["fix"]
    assert clean_node.keeper.spool.last_seq == seen


async def test_a_profile_that_the_tier_does_not_give_is_refused(clean_node: Rig) -> None:
    async with refused_start(clean_node, TierUnavailable, tier="process") as refusal:
        assert refusal.value.message == "Profile workstation is not available at tier process; use hardened."
        assert refusal.value.details == {"tier": "process"}


async def test_a_host_without_a_runtime_says_what_to_install(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    found = container._probe(clean_node.node.container._hierarchies)
    assert found == Availability(
        available=False, runtimes={}, reason="Neither crun nor runc is installed.", fix="Run `apt-get install crun`."
    )
    monkeypatch.setattr(clean_node.node.container, "_availability", found)
    async with refused_start(clean_node, TierUnavailable) as refusal:
        assert refusal.value.details == {"tier": "container", "fix": "Run `apt-get install crun`."}


async def test_no_room_names_the_resource(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_node.keeper.admission, "memory_mib", 300)
    await clean_node.start()
    with pytest.raises(NoRoom) as refusal:
        await clean_node.start("late")
    assert refusal.value.details == {"resource": "memory_mib", "needed": 256, "free": 44}
    assert clean_node.events("late") == []
    assert len(clean_node.keeper.sandboxes) == 1


@pytest.mark.parametrize(
    ("guest", "says"),
    [
        (DIES, "The sandbox did not start: no such luck"),
        (IS_NO_PROGRAM, "The sandbox did not start: "),
        (ANSWERS.format(answer=b"HTTP/1.1 500 Internal Server Error\r\n\r\n"), "The sandbox did not start: "),
        (ANSWERS.format(answer=b"x" * 10_000), "The sandbox did not start: "),
        (ANSWERS.format(answer=b""), "The sandbox did not start: "),
        (IS_SILENT, "The guest agent did not answer within 1 s: no output"),
        (LEAVES_A_CHILD, "The guest agent did not answer within 1 s: no output"),
    ],
    ids=["dies", "no program", "error", "garbage", "hangs up", "silent", "leaves a child"],
)
async def test_a_broken_guest_leaves_nothing_behind(
    clean_node: Rig, monkeypatch: pytest.MonkeyPatch, guest: str, says: str
) -> None:
    monkeypatch.setattr(prepared, "_START_TIMEOUT_S", 0.7)
    clean_node.use_guest(guest)
    try:
        async with refused_start(clean_node, StartFailed) as refusal:
            assert refusal.value.message.startswith(says)
            assert (refusal.value.status, refusal.value.code) == (500, "start_failed")
    finally:
        clean_node.use_real_guest()


async def test_a_failed_start_is_reported_and_may_be_tried_again(clean_node: Rig) -> None:
    clean_node.use_guest(DIES)
    with pytest.raises(StartFailed):
        await clean_node.start("second-try".replace("-", ""))
    event = clean_node.events("secondtry")[0]
    assert (event["code"], event["details"]) == ("sandbox.ended", {"reason": "start_failed", "cause": "start_failed"})
    clean_node.use_real_guest()
    assert (await clean_node.run(await clean_node.start("secondtry"), "true")).exit_code == 0


async def test_a_runtime_that_fails_leaves_nothing_behind(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_node.node.container, "_command", lambda _runtime="": ("/bin/false", "create"))
    async with refused_start(clean_node, StartFailed) as refusal:
        assert "the OCI runtime ended with status 1" in refusal.value.message


async def test_a_full_disk_leaves_nothing_behind(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_node.node.maker._disks, "copy", _full_disk)
    async with refused_start(clean_node, StartFailed) as refusal:
        assert "No space left on device" in refusal.value.message


@pytest.mark.parametrize("step", ["write_spec", "write_state"])
async def test_a_store_that_takes_nothing_leaves_nothing_behind(
    clean_node: Rig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(clean_node.keeper.store, step, _full_disk)
    async with refused_start(clean_node, StartFailed) as refusal:
        assert refusal.value.details == {"reason": "store"}


async def test_many_at_once_start_one_zygote(node_home: Any) -> None:
    before = set(rig.children_of(os.getpid()))
    async with rig.running_node(node_home) as node:
        await asyncio.gather(*(node.start() for _ in range(8)))
        new = set(rig.children_of(os.getpid())) - before
        assert len([pid for pid in new if "sandboxes.node.zygote" in rig.command_line(pid)]) == 1
        await node.stop_all()


def _full_disk(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_the_runtime_that_was_asked_for_starts_it(clean_node: Rig) -> None:
    for runtime in ("crun", "runc"):
        sandbox = await clean_node.start(runtime=runtime)
        notes = clean_node.home / "node" / "runtime" / f"slot-{sandbox.state['slot']}"
        # Each keeps its notes under a name of its own.
        assert (notes / {"crun": "status", "runc": "state.json"}[runtime]).exists()
        assert (await clean_node.run(sandbox, "echo here")).stdout == "here\n"
