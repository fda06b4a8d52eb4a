"""Ids look as the wire and the file system need them, and nothing else passes for one."""

from __future__ import annotations

import re
import time

import pytest

from corekit import ids


def test_sandbox_id_fits_a_host_name() -> None:
    made = {ids.new_sandbox_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"i[a-z0-9]{20}", sandbox_id) for sandbox_id in made)
    assert all(ids.is_sandbox_id(sandbox_id) for sandbox_id in made)


@pytest.mark.parametrize("text", ["", "I1", "i-1", "../i1", "i1\n", "i1\x00", "é", "i" * 65, None, 7, b"i1"])
def test_anything_else_is_no_sandbox_id(text: object) -> None:
    assert not ids.is_sandbox_id(text)


@pytest.mark.parametrize(
    ("given", "stripped"),
    [
        ("i1abc-6532622b", "i1abc"),
        ("i1abc", "i1abc"),
        ("i1-b-c", "i1-b-c"),
        ("-x", "-x"),
        ("../x-a", "../x-a"),
        ("i1-", "i1-"),
    ],
)
def test_old_client_suffix_is_stripped(given: str, stripped: str) -> None:
    assert ids.strip_client_suffix(given) == stripped


def test_event_ids_sort_by_time_and_have_uuid7_layout() -> None:
    first = ids.new_event_id()
    time.sleep(0.002)
    second = ids.new_event_id()
    assert first < second
    assert ids.is_event_id(first)
    assert first[12] == "7"
    assert first[16] in "89ab"
    assert abs(int(first[:12], 16) - time.time() * 1000) < 5000


def test_request_ids_from_outside_are_checked() -> None:
    assert ids.is_request_id(ids.new_request_id())
    assert ids.is_request_id("req_2.a-b")
    for text in ("short", "x" * 65, "with blank in", "line\nbreak", 'quote"quote', None):
        assert not ids.is_request_id(text)


def test_key_ids_are_16_hex() -> None:
    assert ids.is_key_id(ids.new_key_id())
    assert not ids.is_key_id("0123456789ABCDEF")
    assert not ids.is_key_id("0" * 15)
