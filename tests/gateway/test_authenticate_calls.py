"""Only a token that the sandbox's own key made, for a key with a live right, opens a sandbox."""

from __future__ import annotations

import time

import pytest

from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, BOB_KEY, MALLORY, MALLORY_KEY, Place, until

UNAUTHORIZED = {
    "message": "unauthorized access, please provide a valid access token or method signing if supported",
    "code": 401,
}


async def refusal(place: Place, token: str) -> dict[str, object]:
    """Try to list Alice's processes with a token; return the body of the 401."""
    async with place.rpc("process.Process/List", {}, token=token) as response:
        assert response.status == 401
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return dict(await response.json(content_type=None))


async def test_a_granted_key_gets_in(place: Place) -> None:
    place.guest.on("POST", "/process.Process/List", doubles.answer(200, b'{"processes":[]}'))

    async with place.rpc("process.Process/List", {}) as response:
        assert response.status == 200
        assert await response.read() == b'{"processes":[]}'


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        f"gh_{ALICE_KEY}_{'0' * 64}",
        doubles.token(MALLORY, MALLORY_KEY),
        doubles.token(MALLORY, ALICE_KEY),
        doubles.token(ALICE, MALLORY_KEY),
        doubles.token(ALICE, BOB_KEY),
        doubles.token(ALICE, ALICE_KEY, generation=2),
        doubles.token(ALICE, ALICE_KEY).upper(),
        doubles.token(ALICE, ALICE_KEY) + "x",
    ],
    ids=[
        "none",
        "no token at all",
        "forged",
        "another sandbox's",
        "her key, another sandbox",
        "key of a stranger",
        "key without a grant",
        "older generation",
        "upper case",
        "longer",
    ],
)
async def test_a_stranger_is_refused_and_nothing_reaches_the_guest(place: Place, token: str) -> None:
    assert await refusal(place, token) == UNAUTHORIZED
    assert place.guest.requests == []
    assert place.tap.of("command.list", "intent") == []


async def test_a_refusal_is_on_record_once_a_second(place: Place) -> None:
    stranger = doubles.token(ALICE, MALLORY_KEY)
    for _ in range(5):
        await refusal(place, stranger)
    await until(lambda: place.tap.events)

    (event,) = place.tap.events
    assert (event["code"], event["phase"], event["outcome"]) == ("command.list", "fact", "refused")
    assert event["key_id"] is None
    assert event["details"]["claimed_key_id"] == MALLORY_KEY


async def test_an_expired_grant_is_no_right(place: Place) -> None:
    past = time.time_ns() // 1_000_000 - 1
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: past}))
    await until(lambda: place.gateway.services.table.get(ALICE).grants[ALICE_KEY].expires_at == past)  # type: ignore[union-attr]

    assert await refusal(place, doubles.token(ALICE, ALICE_KEY)) == UNAUTHORIZED


async def test_a_revoked_grant_is_no_right(place: Place) -> None:
    place.edge.put(doubles.row(ALICE, place.guest.path, {}))
    await until(lambda: place.gateway.services.table.get(ALICE).grants == {})  # type: ignore[union-attr]

    assert await refusal(place, doubles.token(ALICE, ALICE_KEY)) == UNAUTHORIZED


async def test_a_second_key_gets_in_with_its_own_token(place: Place) -> None:
    place.guest.on("POST", "/process.Process/List", doubles.answer(200, b"{}"))
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None, BOB_KEY: None}))
    await until(lambda: BOB_KEY in place.gateway.services.table.get(ALICE).grants)  # type: ignore[union-attr]

    async with place.rpc("process.Process/List", {}, token=doubles.token(ALICE, BOB_KEY)) as response:
        assert response.status == 200
    assert place.tap.events[0]["key_id"] == BOB_KEY


async def test_health_needs_no_token(place: Place) -> None:
    async with place.http.get(f"{place.url}/health", headers=place.headers(token="")) as response:
        assert response.status == 204
    assert place.tap.events == []


@pytest.mark.parametrize("path", ["/metrics", "/envs"])
async def test_metrics_and_variables_need_a_token(place: Place, path: str) -> None:
    place.guest.on("GET", path, doubles.answer(200, b"{}"))

    async with place.http.get(place.url + path, headers=place.headers(token="")) as response:
        assert response.status == 401
    async with place.http.get(place.url + path, headers=place.headers()) as response:
        assert response.status == 200


async def test_no_credential_reaches_the_guest(place: Place) -> None:
    place.guest.on("POST", "/process.Process/List", doubles.answer(200, b"{}"))
    headers = {
        "X_API_KEY": "e2b_" + "0" * 40,
        "Cookie": "sessionid=1",
        "Authorization": "Bearer secret",
        "Forwarded": "for=1.2.3.4",
        "X_Forwarded_For": "1.2.3.4",
    }

    async with place.rpc("process.Process/List", {}, **headers) as response:
        assert response.status == 200

    assert (
        place.guest.requests[0].names()
        & {
            "x-api-key",
            "x-access-token",
            "cookie",
            "authorization",
            "forwarded",
            "x-forwarded-for",
            "e2b-sandbox-id",
            "e2b-sandbox-port",
        }
        == set()
    )


async def test_a_user_name_reaches_the_guest(place: Place) -> None:
    place.guest.on("POST", "/process.Process/List", doubles.answer(200, b"{}"))

    async with place.rpc("process.Process/List", {}, Authorization="Basic cm9vdDo="):
        pass

    assert place.guest.requests[0].get("Authorization") == "Basic cm9vdDo="


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/init"),
        ("POST", "/freeze"),
        ("POST", "/upgrade"),
        ("POST", "/fsfreeze"),
        ("GET", "/"),
        ("GET", "/debug/pprof"),
        ("POST", "/process.Process/Nothing"),
        ("GET", "/process.Process/Start"),
        ("DELETE", "/files"),
        ("GET", "//files"),
        ("GET", "/Health"),
        ("GET", "/health/"),
        ("GET", "/%68ealth"),
    ],
)
async def test_control_routes_are_unknown_from_outside(place: Place, method: str, path: str) -> None:
    status, _, body = await place.raw(
        f"{method} {path} HTTP/1.1", **place.headers(), Content_Length="0" if method == "POST" else ""
    )

    assert status == 404
    assert body == {"message": "The requested path was not found", "path": path, "code": 404}
    assert place.guest.requests == []


@pytest.mark.parametrize("value", ["Basic !!!", "Basic /w==", "Basic YQpiOg==", "Basic " + "QUFB" * 100])
async def test_a_bad_user_name_is_refused_instead_of_ignored(place: Place, value: str) -> None:
    async with place.rpc("process.Process/List", {}, Authorization=value) as response:
        assert response.status == 400
        assert (await response.json())["code"] == "invalid_argument"
    assert place.guest.requests == []
