"""A path that two readers could read in two ways is refused, and what is sent on is what was matched."""

from __future__ import annotations

import pytest

from tenants.broker import paths
from tenants.broker.paths import BadPath, Place
from tests.broker.proxyplace import Place as Broker
from tests.broker.proxyplace import one_vendor, place, vendor

__all__ = ["one_vendor", "place", "vendor"]


@pytest.mark.parametrize(
    ("raw", "service", "segments"),
    [
        (b"/openai/v1/chat/completions", "openai", ("v1", "chat", "completions")),
        (b"/github/repos/a.b/c_d~e/contents/a@b:c,d", "github", ("repos", "a.b", "c_d~e", "contents", "a@b:c,d")),
        (b"/vendor", "vendor", ("",)),
        (b"/vendor/", "vendor", ("",)),
        (b"/vendor/a%20b/%c3%a9", "vendor", ("a%20b", "%C3%A9")),
        (b"/vendor/...", "vendor", ("...",)),
    ],
)
def test_a_plain_path_is_its_segments(raw: bytes, service: str, segments: tuple[str, ...]) -> None:
    assert paths.read(raw, b"") == Place(service, segments, "")


BAD = [
    b"/vendor//v1",
    b"/vendor/v1/",
    b"/vendor/../web",
    b"/vendor/v1/..",
    b"/vendor/./v1",
    b"/vendor/%2e%2e/web",
    b"/vendor/%2E/web",
    b"/vendor/.%2e/web",
    b"/vendor/v1%2fadmin",
    b"/vendor/v1%2Fadmin",
    b"/vendor/v1%5cadmin",
    b"/vendor/v1\\admin",
    b"/vendor/v1%00",
    b"/vendor/v1%0d%0aHost:%20x",
    b"/vendor/v1%7f",
    b"/vendor/v1;a=b",
    b"/vendor/v1%3ba=b",
    b"/vendor/%252e%252e/web",
    b"/vendor/%76%31",
    b"/vendor/v1%",
    b"/vendor/v1%2",
    b"/vendor/v1%zz",
    b"/vendor/v1%ff",
    b"/vendor/\xc3\xa9",
    b"/vendor/v 1",
    b"/vendor/v1#x",
    b'/vendor/"v1"',
    b"/vendor/<v1>",
    b"",
    b"/",
    b"//vendor/v1",
    b"vendor/v1",
    b"/../vendor",
    b"/Vendor/v1",
    b"/vendor%2f/v1",
    b"http://vendor/v1",
    b"/vendor/" + b"a/" * 64 + b"a",
    b"/vendor/" + b"a" * 9000,
]


@pytest.mark.parametrize("raw", BAD)
def test_any_other_path_is_refused(raw: bytes) -> None:
    with pytest.raises(BadPath):
        paths.read(raw, b"")


@pytest.mark.parametrize("query", [b"a=1&b=%2f%00", b"a[]=1&b={x}|y", b"q=a+b%20c", b""])
def test_a_query_passes_as_it_is(query: bytes) -> None:
    assert paths.url("https://vendor.test/", paths.read(b"/vendor/a", query)) == (
        "https://vendor.test/a" + (f"?{query.decode()}" if query else "")
    )


@pytest.mark.parametrize(
    "query", [b"a b", b"a\r\nb", b"\xff", b"a#b", b"key=sbx_l0123", b"key=s%62x_l0123", b"key=sbx%5fl0123", b'"']
)
def test_another_query_is_refused(query: bytes) -> None:
    with pytest.raises(BadPath):
        paths.read(b"/vendor/a", query)


@pytest.mark.django_db(transaction=True)
class TestThroughTheListener:
    @pytest.mark.parametrize(
        "path",
        ["/vendor/v1/../admin", "/vendor/v1%2fthings", "/vendor//v1", "/vendor/v1;x", "/vendor/%2e%2e/v1", "/x y"],
    )
    def test_a_bad_path_is_refused_and_recorded(self, place: Broker, path: str) -> None:
        answer = place.ask(path=path.replace(" ", "%20"))

        assert (answer.status, answer.code) == (400, "bad_path")
        assert place.vendor.requests == []
        assert place.events("token.refused")[0].reason == "path"

    def test_a_token_in_the_query_is_refused_and_not_repeated(self, place: Broker) -> None:
        token = place.token()

        answer = place.ask(path=f"/vendor/v1/things?key={token}", token=None)

        assert (answer.status, answer.code) == (400, "bad_path")
        assert token.encode() not in answer.body
        assert place.events("token.refused")[0].reason == "path"

    @pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND", "CONNECT", "get"])
    def test_another_method_is_refused_and_recorded(self, place: Broker, method: str) -> None:
        assert place.ask(method).status in (400, 405)
        assert place.vendor.requests == []

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/vendor/v1/chat/completions"), ("POST", "/vendor/v1/chat"), ("POST", "/vendor/v1/chat/Completions")],
    )
    def test_a_call_that_the_token_does_not_name_is_refused(self, place: Broker, method: str, path: str) -> None:
        allow = ({"methods": ["POST"], "paths": ["/v1/chat/completions"]},)
        token = place.token(allow=allow, max_uses=1)

        answer = place.ask(method, path, token=token)

        assert (answer.status, answer.code) == (401, "token_refused")
        assert place.vendor.requests == []
        assert place.ask("POST", "/vendor/v1/chat/completions", b"{}", token=token).status == 200
