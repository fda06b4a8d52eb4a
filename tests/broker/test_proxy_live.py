"""Code inside a sandbox calls a model by the broker's name, on a complete system, and never has the key."""

from __future__ import annotations

import importlib.metadata
import io
import json
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2b import CommandExitException, Sandbox

from tests.broker import models
from tests.broker import vendor as vendors
from tests.broker.livestack import KEY, brokered_stack, issue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Vendor
    from tests.live import Stack

pytestmark = pytest.mark.stack

URL = "http://broker.gatehouse.internal/openai/v1"
CHAT = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Who is it?"}]}'
# OpenAI's client and what it needs.
PACKAGES = (
    *("openai", "httpx2", "httpcore2", "h11", "anyio", "sniffio", "idna", "truststore", "jiter"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection"),
)
PROGRAM = """
import openai, sys
client = openai.OpenAI()
asked = dict(model="gpt-4o", messages=[{"role": "user", "content": "Who is it?"}])
print(client.chat.completions.create(**asked).choices[0].message.content)
print([chunk.choices[0].delta.content for chunk in client.chat.completions.create(stream=True, **asked)])
try:
    client.models.list()
except openai.AuthenticationError as error:
    print(error.status_code, error.body["message"])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """The vendor of models, on loopback."""
    with vendors.running(tmp_path_factory.mktemp("model")) as vendor:
        vendor.behave = models.openai
        yield vendor


@pytest.fixture(scope="module")
def brokered(model: Vendor) -> Iterator[Stack]:
    """A Gatehouse whose `openai` leads to the double, and whose only tenant has the secret `openai-key`."""
    with brokered_stack(model.base_url, model.authority.pem) as running:
        yield running


@pytest.fixture(params=["base", "base-process", "base-gvisor"])
def box(request: pytest.FixtureRequest, brokered: Stack, model: Vendor) -> Iterator[Sandbox]:
    """A sandbox of each way to isolate, without any right to the network."""
    model.requests.clear()
    options: Any = {"allow_internet_access": False, "timeout": 120}
    box = Sandbox.create(str(request.param), **options, **brokered.sdk)
    yield box
    box.kill()


def run(box: Sandbox, command: str, **envs: str) -> str:
    """Return what a command prints, also where it fails."""
    try:
        return box.commands.run(command, envs=envs, timeout=60).stdout
    except CommandExitException as error:
        return f"{error.stdout}\n{error.stderr}"


def curl(box: Sandbox, text: str, *options: str) -> str:
    """Ask the model with curl."""
    asked = f"-sS --max-time 20 -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
    return run(box, f"curl {asked} -d '{CHAT}' {' '.join(options)} {URL}/chat/completions")


def test_curl_asks_a_model_and_never_sees_the_key(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    text = issue(brokered, box)

    answer = json.loads(curl(box, text))

    assert answer["choices"][0]["message"]["content"] == "Hello, Alice!"
    assert model.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in run(box, "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "Hello" in curl(box, text, "--proxy", "http://127.0.0.1:3128")
    events = until_events(brokered, box, "token.redeemed", 2)
    assert {(event["details"]["service"], event["details"]["usage"]) for event in events} == {("openai", 13)}


def test_the_openai_package_needs_the_base_url_only(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    box.files.write("packages.tar.gz", packages())
    box.files.write("ask.py", PROGRAM)
    run(box, "mkdir packages && tar -xzf packages.tar.gz -C packages")

    said = run(box, "python3 ask.py", PYTHONPATH="packages", OPENAI_API_KEY=issue(brokered, box), OPENAI_BASE_URL=URL)

    assert said.splitlines() == [
        "Hello, Alice!",
        "['Hello', ', ', 'Alice', '!', None]",
        "401 This token is not valid for this request.",
    ]
    assert [request.headers["authorization"] for request in model.requests] == [f"Bearer {KEY}"] * 2


def test_another_sandbox_has_nothing_of_the_token(brokered: Stack, model: Vendor, box: Sandbox) -> None:
    other = Sandbox.create("base-process", timeout=60, **brokered.sdk)
    text = issue(brokered, other, max_uses=1)

    # What a sandbox says of who it is does not count.
    lies = [f"-H '{name}'" for name in (f"Gatehouse-Sandbox-Id: {other.sandbox_id}", "Gatehouse-Sandbox-Generation: 1")]
    answer = json.loads(curl(box, text, *lies))

    assert answer["error"]["code"] == "token_refused"
    assert model.requests == []
    assert until_events(brokered, box, "token.refused")[0]["reason"] == "other_sandbox"
    assert "Hello" in curl(other, text)
    other.kill()


def packages() -> bytes:
    """Return OpenAI's client as this checkout has it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name in PACKAGES:
            for file in importlib.metadata.distribution(name).files or ():
                path = Path(str(file.locate()))
                if path.suffix != ".pyc" and path.is_file() and ".." not in file.parts:
                    archive.add(path, str(file))
    return made.getvalue()


def until_events(stack: Stack, box: Sandbox, code: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the events of a code once there are so many."""
    deadline = time.monotonic() + 20
    while True:
        found: list[dict[str, Any]] = stack.rest("GET", f"audit-events?sandbox_id={box.sandbox_id}&code={code}")[
            "items"
        ]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
