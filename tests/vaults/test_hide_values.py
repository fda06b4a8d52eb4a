"""A secret's value shows nowhere but to who reveals it."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import traceback

import pytest

from corekit.redaction import HIDDEN, redact
from tenants.vaults.secretvalue import SecretValue

TEXT = "sk-canary-0123456789"


def test_who_reveals_it_gets_the_value() -> None:
    assert SecretValue(TEXT.encode()).reveal() == TEXT.encode()


def test_no_way_of_writing_it_down_shows_it() -> None:
    value = SecretValue(TEXT.encode())
    for shown in (
        repr(value),
        str(value),
        f"{value}",
        f"{value!r:>60}",
        repr([value]),
        repr({"v": value}),
    ):
        assert TEXT not in shown
        assert HIDDEN in shown


@pytest.mark.parametrize("write", [json.dumps, pickle.dumps, copy.copy, copy.deepcopy, vars])
def test_nothing_copies_or_serialises_it(write: object) -> None:
    with pytest.raises(TypeError):
        write(SecretValue(TEXT.encode()))  # type: ignore[operator]


def test_an_error_that_carries_it_does_not_show_it() -> None:
    error = RuntimeError(SecretValue(TEXT.encode()))
    assert TEXT not in "".join(traceback.format_exception(error))


def test_two_are_equal_when_their_bytes_are() -> None:
    assert SecretValue(b"one") == SecretValue(b"one")
    assert SecretValue(b"one") != SecretValue(b"two")
    assert SecretValue(b"one") != b"one"
    with pytest.raises(TypeError):
        hash(SecretValue(b"one"))


def test_log_lines_hide_it_as_long_as_somebody_holds_it() -> None:
    value = SecretValue(TEXT.encode())
    assert redact(f"the vendor said: bad key {TEXT}") == f"the vendor said: bad key {HIDDEN}"
    del value
    gc.collect()
    assert redact(TEXT) == TEXT
