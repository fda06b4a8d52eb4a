"""`manage.py assess` prints one line of JSON for each line, and its status says whether all could be read."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

if TYPE_CHECKING:
    from pathlib import Path


def assess(path: Path | str) -> tuple[int, list[dict[str, Any]], str]:
    out, err = io.StringIO(), io.StringIO()
    status = 0
    try:
        call_command("assess", str(path), stdout=out, stderr=err)
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


def written(folder: Path, *lines: object) -> Path:
    path = folder / "code.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_each_line_gets_its_answer(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"id": "ada", "lang": "python", "code": "print(1 + 1)"},
        {"id": "bob", "lang": "bash", "code": "sudo id"},
    )
    status, answers, errors = assess(path)
    assert (status, errors) == (0, "")
    assert [(one["id"], one["tier"], one["band"], one["range"]) for one in answers] == [
        ("ada", "L0", "low", "0-24"),
        ("bob", "L3", "high", "50-74"),
    ]
    assert [found["rule"] for found in answers[1]["findings"]] == ["sh.priv.root", "sh.sys.info"]
    assert answers[1]["ms"] > 0
    assert answers[1]["ruleset"].startswith("gatehouse-v1:")


def test_labels_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, "", {"id": 1, "lang": "bash", "code": "ls", "tier": "L3", "band": "75-100"}, "")
    assert [(one["id"], one["tier"]) for one in assess(path)[1]] == [(1, "L1")]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("{", {"id": None}),
        ("[1]", {"id": None, "error": "A line is an object with id, lang and code."}),
        ('{"id": "eve", "lang": "bash"}', {"id": "eve", "error": "A line needs code, as text."}),
        ('{"id": "eve", "code": 1}', {"id": "eve", "error": "A line needs lang and code, as text."}),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_judged(tmp_path: Path, line: str, answer: dict[str, Any]) -> None:
    status, answers, errors = assess(written(tmp_path, line, {"id": "ada", "lang": "bash", "code": "ls"}))
    assert status == 3
    assert errors == "1 line could not be read.\n"
    assert answers[0].items() >= answer.items()
    assert "error" in answers[0]
    assert (answers[1]["id"], answers[1]["tier"]) == ("ada", "L1")


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"none\.jsonl can't be read: No such file or directory\."):
        assess(tmp_path / "none.jsonl")
