"""Connect's frames, from both sides of the wire."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest

from corekit import connect


def stream(*parts: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(parts))


def ending(text: bytes = b"{}") -> bytes:
    return struct.pack(">BI", 2, len(text)) + text


def test_messages_come_as_they_were_framed() -> None:
    sent: list[dict[str, Any]] = [{"event": {"start": {"pid": 7}}}, {"text": "grün"}]
    body = stream(*(connect.frame(one) for one in sent), ending())
    assert list(connect.messages(body.read)) == sent


def test_what_follows_the_end_is_not_read() -> None:
    assert list(connect.messages(stream(ending(), connect.frame({"a": 1})).read)) == []


def test_an_error_at_the_end_is_raised_after_the_messages() -> None:
    body = stream(
        connect.frame({"a": 1}), ending(b'{"error": {"code": "deadline_exceeded", "message": "it took too long"}}')
    )
    found = connect.messages(body.read)
    assert next(found) == {"a": 1}
    with pytest.raises(connect.StreamError, match="it took too long") as raised:
        next(found)
    assert raised.value.code == "deadline_exceeded"


def test_a_stream_that_breaks_off_between_messages_ends() -> None:
    assert list(connect.messages(stream(connect.frame({"a": 1}), b"\0\0").read)) == [{"a": 1}]


@pytest.mark.parametrize("data", [b"no", b"[1]", b"{" * 100_000])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(connect.BadFrame):
        list(connect.messages(stream(struct.pack(">BI", 0, len(data)), data).read))


def test_a_message_that_is_too_long_is_refused_unread() -> None:
    body = stream(struct.pack(">BI", 0, connect.MAX_MESSAGE + 1), b"x" * 10)
    with pytest.raises(connect.BadFrame, match="too long"):
        list(connect.messages(body.read))
    assert body.read() == b"x" * 10


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        ("exit status 0", 0, 0),
        ("exit status 7", 7, 7),
        ("signal: killed", -1, 137),
        ("signal: terminated", -1, 143),
        ("signal: segmentation fault (core dumped)", -1, 139),
        ("signal: of the future", -1, 128),
    ],
)
def test_exit_codes_are_a_shells(status: str, code: int, shown: int) -> None:
    assert connect.exit_code({"status": status, "exitCode": code}) == shown
