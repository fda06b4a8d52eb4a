"""Servers in a sandbox, reached by host and by header: open ones, private ones, masked ones, closed ports."""

from __future__ import annotations

import json
import urllib.parse
from http.client import HTTPConnection
from typing import Any

import pytest

SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.headers.get("Content-Length", 0))
        body = {"method": self.command, "target": self.path, "host": self.headers["Host"], "size": size}
        self.rfile.read(size)
        text = json.dumps(body | {"token": self.headers.get("E2b-Traffic-Access-Token")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("listening", flush=True)
server.serve_forever()
"""


async def serve(box: Any, ok: Any, address: str, port: int) -> None:
    """Start a server and return when it listens."""
    await ok(box.files.write("server.py", SERVER))
    start = f"nohup python3 server.py {address} {port} >listening-{port} 2>&1 &"
    wait = f"timeout 10 sh -c 'until grep -q listening listening-{port}; do sleep 0.05; done'"
    await ok(box.commands.run(f"rm -f listening-{port}; {start} {wait}"))


def ask(url: str, target: str = "/", method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
    """Make a request at the one public address; return the status and the parsed answer."""
    address = urllib.parse.urlsplit(url)
    connection = HTTPConnection("127.0.0.1", address.port or 80, timeout=30)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def host_of(box: Any, port: int) -> str:
    """Return the name that the SDK gives a port."""
    host: str = box.get_host(port)
    assert host.startswith(f"{port}-{box.sandbox_id}.")
    return host


async def test_reached_by_host(box: Any, ok: Any, sdk: dict[str, Any]) -> None:
    await serve(box, ok, "0.0.0.0", 8001)
    host = host_of(box, 8001)
    status, seen = ask(sdk["sandbox_url"], "/a%2Fb?q=%2F&r=a+b", Host=host)
    assert (status, seen["target"], seen["host"]) == (200, "/a%2Fb?q=%2F&r=a+b", host)
    await ok(box.commands.run("pkill -f 'server.py 0.0.0.0 8001'"))


async def test_reached_by_header(box: Any, ok: Any, sdk: dict[str, Any]) -> None:
    await serve(box, ok, "127.0.0.1", 8002)
    fields: dict[str, Any] = {"E2b-Sandbox-Id": box.sandbox_id, "E2b-Sandbox-Port": "8002"}
    assert ask(sdk["sandbox_url"], **fields)[1]["method"] == "GET"
    status, seen = ask(sdk["sandbox_url"], "/", "DELETE", b"with a body", **fields)
    assert (status, seen["method"], seen["size"]) == (200, "DELETE", 11)
    await ok(box.commands.run("pkill -f 'server.py 127.0.0.1 8002'"))


async def test_a_closed_port_says_so(box: Any, sdk: dict[str, Any]) -> None:
    message = "The sandbox is running but port is not open"
    expected = {"sandboxId": box.sandbox_id, "message": message, "port": 9999, "code": 502}
    assert ask(sdk["sandbox_url"], Host=host_of(box, 9999)) == (502, expected)


async def test_a_dead_sandbox_says_so(fresh: Any, ok: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh()
    await ok(sandbox.kill())
    expected = {"sandboxId": sandbox.sandbox_id, "message": "The sandbox was not found", "code": 502}
    assert ask(sdk["sandbox_url"], Host=host_of(sandbox, 8000)) == (502, expected)


async def test_private_ports_open_to_their_token_only(fresh: Any, ok: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh(network={"allow_public_traffic": False})
    token = sandbox.traffic_access_token
    assert token
    await serve(sandbox, ok, "0.0.0.0", 8003)
    host = host_of(sandbox, 8003)
    status, body = ask(sdk["sandbox_url"], Host=host)
    assert (status, body["code"], "is missing" in body["message"]) == (403, 403, True)
    status, body = ask(sdk["sandbox_url"], Host=host, **{"e2b-traffic-access-token": "wrong"})
    assert (status, body["code"], "is invalid" in body["message"]) == (403, 403, True)
    status, seen = ask(sdk["sandbox_url"], Host=host, **{"e2b-traffic-access-token": token})
    assert (status, seen["token"]) == (200, None)
    await ok(sandbox.pause())
    again = await ok(sandbox.connect())
    assert again.traffic_access_token == token


async def test_open_ports_have_no_token(box: Any) -> None:
    assert box.traffic_access_token is None


async def test_the_host_can_be_masked(fresh: Any, ok: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh(network={"mask_request_host": "app.example.com:${PORT}"})
    await serve(sandbox, ok, "0.0.0.0", 8004)
    assert ask(sdk["sandbox_url"], Host=host_of(sandbox, 8004))[1]["host"] == "app.example.com:8004"
    assert (await ok(sandbox.get_info())).network["mask_request_host"] == "app.example.com:${PORT}"


@pytest.mark.parametrize("port", [53, 3128, 49983])
async def test_the_platforms_own_ports_are_closed(box: Any, sdk: dict[str, Any], port: int) -> None:
    assert ask(sdk["sandbox_url"], "/process.Process/List", "POST", b"{}", Host=host_of(box, port))[0] in (401, 502)


async def test_a_call_to_a_port_wakes_the_sandbox(fresh: Any, ok: Any, sdk: dict[str, Any]) -> None:
    sandbox = await fresh(lifecycle={"on_timeout": "pause", "auto_resume": True})
    await serve(sandbox, ok, "0.0.0.0", 8005)
    await ok(sandbox.pause())
    assert ask(sdk["sandbox_url"], Host=host_of(sandbox, 8005))[0] == 200
    assert await ok(sandbox.is_running()) is True
