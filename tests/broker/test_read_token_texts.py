"""The text of a token: made so that people and scanners know it, read so that nothing else passes for it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from corekit.redaction import HIDDEN, redact
from tenants.broker import tokentext

ID = "0123456789abcdef"


def test_it_has_a_prefix_an_id_and_a_checksum() -> None:
    text = tokentext.new_text(ID)
    assert re.fullmatch(r"sbx_l0123456789abcdef_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", text)
    assert tokentext.new_text(ID, debug=True).startswith("sbx_d0123456789abcdef_")
    parsed = tokentext.parse(text)
    assert parsed is not None
    assert (parsed.id, parsed.hash) == (ID, tokentext.text_hash(text))


def test_no_two_are_alike() -> None:
    assert len({tokentext.new_text(ID) for _ in range(1000)}) == 1000


def test_what_is_asked_for_again_is_the_same_for_one_key_and_one_id_only() -> None:
    text = tokentext.repeatable_text(b"k" * 32, ID)
    assert tokentext.parse(text) is not None
    assert tokentext.repeatable_text(b"k" * 32, ID) == text
    assert tokentext.repeatable_text(b"j" * 32, ID).rpartition("_")[2] != text.rpartition("_")[2]
    assert tokentext.repeatable_text(b"k" * 32, ID[::-1]).rpartition("_")[2] != text.rpartition("_")[2]


def test_no_log_line_shows_it() -> None:
    text = tokentext.new_text(ID)
    assert redact(f"Authorization: Bearer {text}") == f"Authorization: Bearer {HIDDEN}"
    assert text.rpartition("_")[2] not in str(redact({"line": f'{{"token":"{text}"}}'}))


@given(st.text() | st.binary() | st.none() | st.integers())
def test_nothing_else_is_one(value: object) -> None:
    assert tokentext.parse(value) is None


@given(st.integers(0, tokentext.LENGTH - 1), st.characters())
def test_nothing_that_was_changed_in_one_place_is_one(position: int, character: str) -> None:
    text = tokentext.repeatable_text(b"k" * 32, ID)
    changed = text[:position] + character + text[position + 1 :]
    # The letter for the environment is covered by the checksum like all others.
    assert (tokentext.parse(changed) is not None) == (changed == text)
