"""A signed file URL opens exactly one path of one sandbox for one operation, until its time."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlencode

import pytest

from corekit import tokens
from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, MALLORY, MALLORY_KEY, Place, read_answer, until

FILE = doubles.answer(200, b"content")


@pytest.fixture
def limits() -> Limits:
    """Allow few searches, so that the bound can be met."""
    return Limits(drain_seconds=0.2, signature_scans_per_second=6, signature_candidates=20)


@pytest.fixture(autouse=True)
def files(place: Place) -> None:
    """Let Alice's guest serve files."""
    place.guest.on("GET", "/files", FILE)
    place.guest.on("POST", "/files", FILE)


def signed(
    path: str, operation: str = "read", *, username: str = "", key: str = ALICE_KEY, at: int | None = None, **more: str
) -> str:
    """Return the query that the SDK puts into a file URL."""
    signature = tokens.file_signature(doubles.token(ALICE, key), path, operation, username, at)
    values = {"path": path, "username": username, "signature": signature}
    if at is not None:
        values["signature_expiration"] = str(at)
    return urlencode({key: value for key, value in (values | more).items() if value})


async def get(place: Place, query: str, **headers: str) -> tuple[int, object]:
    """Fetch a file URL with nothing but the URL."""
    status, _, body = await place.raw(f"GET /files?{query} HTTP/1.1", **headers)
    return status, body["message"] if isinstance(body, dict) else body


@pytest.mark.parametrize("path", ["/home/user/a.txt", "relative name.txt", "ü+&=%.txt", ""])
async def test_it_finds_the_sandbox_of_a_url(place: Place, path: str) -> None:
    assert await get(place, signed(path)) == (200, b"content")
    assert place.guest.requests[0].target.partition("?")[2] == urlencode({"path": path} if path else {})
    assert place.tap.of("file.read", "intent")[0]["key_id"] == ALICE_KEY


async def test_it_takes_a_url_on_the_sandboxes_own_host(place: Place) -> None:
    host = f"49983-{ALICE}.sbx.example"

    assert await get(place, signed("/a"), Host=host) == (200, b"content")
    assert await get(place, signed("/a"), Host=f"49983-{MALLORY}.sbx.example") == (502, "The sandbox was not found")


async def test_it_takes_a_user_name_and_a_time(place: Place) -> None:
    later = int(time.time()) + 60

    assert await get(place, signed("a", username="root", at=later)) == (200, b"content")
    assert place.guest.requests[0].target == "/files?path=a&username=root"


async def test_it_uploads_with_a_url(place: Place) -> None:
    query = signed("/a", "write")

    status, _, _ = await place.raw(
        f"POST /files?{query} HTTP/1.1", b"hello", Content_Length="5", Content_Type="application/octet-stream"
    )

    assert status == 200
    assert place.guest.requests[0].body == b"hello"


async def test_a_url_that_has_expired_says_so(place: Place) -> None:
    past = int(time.time()) - 1
    _, _, body = await place.raw(f"GET /files?{signed('/a', at=past)} HTTP/1.1")

    assert body == {"code": 401, "message": "signature is already expired"}
    assert place.guest.requests == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (signed("/a").replace("path=%2Fa", "path=%2Fb"), "invalid signature"),
        (signed("/a", "write"), "invalid signature"),
        (signed("/a", username="user").replace("user&", "root&"), "invalid signature"),
        (signed("/a", at=9_999_999_999, signature_expiration="9999999998"), "invalid signature"),
        (signed("/a", key=MALLORY_KEY), "invalid signature"),
        (signed("/a", signature="v2_abc"), "invalid signature"),
        ("path=/a&signature=", "invalid signature"),
    ],
)
async def test_a_wrong_signature_opens_nothing(place: Place, query: str, message: str) -> None:
    assert await get(place, query) == (401, message)
    assert place.guest.requests == []


async def test_a_revoked_key_voids_its_urls(place: Place) -> None:
    query = signed("/a")
    assert await get(place, query) == (200, b"content")
    place.edge.put(doubles.row(ALICE, place.guest.path, {}))
    await until(lambda: place.gateway.services.table.get(ALICE).grants == {})  # type: ignore[union-attr]

    assert await get(place, query) == (401, "invalid signature")


async def test_the_header_wins_over_the_signature(place: Place) -> None:
    wrong = place.headers(token="gh_x")

    assert await get(place, signed("/a"), **wrong) == (401, "access token present in header but does not match")
    assert await get(place, "path=/a&signature=v1_wrong", **place.headers()) == (200, b"content")


async def test_no_header_and_no_signature_is_refused(place: Place) -> None:
    assert await get(place, "path=/a", **place.headers(token="")) == (401, "missing signature query parameter")


@pytest.mark.parametrize(
    "query", ["signature_expiration=x", "path=%00", "path=%ff", "&".join("a=1" for _ in range(40))]
)
async def test_a_query_that_can_not_be_read_is_refused(place: Place, query: str) -> None:
    status, _ = await get(place, f"signature=v1_x&{query}")

    assert status == 400


async def test_raw_bytes_in_a_query_are_refused(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"GET /files?signature=v1_x&path=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (await read_answer(reader))[0] == 400
    writer.close()


async def test_the_guest_reads_the_path_that_was_signed(place: Place) -> None:
    assert await get(place, signed("/a") + "&path=/etc/shadow&x=/b;path=/c") == (200, b"content")
    assert place.guest.requests[0].target == "/files?path=%2Fa"


async def test_only_so_many_searches_are_made(place: Place) -> None:
    answers = [await get(place, "path=/a&signature=v1_guess") for _ in range(10)]

    assert answers.count((401, "invalid signature")) == 6
    assert answers[-1] == (429, "Too many file addresses were tried. Try again in a second.")


async def test_a_known_url_needs_no_search(place: Place) -> None:
    query = signed("/a")

    assert [await get(place, query) for _ in range(12)] == [(200, b"content")] * 12


async def test_only_so_many_sandboxes_are_searched(place: Place) -> None:
    place.edge.drop(ALICE)
    for number in range(30):
        place.edge.put(doubles.row(f"i{number}", place.guest.path, {ALICE_KEY: None}))
    place.edge.put(doubles.row(ALICE, place.guest.path, {ALICE_KEY: None}))
    await place.routes(31)

    assert await get(place, signed("/a")) == (401, "invalid signature")


async def test_a_browser_may_ask_first(place: Place) -> None:
    status, fields, _ = await place.raw(
        f"OPTIONS /files?{signed('/a')} HTTP/1.1", Origin="https://app.example", Access_Control_Request_Method="GET"
    )

    assert (status, fields["access-control-allow-origin"]) == (204, "*")
