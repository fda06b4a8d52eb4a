"""The agent's calls as they travel: framing, codes, keep-alive, ranges, and what stays closed."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.sdk.wire import envelope, messages, shell

if TYPE_CHECKING:
    from tests.sdk.wire import Agent

CODES = {"not_found": 404, "invalid_argument": 400, "unauthenticated": 401, "already_exists": 409, "unimplemented": 501}


def test_health_is_open_and_the_rest_is_not(agent: Agent) -> None:
    http = agent.wire.http
    assert http.get("/health", headers=agent.route).status_code == 204
    for method, path in (("GET", "/metrics"), ("GET", "/envs"), ("GET", "/files"), ("POST", "/process.Process/List")):
        for headers in (agent.route, {**agent.route, "X-Access-Token": "wrong"}):
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) in ((401, 401), (401, "unauthenticated")), path


@pytest.mark.parametrize(
    "path", ["/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade", "//init", "/./init"]
)
def test_what_the_platform_calls_is_closed(agent: Agent, path: str) -> None:
    assert agent.call("POST", path, json={}).status_code == 404


def test_metrics_and_variables(agent: Agent) -> None:
    metrics = agent.call("GET", "/metrics").json()
    names = {"ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "disk_used", "disk_total"}
    assert set(metrics) >= names
    assert 0 < metrics["mem_used"] < metrics["mem_total"]
    assert agent.call("GET", "/envs").json()["E2B_SANDBOX_ID"] == agent.id


def test_a_stream_has_its_frames_in_order(agent: Agent) -> None:
    said = agent.stream("process.Process/Start", shell("echo hi; exit 3"))
    assert [flags for flags, _ in said] == [0] * (len(said) - 1) + [2]
    assert said[0][1]["event"]["start"]["pid"] > 0
    assert base64.b64decode(said[1][1]["event"]["data"]["stdout"]) == b"hi\n"
    end = said[-2][1]["event"]["end"]
    assert (end["exitCode"], end["exited"], end["status"]) == (3, True, "exit status 3")
    assert "error" not in said[-1][1]


def test_errors_of_a_stream_come_with_status_200(agent: Agent) -> None:
    ((flags, message),) = agent.stream("process.Process/Connect", {"process": {"pid": 999_999}})
    assert (flags, message["error"]["code"]) == (2, "not_found")
    assert message["error"]["message"] == "process with pid 999999 not found"


def test_the_time_limit_of_a_stream_ends_the_process(agent: Agent) -> None:
    _, error = agent.run("sleep 765", **{"Connect-Timeout-Ms": "300"})
    assert error["code"] == "deadline_exceeded"
    assert agent.run("pgrep -fx 'sleep 765' || echo gone")[0] == "gone\n"


def test_silence_is_broken_by_keepalives(agent: Agent) -> None:
    said = agent.stream("process.Process/Start", shell("sleep 2.5"), **{"Keepalive-Ping-Interval": "1"})
    assert sum("keepalive" in message.get("event", {}) for _, message in said) >= 2


def test_output_arrives_while_the_command_runs(agent: Agent) -> None:
    http, began = agent.wire.http, time.monotonic()
    headers = {**agent.headers, "Content-Type": "application/connect+json"}
    request = envelope(shell("echo now; sleep 2"))
    with http.stream("POST", "/process.Process/Start", content=request, headers=headers) as answer:
        for _, message in messages(answer.iter_raw()):
            if "data" in message.get("event", {}):
                assert time.monotonic() - began < 1.5
                break


@pytest.mark.parametrize("number", [3, 4])
def test_exit_by_a_signal(agent: Agent, number: int) -> None:
    said = agent.stream("process.Process/Start", {"process": {"cmd": "/bin/sh", "args": ["-c", f"kill -{number} $$"]}})
    end = said[-2][1]["event"]["end"]
    assert (end["exitCode"], end.get("exited", False)) == (-1, False)
    assert end["status"].startswith("signal: ")


def test_signals_reach_the_process(agent: Agent) -> None:
    held = start(agent, shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"))
    held.heard(b"ready\n")
    pid = {"process": {"pid": held.pid}}
    assert agent.rpc("process.Process/SendSignal", {**pid, "signal": "SIGNAL_SIGTERM"}).json() == {}
    assert held.end()["exitCode"] == 9
    answer = agent.rpc("process.Process/SendSignal", {**pid, "signal": "SIGNAL_SIGTERM"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


class Held:
    """A process whose stream stays open."""

    def __init__(self, agent: Agent, request: Any) -> None:
        headers = {**agent.headers, "Content-Type": "application/connect+json"}
        self._open = agent.wire.http.stream(
            "POST", "/process.Process/Start", content=envelope(request), headers=headers
        )
        self._said = messages(self._open.__enter__().iter_raw())
        self.pid: int = next(self._said)[1]["event"]["start"]["pid"]

    def heard(self, output: bytes) -> None:
        """Return when the process has said that next."""
        said = next(message for _, message in self._said if "data" in message["event"])
        assert base64.b64decode(said["event"]["data"]["stdout"]) == output

    def end(self) -> dict[str, Any]:
        """Return the end event."""
        ends = [message["event"]["end"] for flags, message in self._said if not flags and "end" in message["event"]]
        self._open.__exit__(None, None, None)
        return dict(ends[0])


def start(agent: Agent, request: Any) -> Held:
    """Start a process and return once it runs."""
    return Held(agent, request)


def test_a_process_is_found_by_its_tag(agent: Agent) -> None:
    held = start(agent, {**shell("read line; exit 4"), "tag": "mine", "stdin": True})
    listed = agent.rpc("process.Process/List", {}).json()["processes"]
    assert [(process["pid"], process["tag"]) for process in listed if process.get("tag")] == [(held.pid, "mine")]
    line = {"process": {"tag": "mine"}, "input": {"stdin": base64.b64encode(b"go\n").decode()}}
    assert agent.rpc("process.Process/SendInput", line).status_code == 200
    assert held.end()["exitCode"] == 4


def test_a_finished_process_can_be_joined_for_its_end(agent: Agent) -> None:
    held = start(agent, shell("exit 6"))
    held.end()
    said = agent.stream("process.Process/Connect", {"process": {"pid": held.pid}})
    assert said[-2][1]["event"]["end"]["exitCode"] == 6


def test_stream_input_takes_frames_and_keepalives(agent: Agent) -> None:
    held = start(agent, {**shell("head -c 6 | grep -q abcdef"), "stdin": True})
    pieces = [{"start": {"process": {"pid": held.pid}}}, {"keepalive": {}}]
    pieces += [{"data": {"input": {"stdin": base64.b64encode(part).decode()}}} for part in (b"abc", b"def")]
    answer = agent.call(
        "POST",
        "/process.Process/StreamInput",
        content=iter([envelope(piece) for piece in pieces]),
        headers={"Content-Type": "application/connect+json"},
    )
    assert [flags for flags, _ in messages([answer.content])] == [0, 2]
    assert held.end().get("exitCode", 0) == 0


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("process.Process/SendInput", {"process": {"pid": 999_999}, "input": {"stdin": ""}}, "not_found"),
        ("process.Process/SendSignal", {"process": {"pid": 999_999}, "signal": "SIGNAL_SIGKILL"}, "not_found"),
        ("process.Process/CloseStdin", {"process": {"tag": "nobody"}}, "not_found"),
        ("process.Process/Update", {"process": {"pid": 999_999}, "pty": {"size": {"cols": 1, "rows": 1}}}, "not_found"),
        ("filesystem.Filesystem/Stat", {"path": "/no/where"}, "not_found"),
        ("filesystem.Filesystem/MakeDir", {"path": "/tmp"}, "already_exists"),
        ("filesystem.Filesystem/ListDir", {"path": "/etc/passwd", "depth": 1}, "invalid_argument"),
        ("filesystem.Filesystem/Move", {"source": "/no/where", "destination": "/tmp/x"}, "not_found"),
        ("filesystem.Filesystem/Stat", {"path": "~mallory/x"}, "invalid_argument"),
    ],
)
def test_unary_refusals_have_code_and_status(agent: Agent, name: str, message: Any, code: str) -> None:
    answer = agent.rpc(name, message)
    assert (answer.status_code, answer.json()["code"]) == (CODES[code], code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["message"]


def test_another_user_by_basic_authentication(agent: Agent) -> None:
    unknown = {"Authorization": "Basic " + base64.b64encode(b"mallory:").decode()}
    answer = agent.rpc("filesystem.Filesystem/Stat", {"path": "."}, **unknown)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    same = {"Authorization": "Basic " + base64.b64encode(b"user:").decode()}
    assert agent.rpc("filesystem.Filesystem/Stat", {"path": "."}, **same).json()["entry"]["path"] == "/home/user"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"path":5}', b"\xff"])
def test_malformed_messages_are_invalid(agent: Agent, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = agent.call("POST", "/filesystem.Filesystem/Stat", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


def test_names_in_the_other_style_and_numbers_for_enums(agent: Agent) -> None:
    held = start(agent, shell("sleep 50"))
    number = {"process": {"pid": str(held.pid)}, "signal": 9}
    assert agent.rpc("process.Process/SendSignal", number).status_code in (200, 400)
    agent.rpc("process.Process/SendSignal", {"process": {"pid": held.pid}, "signal": "SIGNAL_SIGKILL"})
    assert held.end()["exitCode"] == -1


def put(agent: Agent, path: str, content: bytes, **headers: str) -> Any:
    """Upload a file as bytes."""
    fields = {"Content-Type": "application/octet-stream", **headers}
    return agent.call("POST", "/files", params={"path": path}, content=content, headers=fields)


def test_ranges_and_conditions_of_a_download(agent: Agent) -> None:
    put(agent, "ranged", b"0123456789")
    get = {"params": {"path": "ranged"}}
    whole = agent.call("GET", "/files", headers={"Accept-Encoding": "identity"}, **get)
    assert (whole.content, whole.headers["Content-Length"]) == (b"0123456789", "10")
    # On a host that many sandboxes share, no browser shows what a guest made.
    assert whole.headers["Content-Disposition"].startswith('attachment; filename="ranged"')
    part = agent.call("GET", "/files", headers={"Range": "bytes=2-4"}, **get)
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert agent.call("GET", "/files", headers={"Range": "bytes=50-"}, **get).status_code == 416
    stamp = {"If-Modified-Since": whole.headers["Last-Modified"]}
    assert agent.call("GET", "/files", headers=stamp, **get).status_code == 304


def test_an_empty_download_has_a_length(agent: Agent) -> None:
    put(agent, "nothing", b"")
    answer = agent.call("GET", "/files", params={"path": "nothing"}, headers={"Accept-Encoding": "identity"})
    assert (answer.content, answer.headers["Content-Length"]) == (b"", "0")


def test_downloads_have_their_own_refusals(agent: Agent) -> None:
    for path, status in (("missing", 404), ("/tmp", 400), ("~mallory/x", 400)):
        answer = agent.call("GET", "/files", params={"path": path})
        assert (answer.status_code, answer.json()["code"]) == (status, status), path
    answer = agent.call("GET", "/files", params={"path": "x", "username": "mallory"})
    assert (answer.status_code, answer.json()["code"]) == (401, 401)


def test_uploads_of_several_files_in_one_form(agent: Agent) -> None:
    files = [("file", (f"form/{name}", name.encode())) for name in ("a", "b")] + [("other", ("c", b"c"))]
    answer = agent.call("POST", "/files", files=files)
    assert [entry["path"] for entry in answer.json()] == ["/home/user/form/a", "/home/user/form/b"]
    assert {entry["type"] for entry in answer.json()} == {"file"}


def test_uploads_have_their_own_refusals(agent: Agent) -> None:
    twice = agent.call("POST", "/files", files=[("file", ("same", b"1")), ("file", ("same", b"2"))])
    assert (twice.status_code, twice.json()["code"]) == (400, 400)
    assert "multiple files to the same path" in twice.json()["message"]
    text = agent.call("POST", "/files", params={"path": "x"}, content=b"x", headers={"Content-Type": "text/plain"})
    assert (text.status_code, "unsupported content type" in text.text) == (400, True)
    pathless = agent.call("POST", "/files", content=b"x", headers={"Content-Type": "application/octet-stream"})
    assert pathless.status_code == 400
    assert put(agent, "x", b"x", **{"Content-Encoding": "br"}).status_code == 400
    assert put(agent, "/tmp", b"x").status_code == 400


def test_composing_a_file_of_pieces(agent: Agent) -> None:
    for name, content in (("one", b"first "), ("two", b"second")):
        put(agent, f"pieces/{name}", content)
    wish = {"source_paths": ["pieces/one", "pieces/two"], "destination": "whole", "username": "user"}
    answer = agent.call("POST", "/files/compose", json=wish)
    assert (answer.status_code, answer.json()["path"]) == (200, "/home/user/whole")
    assert agent.call("GET", "/files", params={"path": "whole"}).content == b"first second"
    assert agent.call("GET", "/files", params={"path": "pieces/one"}).status_code == 404


def test_an_archive_is_a_file_like_any_other(agent: Agent) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("../../escape")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    assert put(agent, "evil.tar", packed.getvalue()).status_code == 200
    assert agent.run("ls -d /home/escape /escape ../../escape 2>/dev/null; stat -c %s evil.tar")[0].isdigit() is False
    assert agent.call("GET", "/files", params={"path": "evil.tar"}).content == packed.getvalue()


def test_browsers_may_ask_before_they_call(agent: Agent) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = agent.wire.http.request("OPTIONS", "/process.Process/List", headers={**agent.route, **asked})
    assert answer.status_code in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_unknown_procedures_are_unknown(agent: Agent) -> None:
    answer = agent.rpc("process.Process/Fly", {})
    assert answer.status_code in (404, 501)
    assert json.loads(answer.text)["code"] in (404, "unimplemented", "not_found")
