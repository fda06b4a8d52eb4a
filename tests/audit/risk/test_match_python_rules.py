"""Every rule for Python matches the code it is for, and leaves its harmless neighbour alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.risk.assessor import assess
from audit.risk.python.rules import RULES_BY_ID, Rule

SNIPPETS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "data" / "risk" / "python-rules.json").read_bytes()
)


def rules_of(code: str) -> set[str]:
    return {finding.rule for finding in assess(code.encode(), "python").findings}


def test_every_rule_has_its_snippets() -> None:
    assert SNIPPETS.keys() == RULES_BY_ID.keys()


@pytest.mark.parametrize("rule", sorted(RULES_BY_ID))
def test_a_rule_matches_what_it_is_for(rule: str) -> None:
    assert rule in rules_of(SNIPPETS[rule]["matches"])


@pytest.mark.parametrize("rule", sorted(RULES_BY_ID))
def test_a_rule_leaves_its_neighbour_alone(rule: str) -> None:
    assert rule not in rules_of(SNIPPETS[rule]["does_not_match"])


@pytest.mark.parametrize("rule", RULES_BY_ID.values(), ids=lambda rule: rule.id)
def test_a_rule_says_what_it_is(rule: Rule) -> None:
    assert rule.title
    assert rule.message.endswith(".")
    assert 0 < rule.weight <= 100
