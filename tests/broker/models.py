"""What two vendors of models answer on the wire, as far as their own clients read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Peer, Request

WORDS = ("Hello", ", ", "Alice", "!")


async def openai(request: Request, peer: Peer) -> None:
    """Answer as OpenAI's chat completions do."""
    asked = request.json()
    if asked.get("stream"):
        await peer.chunked(*_openai_events(asked), headers={"x-request-id": "req_7"})
        return
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    await peer.answer(_openai(asked, "chat.completion", choices=[choice], usage=usage))


def _openai(asked: dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_795_000_000, "model": asked["model"], **more}


def _openai_events(asked: dict[str, Any]) -> Iterator[bytes]:
    kind = "chat.completion.chunk"
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        yield _data(_openai(asked, kind, choices=[choice]))
    yield _data(_openai(asked, kind, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    if asked.get("stream_options", {}).get("include_usage"):
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        yield _data(_openai(asked, kind, choices=[], usage=usage))
    yield b"data: [DONE]\n\n"


async def anthropic(request: Request, peer: Peer) -> None:
    """Answer as Anthropic's messages do."""
    asked = request.json()
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"]}
    if asked.get("stream"):
        await peer.chunked(*_anthropic_events(message))
        return
    content = [{"type": "text", "text": "".join(WORDS)}]
    usage = {"input_tokens": 9, "output_tokens": 4}
    await peer.answer({**message, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage})


def _anthropic_events(message: dict[str, Any]) -> Iterator[bytes]:
    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**begun, "usage": {"input_tokens": 9, "output_tokens": 1}})
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in WORDS:
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield _event("content_block_stop", index=0)
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": 4})
    yield _event("message_stop")


def _data(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _event(kind: str, **content: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + _data({"type": kind, **content})
