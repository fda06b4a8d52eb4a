"""A secret is found in each of its encodings, wherever a stream is cut, and nothing else is held back."""

from __future__ import annotations

import base64
import copy
import html
import json
import pickle
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekit.needles import MARKER, MIN_BYTES, Needles

KEY = b'sk-proj-Zm9v/bar+baz==&<q>"7\xc3\xa9'
PLAIN = b"sk-ant-api03-Qx7vLr2Wn9"


def around(before: bytes, after: bytes = b"") -> bytes:
    """Return base64 of the key with other bytes before and after it."""
    return base64.b64encode(before + KEY + after)


SPELLINGS = {
    "raw": KEY,
    "in a rendered header": b"Bearer " + KEY,
    "percent-encoded": quote(KEY, safe="").encode(),
    "percent-encoded, slashes kept": quote(KEY).encode(),
    "percent-encoded, lower case": quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
    .replace("%3C", "%3c").replace("%3E", "%3e").replace("%C3%A9", "%c3%a9").encode(),
    "as a form's field": quote_plus(KEY).encode(),
    "every byte percent-encoded": "".join(f"%{byte:02x}" for byte in KEY).encode(),
    "in JSON": json.dumps({"message": f"bad key {KEY.decode()}"}).encode(),
    "in JSON, unescaped letters": json.dumps({"message": KEY.decode()}, ensure_ascii=False).encode(),
    "in JSON, escaped slashes": json.dumps(KEY.decode()).replace("/", "\\/").encode(),
    "in JSON for a page": json.dumps(KEY.decode())
    .replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("=", "\\u003d").encode(),
    "base64": around(b""),
    "base64, second alignment": around(b"u", b"more"),
    "base64, third alignment": around(b"u:", b"x"),
    "basic": b"Basic " + around(b"api:"),
    "base64 for URLs": base64.urlsafe_b64encode(b"1" + KEY),
    "in a page": html.escape(KEY.decode()).encode(),
    "in a page, quotes kept": html.escape(KEY.decode(), quote=False).encode(),
    "in a page by a template": KEY.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    .replace(b'"', b"&#34;").replace(b"+", b"&#43;"),
    "in a page, slashes and equals signs too": KEY.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    .replace(b'"', b"&quot;").replace(b"/", b"&#x2F;").replace(b"=", b"&#x3D;"),
    "as a name": KEY.lower(),
    "as a name in capitals": KEY.upper(),
    "hex": KEY.hex().encode(),
    "hex, upper case": KEY.hex().upper().encode(),
}  # fmt: skip


class TestFinding:
    @pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
    def test_finds_each_encoding(self, spelling: bytes) -> None:
        needles = Needles([KEY])

        assert needles.found_in(b"<p>" + spelling + b"</p>")

    def test_finds_each_of_several_values(self) -> None:
        needles = Needles([KEY, PLAIN])

        assert needles.found_in(b"x" + KEY)
        assert needles.found_in(b"x" + PLAIN.hex().encode())

    @pytest.mark.parametrize("other", [b"", b"sk-proj-", KEY[:-1], KEY[1:], PLAIN.swapcase()])
    def test_finds_nothing_in_other_text(self, other: bytes) -> None:
        assert not Needles([KEY, PLAIN]).found_in(b"data: " + other + b"\n\n")

    def test_does_not_look_for_what_any_text_contains(self) -> None:
        needles = Needles([b"", b"a", b"abcde"])

        assert not needles.found_in(b"abcde " + b"abcde".hex().encode())
        assert needles.longest == 0
        assert Needles([b"abcdef"]).found_in(b"abcdef")
        assert len(b"abcdef") == MIN_BYTES

    def test_says_nothing_of_the_values(self) -> None:
        needles = Needles([PLAIN])

        assert PLAIN.decode() not in repr(needles)
        assert PLAIN.decode() not in str(needles)
        with pytest.raises(TypeError, match="not written anywhere"):
            pickle.dumps(needles)
        with pytest.raises(TypeError, match="not written anywhere"):
            copy.copy(needles)


class TestRemoving:
    def test_replaces_every_hit(self) -> None:
        text = b"a=" + PLAIN + b"; b=" + PLAIN.hex().encode() + b"; c"

        assert Needles([PLAIN]).removed_from(text) == b"a=" + MARKER + b"; b=" + MARKER + b"; c"

    def test_returns_other_text_as_it_is(self) -> None:
        assert Needles([PLAIN]).removed_from(b"nothing here") == b"nothing here"

    def test_takes_the_longer_of_two_values_that_begin_alike(self) -> None:
        needles = Needles([PLAIN, PLAIN + b"-and-more"])

        assert needles.removed_from(b"<" + PLAIN + b"-and-more>") == b"<" + MARKER + b">"

    def test_takes_two_hits_that_overlap_as_one(self) -> None:
        needles = Needles([b"abcdefgh", b"efghijkl"])

        assert needles.removed_from(b"<abcdefghijkl>") == b"<" + MARKER + b">"


class TestStreams:
    @pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
    def test_finds_a_hit_however_it_is_cut(self, spelling: bytes) -> None:
        text = b"event: x\ndata: " + spelling + b"\n\nevent: y\n"
        whole = Needles([KEY]).removed_from(text)

        for cut in range(len(text) + 1):
            scanner = Needles([KEY]).stream()
            passed = scanner.feed(text[:cut]) + scanner.feed(text[cut:]) + scanner.finish()
            assert passed == whole
            assert scanner.hits == 1

    def test_finds_a_hit_that_comes_byte_by_byte(self) -> None:
        scanner = Needles([PLAIN]).stream()

        passed = b"".join(scanner.feed(bytes([byte])) for byte in b"<" + PLAIN + b">") + scanner.finish()

        assert passed == b"<" + MARKER + b">"

    def test_never_lets_a_part_of_a_hit_go_ahead(self) -> None:
        scanner = Needles([PLAIN]).stream()

        assert scanner.feed(b"key: " + PLAIN[:-1]) == b"key: "
        assert scanner.feed(PLAIN[-1:]) == MARKER

    def test_holds_nothing_back_without_reason(self) -> None:
        scanner = Needles([PLAIN]).stream()

        assert scanner.feed(b'data: {"delta": "hel"}\n\n') == b'data: {"delta": "hel"}\n\n'
        assert scanner.finish() == b""

    def test_lets_go_what_only_began_like_a_hit(self) -> None:
        scanner = Needles([PLAIN]).stream()

        assert scanner.feed(b"a sk-ant-") == b"a "
        assert scanner.feed(b"hill\n") == b"sk-ant-hill\n"
        assert scanner.feed(b"sk-") == b""
        assert scanner.finish() == b"sk-"
        assert scanner.hits == 0

    def test_passes_everything_when_it_looks_for_nothing(self) -> None:
        scanner = Needles([]).stream()

        assert scanner.feed(b"all of it") == b"all of it"

    @given(st.lists(st.sampled_from([b"aab", b"aabaab", b"ab", b"b", b"a", b"aabaac", b"61", b"0"]), max_size=30))
    def test_never_passes_a_value_that_repeats_itself(self, pieces: list[bytes]) -> None:
        needles = Needles([b"aabaac"])
        scanner = needles.stream()

        passed = b"".join(map(scanner.feed, pieces)) + scanner.finish()

        assert passed == needles.removed_from(b"".join(pieces))
        assert not needles.found_in(passed.replace(MARKER, b"|"))
