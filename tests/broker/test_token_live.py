"""On a complete system: an agent's backend gives its sandbox a token, and takes it away in every way there is."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from e2b import CommandExitException, Sandbox

from tests.broker import models
from tests.broker import vendor as vendors
from tests.broker.livestack import KEY, brokered_stack, issue
from tests.live import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Peer, Request, Vendor
    from tests.live import Stack

pytestmark = pytest.mark.stack

URL = "http://broker.gatehouse.internal/openai/v1/chat/completions"
CHAT = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Who is it?"}]}'
PATIENCE_S = 20


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """The vendor of models, on loopback."""
    with vendors.running(tmp_path_factory.mktemp("model")) as vendor:
        yield vendor


@pytest.fixture(scope="module")
def brokered(one_model: Vendor) -> Iterator[Stack]:
    """A Gatehouse whose `openai` leads to the double, and whose only tenant has the secret `openai-key`."""
    with brokered_stack(one_model.base_url, one_model.authority.pem) as running:
        yield running


@pytest.fixture
def model(one_model: Vendor) -> Vendor:
    """The vendor as new."""
    one_model.requests.clear()
    one_model.ended, one_model.connections = 0, 0
    one_model.behave = models.openai
    return one_model


@pytest.fixture
def box(brokered: Stack, model: Vendor) -> Iterator[Sandbox]:
    """A sandbox without any right to the network."""
    options: Any = {"allow_internet_access": False, "timeout": 120}
    box = Sandbox.create("base", **options, **brokered.sdk)
    yield box
    box.kill()


def ask(box: Sandbox, text: str) -> dict[str, Any]:
    """Return what a call from inside is answered."""
    asked = f"-sS --max-time 20 -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
    said: dict[str, Any] = json.loads(box.commands.run(f"curl {asked} -d '{CHAT}' {URL}", timeout=30).stdout)
    return said


def refused(box: Sandbox, text: str) -> str:
    """Return the code with which a call from inside is refused."""
    return str(ask(box, text)["error"]["code"])


def reasons(stack: Stack, box: Sandbox, code: str = "token.refused") -> list[str]:
    """Return why calls of the sandbox were refused, the newest first."""
    rows = stack.rest("GET", f"audit-events?sandbox_id={box.sandbox_id}&code={code}")["items"]
    return [row["reason"] for row in rows]


def until_event(stack: Stack, box: Sandbox, code: str) -> dict[str, Any]:
    """Return the first event of a code, once there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rows: list[dict[str, Any]] = stack.rest("GET", f"audit-events?sandbox_id={box.sandbox_id}&code={code}")["items"]
        if rows:
            return rows[-1]
        assert time.monotonic() < deadline, f"no {code}"
        time.sleep(0.1)


async def endless(request: Request, peer: Peer) -> None:
    """Begin an answer and go on until nobody listens."""
    await peer.begin_chunks()
    await peer.chunk(b"data: Hello\n\n")
    await peer.gone()


async def indiscreet(request: Request, peer: Peer) -> None:
    """Send back what came, the key too."""
    await peer.answer({"you_sent": request.headers})


def test_the_example_asks_a_model_with_a_key_that_its_sandbox_never_has(brokered: Stack, model: Vendor) -> None:
    environment = {
        **brokered.environment,
        "E2B_API_KEY": brokered.key,
        "E2B_API_URL": brokered.url,
        "E2B_SANDBOX_URL": brokered.url,
    }

    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "secrets" / "summarise.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Hello, Alice!" in done.stdout
    (request,) = model.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "sbx_" not in str(request.fields)
    assert KEY not in done.stdout + done.stderr


def test_a_second_use_of_a_one_time_token_calls_nobody(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    text = issue(brokered, box, max_uses=1)
    assert ask(box, text)["choices"][0]["message"]["content"] == "Hello, Alice!"

    assert refused(box, text) == "token_refused"

    assert len(model.requests) == 1
    again = until_event(brokered, box, "token.reused")
    assert (again["reason"], again["risk_score"]) == ("used_up", 65)


def test_a_token_that_its_provider_revokes_is_dead_inside_at_once(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    scoped_secrets = importlib.import_module("examples.secrets.scoped_secrets")
    provider = scoped_secrets.ScopedSecretProvider(brokered.url, brokered.key)
    with pytest.raises(scoped_secrets.TokenError) as wrong:
        provider.get_token(box.sandbox_id, "nobodys-key", ["openai/chat/completions"])
    assert (wrong.value.status, wrong.value.code, wrong.value.field) == (400, "invalid_input", "secret")
    token = provider.get_token(box.sandbox_id, "openai-key", ["openai/chat/completions"], max_uses=None)
    assert token["type"] == "scoped_token"
    assert scoped_secrets.environment(token) == {
        "OPENAI_API_KEY": token["token"],
        "OPENAI_BASE_URL": "http://broker.gatehouse.internal/openai/v1",
    }
    ask(box, token["token"])

    provider.revoke(box.sandbox_id, token)

    assert refused(box, token["token"]) == "token_refused"
    assert reasons(brokered, box) == ["revoked"]
    assert len(model.requests) == 1


def test_revoking_all_tokens_ends_a_stream_that_is_under_way(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    model.behave = endless
    text = issue(brokered, box, max_uses=None)
    asked = f"-sSN -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
    stream = box.commands.run(f"curl {asked} -d '{CHAT}' {URL}", background=True, timeout=60)
    model.wait(lambda vendor: vendor.requests)

    brokered.rest("DELETE", f"sandboxes/{box.sandbox_id}/tokens")

    with pytest.raises(CommandExitException) as ended:
        stream.wait()
    assert ended.value.stdout == "data: Hello\n\n"
    model.wait(lambda vendor: vendor.ended >= 1)
    assert refused(box, text) == "token_refused"


def test_a_kill_ends_its_stream_and_its_tokens(brokered: Stack, model: Vendor) -> None:
    options: Any = {"allow_internet_access": False, "timeout": 120}
    box, other = (Sandbox.create("base", **options, **brokered.sdk) for _ in range(2))
    model.behave = endless
    text = issue(brokered, box, max_uses=None)
    asked = f"-sSN -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
    box.commands.run(f"curl {asked} -d '{CHAT}' {URL}", background=True, timeout=60)
    model.wait(lambda vendor: vendor.requests)

    box.kill()

    model.wait(lambda vendor: vendor.ended >= 1)
    assert until_event(brokered, box, "token.voided")["reason"] == "sandbox_ended"
    assert refused(other, text) == "token_refused"
    assert reasons(brokered, other) == ["other_sandbox"]
    other.kill()


def test_the_end_of_its_time_ends_its_tokens(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    issue(brokered, box, max_uses=None)
    box.set_timeout(1)
    assert until_event(brokered, box, "token.voided")["reason"] == "sandbox_ended"
    (shown,) = brokered.rest("GET", f"sandboxes/{box.sandbox_id}/tokens")["items"]
    assert shown["end_reason"] == "sandbox_ended"


def test_a_secret_that_comes_back_voids_the_tokens_and_the_sandbox_runs_on(
    brokered: Stack, model: Vendor, box: Sandbox
) -> None:
    made = brokered.manage("apikey", "create", "--tenant", "default", "--name", "risk", "--scope=risk:write")
    mine, brokered.key = brokered.key, made.stdout.strip()
    levels = {"flag_at": 75, "pause_at": None, "refuse_at": None}
    brokered.rest("PUT", "risk-policy", levels | {"void_at": 85})
    brokered.key = mine
    text, other = issue(brokered, box, max_uses=None), issue(brokered, box, max_uses=None)
    model.behave = indiscreet

    assert KEY not in str(ask(box, text))

    assert until_event(brokered, box, "secret.reflected")["risk_score"] == 90
    assert until_event(brokered, box, "risk.tokens_voided")["details"]["threshold"] == 85
    model.behave = models.openai
    assert {refused(box, text), refused(box, other)} == {"token_refused"}
    assert reasons(brokered, box) == ["voided", "voided"]
    assert box.commands.run("echo still here").stdout == "still here\n"


def test_a_used_token_stays_used_when_web_dies(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    text, other = issue(brokered, box, max_uses=1), issue(brokered, box, max_uses=1)
    ask(box, text)
    brokered.kill("web")
    brokered.wait_until_answers()
    assert refused(box, text) == "token_refused"
    assert "choices" in ask(box, other)
