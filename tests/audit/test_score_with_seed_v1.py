"""The commission's rules: additive, explained, capped at 100."""

from __future__ import annotations

import pytest

from audit.risk.seed_v1 import TIERS, score, tier


@pytest.mark.parametrize("tool", ["execute_sql", "exec_code", "write_file"])
def test_dangerous_tools_add_30(tool: str) -> None:
    assert score(tool, {}).value == 30
    assert score(tool, {}).reasons == [f"the tool {tool} is dangerous"]


@pytest.mark.parametrize("word", ["password", "secret", "key", "token"])
def test_each_sensitive_word_adds_20_once(word: str) -> None:
    assert score("read_file", {"text": f"my {word.upper()} and {word}"}).value == 20


@pytest.mark.parametrize("path", ["/etc/passwd", "/root", "/var/log", "/home/../x"])
def test_sensitive_paths_add_40(path: str) -> None:
    assert score("read_file", {"path": path}).value == 40


def test_a_path_elsewhere_adds_nothing() -> None:
    assert score("read_file", {"path": "/home/user/a.txt", "text": "see /etc"}).value == 0


def test_rules_add_up_and_are_capped() -> None:
    scored = score("execute_sql", {"path": "/etc", "query": "select password, secret, key, token"})
    assert scored.value == 100
    assert len(scored.reasons) == 6


def test_words_count_wherever_they_stand() -> None:
    assert score("run", {"env": {"API_KEY": "x"}, "args": [["--token"]], "data": b"secret"}).value == 60


def test_nothing_suspicious_scores_zero() -> None:
    assert score("list_files", {"path": "/home/user"}).value == 0
    assert score("list_files", {"path": "/home/user"}).reasons == []


def test_hostile_shapes_are_bounded() -> None:
    deep: object = "token"
    for _ in range(500):
        deep = [deep]
    assert score("run", {"deep": deep}).value == 0


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import os", 1),
        ("import subprocess", 2),
        ("open('x')", 1),
        ("__import__('x')", 2),
        ("eval('1')", 2),
        ("exec('1')", 2),
        ("socket.socket()", 2),
        ("requests.get('x')", 1),
    ],
)
def test_each_word_asks_for_its_tier(code: str, needed: int) -> None:
    assert tier(code) == needed
    assert tier(f"x = 1\n    {code}\n") == needed


def test_the_highest_match_decides_and_nothing_asks_for_3() -> None:
    assert tier("import os\nimport subprocess\nopen('x')") == 2
    assert max(TIERS.values()) == 2
    assert len(TIERS) == 8


def test_code_without_a_match_needs_nothing() -> None:
    assert tier("") == 0
    assert tier("print(sum(range(10)))") == 0
    assert tier("from os import system as s\ns('id')") == 0


def test_words_count_in_comments_too() -> None:
    assert tier("# never eval( anything") == 2
