"""Ten thousand random texts, and broken pieces of real ones, are all answered."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.risk.pool import Assessor

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[2] / "data" / "risk"
TOKENS = (
    *("$(", "${", "}", ")", "(", "((", "`", "'", '"', "<<E", "<<<", "|", "||", "&&", ";", "\n", " ", "\\", "#", "[["),
    *(
        "if",
        "then",
        "fi",
        "for",
        "in",
        "do",
        "done",
        "case",
        "esac",
        "eval",
        "sh",
        "-c",
        "rm",
        "-rf",
        "/",
        "~",
        "x=",
        "$x",
    ),
    *(
        "import",
        "def",
        "class",
        "lambda",
        "exec",
        "getattr",
        ":",
        "    ",
        "[",
        "]",
        "{",
        "f'",
        "\0",
        "\ufeff",
        "\u202e",
    ),
)
LANGUAGES = ("bash", "python", "javascript")


@pytest.fixture(scope="module")
def assessor() -> Iterator[Assessor]:
    with Assessor(size=2) as pool:
        yield pool


def answered(pool: Assessor, code: bytes, language: str) -> bool:
    judged = pool.assess_blocking(code, language)
    assert 0 <= judged.score <= 100
    assert judged.unassessable is None or (judged.tier >= "L2" and judged.band != "low")
    return True


def test_random_bytes_are_answered(assessor: Assessor) -> None:
    chance = random.Random(4)
    texts = (chance.randbytes(chance.randrange(1, 200)) for _ in range(5_000))
    assert all(answered(assessor, code, LANGUAGES[number % 3]) for number, code in enumerate(texts))


def test_random_words_of_the_languages_are_answered(assessor: Assessor) -> None:
    chance = random.Random(8)
    texts = ("".join(chance.choices(TOKENS, k=chance.randrange(1, 40))).encode() for _ in range(5_000))
    assert all(answered(assessor, code, LANGUAGES[number % 3]) for number, code in enumerate(texts))


def test_broken_code_is_answered(assessor: Assessor) -> None:
    chance = random.Random(15)
    rows = [json.loads(line) for line in (DATA / "own-snippets.jsonl").read_text(encoding="utf-8").splitlines()]
    for _ in range(2_000):
        row = chance.choice(rows)
        code = bytearray(row["code"].encode("utf-8", "surrogatepass"))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(code))
            code[place : place + chance.randrange(3)] = chance.choice(TOKENS).encode()
        assert answered(assessor, bytes(code), row["lang"])
