"""Header fields that must not pass a sandbox's door, whichever way they are written."""

from __future__ import annotations

import pytest

from sandboxes.gateway import portfields
from sandboxes.gateway.http1 import AnswerHead
from tests.gateway import doubles
from tests.gateway.place import ALICE, Place
from tests.gateway.sites import Site

HOST = b"8080-ialice.sbx.example"


def leads_away(location: bytes, status: int = 302) -> bool:
    """Say whether an answer with this target is refused."""
    try:
        portfields.refuse_leading_away(AnswerHead(status, [(b"Location", location)]), HOST)
    except portfields.LeadsAway:
        return True
    return False


@pytest.mark.parametrize(
    "location",
    [
        b"/",
        b"/a?b=http://x/",
        b"a/b",
        b"?q",
        b"#f",
        b"",
        b"https://8080-IALICE.sbx.example/x",
        b"http://" + HOST,
        b"a?b:c",
    ],
)
def test_a_redirect_within_its_host_passes(location: bytes) -> None:
    assert not leads_away(location)


@pytest.mark.parametrize(
    "location",
    [
        b"https://evil.example/",
        b"//evil.example/",
        b"/\\evil.example/",
        b"\\\\evil.example",
        b"/\t/evil.example",
        b"https:evil.example",
        b"https:/evil.example",
        b"https://8080-ialice.sbx.example@evil.example/",
        b"https://8080-ialice.sbx.example:81/",
        b"https://8080-ialice.sbx.example.evil.example/",
        b"javascript:alert(1)",
        b"data:text/html,x",
    ],
)
def test_a_redirect_to_elsewhere_does_not(location: bytes) -> None:
    assert leads_away(location)


def test_a_location_that_nobody_follows_may_name_anything() -> None:
    assert not leads_away(b"https://evil.example/", status=201)


@pytest.mark.parametrize(("headers", "status"), [({"Host": f"8080-{ALICE}.sbx.example"}, 302), ({}, 502)])
async def test_only_on_its_own_host_a_server_leads_elsewhere(
    place: Place, headers: dict[str, str], status: int
) -> None:
    place.guest.open_port(8080, Site(doubles.answer(302, Location="https://login.example/")))

    assert (await place.raw("GET / HTTP/1.1", **(headers or place.headers(port=8080))))[0] == status


async def test_underscores_hide_nothing(place: Place) -> None:
    site = Site()
    place.guest.open_port(8080, site)

    await place.raw(
        "GET / HTTP/1.1\r\nX_Forwarded_For: 1.2.3.4\r\nx_access_token: a\r\nE2B_Traffic_Access_Token: b\r\nX_Mine: c",
        Host=f"8080-{ALICE}.sbx.example",
    )

    assert [(name, value) for name, value in site.requests[0].fields if name.lower() != "host"] == [
        ("X_Mine", "c"),
        ("X-Forwarded-For", "127.0.0.1"),
    ]
