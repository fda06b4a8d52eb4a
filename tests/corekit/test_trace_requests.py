"""One request has the same ids in every process, whatever a caller sends."""

from __future__ import annotations

import pytest

from corekit import tracing

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_what_comes_in_is_taken_over_as_the_next_step() -> None:
    trace = tracing.begin("request-0001", PARENT, "curl/8.0")
    assert (trace.request_id, trace.trace_id, trace.user_agent) == ("request-0001", "a" * 32, "curl/8.0")
    assert trace.span_id not in {"b" * 16, "0" * 16}
    assert trace.headers() == {
        "X-Request-Id": "request-0001",
        "traceparent": f"00-{'a' * 32}-{trace.span_id}-01",
    }
    assert tracing.current() is trace
    tracing.end()
    assert tracing.current() is None


def test_without_ids_new_ones_are_made() -> None:
    one, other = tracing.read(), tracing.read()
    assert one.trace_id != other.trace_id
    assert one.request_id != other.request_id
    assert tracing.current() is None


@pytest.mark.parametrize(
    "parent",
    [
        "nonsense",
        PARENT.upper(),
        PARENT + "\n-",
        f"ff-{'a' * 32}-{'b' * 16}-01",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"00-{'a' * 31}-{'b' * 16}-01",
        PARENT + "-" + "x" * 1000,
    ],
)
def test_a_malformed_parent_is_not_taken(parent: str) -> None:
    assert tracing.read("", parent).trace_id != "a" * 32


def test_a_later_version_may_say_more() -> None:
    assert tracing.read("", f"01-{'a' * 32}-{'b' * 16}-01-more").trace_id == "a" * 32


def test_the_client_s_own_words_are_short_and_printable() -> None:
    assert tracing.read("bad id", "", "a\x00b\r\n" + "x" * 500).user_agent == "ab" + "x" * 195
    assert tracing.read("bad id").request_id != "bad id"
