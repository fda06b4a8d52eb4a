"""The vendors' own Python clients work with the broker by base URL and token alone, and show its errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from tests.broker import front, models
from tests.broker.proxyplace import KEY, Place, one_vendor, place, vendor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Peer, Request

__all__ = ["one_vendor", "place", "vendor"]

pytestmark = pytest.mark.django_db(transaction=True)
MODEL = "claude-of-tests"
QUESTION: Any = [{"role": "user", "content": "Who is it?"}]
ANSWER = "Hello, Alice!"


@pytest.fixture
def url(place: Place) -> Iterator[str]:
    """Return where the broker is, as a sandbox would see it, with both vendors' names leading to the double."""
    place.service("openai", tenant=None, kind="openai")
    place.service("anthropic", tenant=None, kind="anthropic", slot="header:x-api-key")
    with front.running(place.web.broker) as address:
        yield address


@pytest.fixture
def asked_openai(place: Place, url: str) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client with a token for chat completions."""
    place.vendor.behave = models.openai
    token = place.token(service="", allowed_apis=["openai/chat/completions"], allow=())
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key=token) as client:
        yield client


@pytest.fixture
def asked_anthropic(place: Place, url: str) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's client with a token for messages."""
    place.vendor.behave = models.anthropic
    token = place.token(service="", allowed_apis=["anthropic/messages"], allow=())
    with anthropic.Anthropic(base_url=f"{url}/anthropic", api_key=token) as client:
        yield client


def test_openai_answers(place: Place, asked_openai: openai.OpenAI) -> None:
    made = asked_openai.chat.completions.create(model="gpt-4o", messages=QUESTION)

    assert made.choices[0].message.content == ANSWER
    request = place.vendor.requests[0]
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json() == {"model": "gpt-4o", "messages": QUESTION}
    assert place.events("token.redeemed")[0].details["usage"] == 13


def test_openai_streams(place: Place, asked_openai: openai.OpenAI) -> None:
    stream = asked_openai.chat.completions.create(
        model="gpt-4o", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )

    words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]

    assert [word for word in words if word] == list(models.WORDS)
    assert place.events("token.redeemed")[0].details["usage"] == 13


def test_openai_streams_without_usage_are_estimated(place: Place, asked_openai: openai.OpenAI) -> None:
    for _ in asked_openai.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True):
        pass

    sent = len(place.vendor.requests[0].body)
    assert place.events("token.redeemed")[0].details["usage"] == len(models.WORDS) + 2 + sent // 4


def test_anthropic_answers(place: Place, asked_anthropic: anthropic.Anthropic) -> None:
    made = asked_anthropic.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    assert [part.text for part in made.content if part.type == "text"] == [ANSWER]
    request = place.vendor.requests[0]
    assert (request.method, request.target) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"][:2] == "20"
    assert "authorization" not in request.headers
    assert place.events("token.redeemed")[0].details["usage"] == 13


def test_anthropic_streams(place: Place, asked_anthropic: anthropic.Anthropic) -> None:
    with asked_anthropic.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream:
        words = list(stream.text_stream)

    assert words == list(models.WORDS)
    assert place.events("token.redeemed")[0].details["usage"] == 13


def test_a_call_that_the_token_does_not_name_shows_why_once(place: Place, asked_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="This token is not valid for this request"):
        asked_openai.models.list()

    assert place.vendor.requests == []
    # The client was told that trying again does not help.
    assert len(place.events("token.refused")) == 1


def test_a_used_token_shows_why_once(place: Place, url: str) -> None:
    place.vendor.behave = models.anthropic
    token = place.token(service="", allowed_apis=["anthropic/messages"], allow=(), max_uses=1)
    client = anthropic.Anthropic(base_url=f"{url}/anthropic", api_key=token)
    client.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    with pytest.raises(anthropic.AuthenticationError, match="This token is not valid for this request") as refused:
        client.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    assert refused.value.status_code == 401
    assert len(place.events("token.reused")) == 1


def test_a_secret_that_the_vendor_refuses_shows_no_part_of_it(place: Place, asked_openai: openai.OpenAI) -> None:
    async def refuse(_request: Request, peer: Peer) -> None:
        await peer.answer({"error": {"message": f"Incorrect API key provided: {KEY[:8]}*{KEY[-4:]}"}}, 401)

    place.vendor.behave = refuse

    with pytest.raises(openai.InternalServerError, match="The service refused the secret") as refused:
        asked_openai.chat.completions.create(model="gpt-4o", messages=QUESTION)

    assert refused.value.code == "upstream_refused"
    assert KEY[-4:] not in str(refused.value)
    assert len(place.vendor.requests) == 1


def test_an_error_of_the_vendor_stays_its_own(place: Place, asked_anthropic: anthropic.Anthropic) -> None:
    async def overflow(_request: Request, peer: Peer) -> None:
        error = {"type": "invalid_request_error", "message": "max_tokens: too many"}
        await peer.answer({"type": "error", "error": error}, 400)

    place.vendor.behave = overflow

    with pytest.raises(anthropic.BadRequestError, match="max_tokens: too many"):
        asked_anthropic.messages.create(model=MODEL, max_tokens=9999, messages=QUESTION)


def test_a_stream_that_breaks_off_is_an_error_of_the_client(place: Place, asked_openai: openai.OpenAI) -> None:
    async def die(_request: Request, peer: Peer) -> None:
        await peer.begin_chunks()
        await peer.chunk(b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "Hel"}}]}).encode())
        await peer.chunk(b"\n\n")
        peer.writer.transport.abort()

    place.vendor.behave = die
    stream = asked_openai.chat.completions.create(model="gpt-4o", messages=QUESTION, stream=True)

    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIConnectionError):
        next(stream)


def test_a_service_that_is_away_is_tried_again_by_the_client(place: Place, asked_openai: openai.OpenAI) -> None:
    calls = 0

    async def stumble(request: Request, peer: Peer) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await peer.answer({"error": {"message": "overloaded"}}, 503, {"Retry-After": "0"})
        else:
            await models.openai(request, peer)

    place.vendor.behave = stumble

    made = asked_openai.chat.completions.create(model="gpt-4o", messages=QUESTION)

    assert (made.choices[0].message.content, calls) == (ANSWER, 2)
