"""`Secret` of the unchanged SDK, in both of its faces, against a running Gatehouse."""

from __future__ import annotations

import inspect
import re
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from e2b import (
    AsyncSecret,
    AuthenticationException,
    Secret,
    SecretException,
    SecretNotFoundException,
)

from corekit.needles import Needles

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live import Stack


@pytest.fixture(params=[Secret, AsyncSecret], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Any:
    """Return one face of the SDK."""
    return request.param


@pytest.fixture
def api(stack: Stack) -> dict[str, Any]:
    """Return the options that point the SDK at the stack."""
    return {"api_key": stack.key, "api_url": stack.url}


@pytest.fixture
def name() -> str:
    """Return a name that no other test uses."""
    return f"key-{secrets.token_hex(4)}"


def read(path: Path) -> bytes:
    """Return what a file holds; nothing for what is none, or is gone again."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


async def ok(answer: Any) -> Any:
    """Return what a call of either face answers."""
    return await answer if inspect.isawaitable(answer) else answer


async def test_a_secret_lives_its_life(face: Any, api: dict[str, Any], name: str) -> None:
    made = await ok(face.create(name.upper(), "sk-first", metadata={"team": "search"}, **api))
    assert (made.name, made.version, made.metadata) == (name, 1, {"team": "search"})
    assert made.secret_id.startswith("sec_")
    assert made.created_at == made.updated_at

    second = await ok(face.update(name, "sk-second", **api))
    assert (second.secret_id, second.version, second.metadata) == (made.secret_id, 2, {"team": "search"})
    third = await ok(face.update(made.secret_id, "sk-third", metadata={"team": "ads"}, **api))
    assert (third.version, third.metadata) == (3, {"team": "ads"})
    assert third.updated_at > made.updated_at

    shown = await ok(face.get_info(name, **api))
    assert shown == third
    assert await ok(face.exists(made.secret_id, **api))
    assert await ok(face.destroy(name, **api))
    assert not await ok(face.destroy(name, **api))
    assert not await ok(face.exists(name, **api))
    with pytest.raises(SecretNotFoundException):
        await ok(face.get_info(made.secret_id, **api))
    with pytest.raises(SecretNotFoundException):
        await ok(face.update(name, "sk-fourth", **api))


async def test_the_list_is_read_page_by_page(face: Any, api: dict[str, Any], name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for one in names:
        await ok(face.create(one, "x", **api))

    pages, pager = [], face.list(limit=2, **api)
    while pager.has_next:
        pages.append(await ok(pager.next_items()))

    assert max(map(len, pages)) == 2
    found = [one.name for page in pages for one in page]
    assert [one for one in found if one in names] == names
    for one in names:
        await ok(face.destroy(one, **api))


@pytest.mark.parametrize(("wrong", "value"), [("a b", "x"), ("sec_a", "x"), ("a", ""), ("a", "x\r\nHost: evil")])
async def test_a_mistake_is_told(face: Any, api: dict[str, Any], wrong: str, value: str) -> None:
    with pytest.raises(SecretException, match="400"):
        await ok(face.create(wrong, value, **api))


async def test_a_name_that_is_taken_is_told(face: Any, api: dict[str, Any], name: str) -> None:
    await ok(face.create(name, "x", **api))
    with pytest.raises(SecretException, match=f"409: There is a secret {name} already"):
        await ok(face.create(name, "y", **api))
    await ok(face.destroy(name, **api))


async def test_without_a_key_nothing_is_shown(face: Any, api: dict[str, Any], name: str) -> None:
    with pytest.raises(AuthenticationException):
        await ok(face.exists(name, **api | {"api_key": "e2b_" + "0" * 40}))


def test_no_file_of_the_running_system_holds_a_value(stack: Stack, api: dict[str, Any], name: str) -> None:
    canary = f"canary-{secrets.token_hex(16)}".encode()
    Secret.create(name, canary.decode(), metadata={"kept": "yes"}, **api)
    Secret.update(name, canary.decode(), **api)
    with pytest.raises(SecretException):
        Secret.create(name, canary.decode(), **api)
    assert stack.rest("GET", f"secrets/{name}")["current_version"] == 2

    needles = Needles([canary])
    searched = {path: read(path) for path in stack.home.rglob("*") if not {"templates", "node"} & {*path.parts}}
    assert {stack.log, stack.home / "keys" / "vault.key"} < set(searched)
    assert [path for path, data in searched.items() if needles.found_in(data)] == []
    Secret.destroy(name, **api)


def test_the_master_key_is_changed_under_load_without_one_failed_request(stack: Stack, api: dict[str, Any]) -> None:
    names = [f"key-{secrets.token_hex(4)}" for _ in range(4)]
    for one in names:
        Secret.create(one, "sk-first", **api)
    web, over = stack.pid_of("web"), threading.Event()

    def write(one: str) -> int:
        version = 1
        while not over.is_set():
            version = Secret.update(one, f"sk-{version}", **api).version
        return version

    with ThreadPoolExecutor(len(names)) as pool:
        writers = [pool.submit(write, one) for one in names]
        said = [stack.manage("vault", "rotate").stdout for _ in range(2)]
        over.set()
        versions = [one.result(60) for one in writers]

    assert all(line.startswith("the newest master key is ") for line in said)
    assert min(versions) > 1
    assert [Secret.get_info(one, **api).version for one in names] == versions
    assert stack.pid_of("web") == web
    newest, *older = re.findall(r"^([0-9a-f]{16}) ", stack.manage("vault", "status").stdout, re.MULTILINE)
    for one in older:
        stack.manage("vault", "retire", one)
    # Web goes on with what is left.
    assert Secret.update(names[0], "sk-last", **api).version == versions[0] + 1
    assert re.findall(r"^([0-9a-f]{16}) ", stack.manage("vault", "status").stdout, re.MULTILINE) == [newest]
    for one in names:
        Secret.destroy(one, **api)
