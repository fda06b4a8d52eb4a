"""Of arguments only a keyed hash and a shape are kept."""

from __future__ import annotations

import hashlib
import hmac
import json

from corekit.fingerprint import arguments_hash, arguments_shape

KEY = b"k" * 32


def test_hash_is_the_hmac_of_canonical_json() -> None:
    expected = hmac.new(KEY, b'{"a":[1,true,null],"b":"\xc3\xa9"}', hashlib.sha256).hexdigest()
    assert arguments_hash(KEY, {"b": "é", "a": [1, True, None]}) == expected


def test_hash_needs_the_key_and_differs_by_value() -> None:
    assert arguments_hash(KEY, {"a": 1}) != arguments_hash(b"other", {"a": 1})
    assert arguments_hash(KEY, {"a": 1}) != arguments_hash(KEY, {"a": "1"})


def test_bytes_and_odd_text_have_a_hash_too() -> None:
    assert len(arguments_hash(KEY, {"data": b"\x00\xff", "half": "\ud800"})) == 64


def test_shape_shows_kinds_and_sizes_only() -> None:
    arguments = {
        "path": "/home/user/secret.txt",
        "data": b"12345",
        "mode": 0o644,
        "force": True,
        "user": None,
        "args": ["a", "b"],
        "env": {"TOKEN": "hunter2"},
    }
    shape = arguments_shape(arguments)
    assert shape == {
        "path": "text(21)",
        "data": "bytes(5)",
        "mode": "number",
        "force": "boolean",
        "user": "null",
        "args": "list(2)",
        "env": {"TOKEN": "text(7)"},
    }
    assert "hunter2" not in json.dumps(shape)


def test_shape_is_bounded() -> None:
    deep: dict[str, object] = {}
    deep["deep"] = {"a": {"b": {"c": {"d": 1}}}}
    assert arguments_shape(deep) == {"deep": {"a": {"b": "object(1)"}}}
    assert len(arguments_shape({f"n{number}": number for number in range(1000)})) == 51
