"""No act happens without its intent on the node's disk; results wait for the node, within bounds."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from sandboxes.gateway.settings import Limits
from sandboxes.gateway.tap import Tap, TapAway
from tests.gateway import doubles
from tests.gateway.place import ALICE, Place, until

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = {"process": {"cmd": "/bin/true"}}


async def test_a_silent_node_stops_the_act(place: Place) -> None:
    place.tap.silent = True

    async with place.start(COMMAND) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert await response.json(content_type=None) == {
            "sandboxId": ALICE,
            "message": "The act can't be recorded at the moment, so it was not done. Try again.",
            "code": 503,
        }
    assert place.guest.requests == []


async def test_an_absent_node_stops_the_act_and_reads_too(place: Place) -> None:
    await place.tap.stop()

    for call in (
        place.start(COMMAND),
        place.rpc("filesystem.Filesystem/Stat", {"path": "/"}),
        place.http.get(f"{place.url}/files?path=/a", headers=place.headers()),
    ):
        async with call as response:
            assert response.status == 503
    assert place.guest.requests == []


async def test_health_does_not_depend_on_the_node(place: Place) -> None:
    await place.tap.stop()

    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 204


async def test_an_act_waits_for_a_node_that_comes_back(place: Place) -> None:
    await place.tap.stop()
    call = asyncio.ensure_future(place.start(COMMAND))
    await asyncio.sleep(0.05)
    await place.tap.start()

    async with await call as response:
        assert response.status == 200
    assert len(place.tap.of("command.start", "intent")) == 1


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("spool_full", 429, "The sandbox's audit record is full for the moment, so the act was not done. Try again."),
        ("unknown_sandbox", 502, "The sandbox was not found"),
        ("bad_event", 500, "The gateway failed"),
    ],
)
async def test_a_refused_intent_stops_the_act(place: Place, code: str, status: int, message: str) -> None:
    place.tap.refuse = code

    async with place.start(COMMAND) as response:
        assert response.status == status
        body = await response.json(content_type=None)
    assert (body["message"], body["code"]) == (message, status)
    assert place.guest.requests == []


async def test_results_wait_while_the_node_is_away(place: Place) -> None:
    proceed = asyncio.Event()

    async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        await proceed.wait()
        writer.write(doubles.STREAM_HEAD + doubles.chunk(doubles.envelope({}, 2)) + b"0\r\n\r\n")

    place.guest.on("POST", "/process.Process/Start", start)
    call = asyncio.ensure_future(place.start(COMMAND))
    await until(lambda: place.guest.requests)
    await place.tap.stop()
    proceed.set()
    async with await call as response:
        assert response.status == 200
        await response.read()
    assert place.tap.of("command.start", "result") == []

    await place.tap.start()
    await until(lambda: place.tap.of("command.start", "result"))
    assert len(place.tap.of("command.start", "result")) == 1


async def test_an_act_with_many_names_still_fits_the_nodes_lines(place: Place) -> None:
    many = {f"{number:04}" + "x" * 80: {"y" * 70 + str(inner): 1 for inner in range(50)} for number in range(50)}

    async with place.start({"process": {"cmd": "x", "envs": many}}) as response:
        assert response.status == 200

    assert place.tap.of("command.start", "intent")[0]["args_shape"] == {"…": "too large"}


async def test_an_intent_that_may_be_on_record_gets_a_result_that_nothing_came_of_it(place: Place) -> None:
    place.tap.silent = True
    async with place.start(COMMAND) as response:
        assert response.status == 503
    place.tap.silent = False
    await place.tap.stop()
    await place.tap.start()
    await until(lambda: place.tap.of("command.start", "result"))

    (result,) = place.tap.of("command.start", "result")
    assert (result["outcome"], result["details"]) == ("error", {"reason": "not_recorded"})
    assert place.tap.of("command.start", "intent") == []


async def test_a_client_that_leaves_before_the_confirmation_leaves_no_open_end(place: Place) -> None:
    place.tap.silent = True
    call = asyncio.ensure_future(place.start(COMMAND))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.sleep(0.05)
    place.tap.silent = False
    await place.tap.stop()
    await place.tap.start()
    await until(lambda: place.tap.of("command.start", "result"))

    assert place.guest.requests == []
    assert place.tap.of("command.start", "result")[0]["details"] == {"reason": "client_left"}


async def test_an_intent_that_never_left_needs_no_result(place: Place) -> None:
    await place.tap.stop()
    async with place.start(COMMAND) as response:
        assert response.status == 503
    await place.tap.start()
    async with place.rpc("process.Process/List", {}):
        pass

    assert place.tap.of("command.start", "result") == []


OPERATIONS: list[tuple[str, dict[str, object], str, str]] = [
    ("process.Process/SendInput", {"process": {"pid": 1}, "input": {"stdin": "aGk="}}, "command.input", "send_input"),
    ("process.Process/CloseStdin", {"process": {"pid": 1}}, "command.input", "send_input"),
    (
        "process.Process/Update",
        {"process": {"pid": 1}, "pty": {"size": {"cols": 1}}},
        "command.update",
        "resize_terminal",
    ),
    ("process.Process/SendSignal", {"process": {"pid": 1}, "signal": 9}, "command.signal", "send_signal"),
    ("process.Process/List", {}, "command.list", "list_commands"),
    ("filesystem.Filesystem/Stat", {"path": "/a"}, "file.stat", "stat_file"),
    ("filesystem.Filesystem/ListDir", {"path": "/a"}, "file.list", "list_files"),
    ("filesystem.Filesystem/MakeDir", {"path": "/a"}, "file.mkdir", "make_directory"),
    ("filesystem.Filesystem/Move", {"source": "/a", "destination": "/b"}, "file.move", "move_file"),
    ("filesystem.Filesystem/Remove", {"path": "/a"}, "file.remove", "remove_file"),
    ("filesystem.Filesystem/CreateWatcher", {"path": "/a"}, "file.watch", "watch_files"),
    ("files/compose", {"source_paths": ["/a"], "destination": "/b"}, "file.write", "write_file"),
]


@pytest.mark.parametrize(("call", "message", "code", "tool"), OPERATIONS, ids=[one[0] for one in OPERATIONS])
async def test_each_call_is_on_record_under_its_code(
    place: Place, call: str, message: dict[str, object], code: str, tool: str
) -> None:
    place.guest.on("POST", f"/{call}", doubles.answer(200, b"{}", Content_Type="application/json"))

    async with place.rpc(call, message) as response:
        assert response.status == 200
    await until(lambda: place.tap.of(code, "result"))

    assert place.tap.of(code, "intent")[0]["tool_name"] == tool
    assert place.tap.of(code, "result")[0]["outcome"] == "ok"


async def test_a_failed_call_is_on_record_as_an_error(place: Place) -> None:
    async with place.rpc("filesystem.Filesystem/Stat", {"path": "/etc/x"}) as response:
        assert response.status == 404
        assert await response.json() == {"code": "not_found", "message": "no"}
    await until(lambda: place.tap.of("file.stat", "result"))

    (result,) = place.tap.of("file.stat", "result")
    assert (result["outcome"], result["details"]["http_status"]) == ("error", 404)
    assert (result["status"], result["decision"]) == (404, "allow")
    assert (result["risk_score"], result["risk_band"], result["risk_tier"]) == (21, "low", "L2")
    assert result["risk_reasons"] == ["call.path.system", "call.look"]
    assert result["risk_seed"] == {"score": 40, "reasons": ["the path contains /etc"]}


async def test_a_terminal_is_marked(place: Place) -> None:
    async with place.start({"process": {"cmd": "/bin/bash"}, "pty": {"size": {"cols": 80, "rows": 24}}}) as response:
        await response.read()

    assert place.tap.of("command.start", "intent")[0]["details"] == {"pty": True}


async def test_the_arguments_themselves_go_nowhere(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    async with place.start({"process": {"cmd": "unique-argument", "envs": {"A": "unique-value"}}}) as response:
        await response.read()
    await until(lambda: place.tap.of("command.start", "result"))

    said = json.dumps(place.tap.events) + capfd.readouterr().err
    assert "unique-argument" not in said
    assert "unique-value" not in said


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"a":1,"a":2}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":NaN} x',
    ],
)
async def test_a_message_that_can_be_read_two_ways_is_refused(place: Place, body: bytes) -> None:
    headers = place.headers(Content_Type="application/json")
    async with place.http.post(f"{place.url}/filesystem.Filesystem/Stat", data=body, headers=headers) as response:
        if body == b"":
            assert response.status == 404
            return
        assert response.status == 400
        assert (await response.json())["code"] == "invalid_argument"
    assert place.guest.requests == []
    assert place.tap.events == []


async def test_only_so_many_results_wait(tmp_path: Path) -> None:
    tap = Tap(tmp_path / "tap.sock", Limits(waiting_results=3, intent_seconds=0.05))
    for number in range(5):
        tap.result({"number": number})
    assert tap.results_given_up == 2

    server = doubles.Tap(tmp_path / "tap.sock")
    task = asyncio.ensure_future(tap.run())
    server.events = []
    received: list[int] = server.events  # type: ignore[assignment]
    async with server:
        await until(lambda: len(received) == 3)
        assert [one["number"] for one in server.events] == [2, 3, 4]
        # The numbers of what was given up are missing.
        assert [one["gateway_seq"] for one in server.events] == [3, 4, 5]
        assert len({one["gateway_id"] for one in server.events}) == 1
    task.cancel()


async def test_an_intent_is_not_kept_for_later(tmp_path: Path) -> None:
    tap = Tap(tmp_path / "tap.sock", Limits(intent_seconds=0.05))
    with pytest.raises(TapAway):
        await tap.intent({"number": 1})

    server = doubles.Tap(tmp_path / "tap.sock")
    task = asyncio.ensure_future(tap.run())
    async with server:
        await tap.intent({"number": 2})
        assert [(one["number"], one["gateway_seq"]) for one in server.events] == [(2, 2)]
    task.cancel()
