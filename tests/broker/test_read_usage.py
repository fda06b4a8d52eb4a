"""What a model used is read from any vendor's answer, however it is cut, and never from what the model wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tenants.broker import usage
from tenants.broker.usage import UsageReader


def events(*said: Any) -> bytes:
    """Return a stream of events."""
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said)


CHAT = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 4}}
RESPONSE = {"input_tokens": 9, "output_tokens": 12, "output_tokens_details": {"reasoning_tokens": 3}}
MESSAGE = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 6}
ANSWERS = {
    "chat completions": (json.dumps({"choices": [], "usage": CHAT}, indent=2).encode(), 21),
    "chat completions, streamed": (events({"usage": None}, {"choices": []}, {"usage": CHAT}), 21),
    "responses": (json.dumps({"output": [], "usage": RESPONSE}).encode(), 21),
    "responses, streamed": (events({"type": "response.completed", "response": {"usage": RESPONSE}}), 21),
    "embeddings": (json.dumps({"usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode(), 8),
    "messages": (json.dumps({"content": [], "usage": MESSAGE}).encode(), 15),
    "messages, streamed": (
        events({"message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}, {"usage": {"output_tokens": 6}}),
        11,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "tokens"), ANSWERS.values(), ids=ANSWERS)
def test_each_vendors_answer_is_understood_however_it_is_cut(body: bytes, tokens: int) -> None:
    for size in (1, 2, 3, 7, 16, 50, len(body)):
        reader = UsageReader()
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        assert reader.tokens(0) == tokens, size


def test_what_the_model_wrote_is_no_report() -> None:
    reader = UsageReader()
    written = json.dumps({"usage": {"prompt_tokens": 10**9, "completion_tokens": 10**9}})
    reader.feed(json.dumps({"choices": [{"message": {"content": written}}], "usage": CHAT}).encode())

    assert reader.tokens(0) == 21


@pytest.mark.parametrize(
    "report",
    [
        '{"prompt_tokens": "9"}',
        '{"prompt_tokens": true}',
        '{"prompt_tokens": -1}',
        "[]",
        '"x"',
        "null",
        "{",
        "{]}",
        "{}",
    ],
)
def test_a_report_that_is_none_counts_nothing(report: str) -> None:
    reader = UsageReader()
    reader.feed(f'{{"usage": {report}'.encode())
    reader.feed(b' , "more": 1}')

    assert reader.tokens(400) is None


def test_a_stream_without_a_report_is_estimated() -> None:
    reader = UsageReader()
    reader.feed(events({"choices": []}, {"choices": []}, {"choices": []}))

    assert reader.tokens(400) == 103


def test_an_answer_without_end_costs_no_memory() -> None:
    reader = UsageReader()
    for _ in range(1000):
        reader.feed(b'"usage": {"x": "' + b"a" * 1000)

    assert len(reader._kept) <= 8192


def test_other_services_report_nothing() -> None:
    assert usage.reader_for("generic") is None
    assert usage.reader_for("github") is None
    assert usage.reader_for("openai") is not None
