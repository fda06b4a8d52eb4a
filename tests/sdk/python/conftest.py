"""What the tests of every Python SDK share: an endpoint, a template, one sandbox a module, the sync and the async face.

Nothing here needs more than pytest and the SDK: an interpreter with an older SDK runs the same files, told by
GATEHOUSE_TEST_URL and GATEHOUSE_TEST_KEY where a stack runs.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest
from e2b import AsyncSandbox, Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# A template of each tier that carries the whole protocol.
TEMPLATES = ("base", "base-process")
_OPTIONS_OF_A_LIST = ("api_key", "api_url")


@pytest.fixture(scope="session")
def sdk(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options that point the SDK at the stack, with the first tenant's key."""
    os.environ["E2B_HTTP_VERSION"] = "1.1"
    url = os.environ.get("GATEHOUSE_TEST_URL")
    if url is None:
        options: dict[str, Any] = request.getfixturevalue("roomy_stack").sdk
        return options
    return {"api_key": os.environ["GATEHOUSE_TEST_KEY"], "api_url": url, "sandbox_url": url}


@pytest.fixture(scope="session")
def api(sdk: dict[str, Any]) -> dict[str, Any]:
    """Return the options of calls that concern no one sandbox."""
    return {name: sdk[name] for name in _OPTIONS_OF_A_LIST}


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    """Return the template that a test runs on, one of each tier."""
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox(sdk: dict[str, Any], template: str) -> Iterator[Sandbox]:
    """Return the sandbox that the tests of one module share."""
    sandbox = Sandbox.create(template, timeout=600, **sdk)
    yield sandbox
    sandbox.kill()


@pytest.fixture(params=["sync", "async"])
async def box(request: pytest.FixtureRequest, sandbox: Sandbox, sdk: dict[str, Any]) -> AsyncIterator[Any]:
    """Return the shared sandbox as one of the SDK's two faces; what it answers goes through `ok`."""
    if request.param == "sync":
        yield sandbox
    else:
        yield await AsyncSandbox.connect(sandbox.sandbox_id, timeout=600, **sdk)


@pytest.fixture(params=[Sandbox, AsyncSandbox], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Any:
    """Return one of the SDK's two classes, for tests that make sandboxes of their own."""
    return request.param


@pytest.fixture
def ok() -> Any:
    """Return what waits for an answer where the face is asynchronous and passes it on where it is not."""
    return _ok


async def _ok(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


@pytest.fixture
async def fresh(face: Any, sdk: dict[str, Any], template: str) -> AsyncIterator[Any]:
    """Return what makes sandboxes that are gone after the test, whatever it did to them."""
    made: list[Any] = []

    async def create(**options: Any) -> Any:
        sandbox = await _ok(face.create(options.pop("template", template), **{"timeout": 120, **sdk, **options}))
        made.append(sandbox)
        return sandbox

    yield create
    for sandbox in made:
        await _ok(sandbox.kill())


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """Return the name of a folder below the home directory that no other test uses."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
