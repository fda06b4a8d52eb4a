"""Findings add up to a tier, a score and a band, and survive the way through JSON."""

from __future__ import annotations

import json

import pytest

from audit.risk.findings import Assessment, Finding, Span, Tier, band_of, snippet_of
from audit.risk.scoring import RULESET, combine, ruleset

SPAN = Span(line=1, column=0, end_line=1, end_column=5, offset=0, end_offset=5)


def finding(rule: str, weight: int, tier: Tier) -> Finding:
    return Finding(rule, "A title", "capability", weight, tier, f"{rule} was found.", SPAN, "x = 1", (SPAN,))


def test_the_highest_tier_wins_and_weights_combine() -> None:
    assessment = combine("python", [finding("a", 20, "L1"), finding("b", 50, "L3"), finding("c", 10, "L2")], ms=1.5)
    assert (assessment.tier, assessment.score, assessment.band) == ("L3", 64, "high")
    assert assessment.floor_reason == "b was found."
    assert [found.rule for found in assessment.findings] == ["b", "c", "a"]
    assert (assessment.language, assessment.ms, assessment.unassessable) == ("python", 1.5, None)


def test_code_without_findings_is_harmless() -> None:
    assessment = combine("python", [])
    assert (assessment.tier, assessment.score, assessment.band) == ("L0", 0, "low")
    assert assessment.floor_reason == "It only computes."


def test_repeating_a_rule_does_not_raise_the_score() -> None:
    assert combine("python", [finding("a", 30, "L2")] * 50).score == 30
    assert combine("python", [finding("a", 10, "L2"), finding("a", 30, "L2")]).score == 30


def test_the_order_of_findings_does_not_matter() -> None:
    found = [finding(f"rule-{number}", number * 3, "L2") for number in range(1, 12)]
    assert combine("python", found).score == combine("python", found[::-1]).score


def test_what_cannot_be_assessed_is_never_low() -> None:
    assessment = combine("python", [], unassessable="It is too long.")
    assert (assessment.tier, assessment.score, assessment.band) == ("L2", 35, "medium")
    assert assessment.unassessable == "It is too long."
    assert assessment.floor_reason == "It is too long. What cannot be read is never taken for harmless."


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0, "low"),
        (24, "low"),
        (25, "medium"),
        (49, "medium"),
        (50, "high"),
        (74, "high"),
        (75, "critical"),
        (100, "critical"),
    ],
)
def test_bands_have_fixed_edges(score: int, band: str) -> None:
    assert band_of(score) == band


def test_an_assessment_survives_json() -> None:
    assessment = combine("python", [finding("a", 20, "L1")], unassessable="No.", ms=2.25)
    assert Assessment.from_dict(json.loads(json.dumps(assessment.as_dict()))) == assessment


def test_the_name_of_the_rules_changes_with_their_text() -> None:
    assert ruleset() == RULESET
    assert RULESET.startswith("gatehouse-v1:")
    assert len(RULESET) == len("gatehouse-v1:") + 12


def test_snippets_are_short_and_printable() -> None:
    assert snippet_of("x  =\n\t1") == "x = 1"
    assert snippet_of("y" * 500) == "y" * 119 + "…"
    assert snippet_of("a\u202eb\x00c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ('password = "hunter22"', "password***"),
        ("{'api_key': 'abc'}", "{'api_key***}"),
        ("use(AKIAIOSFODNN7EXAMPLE)", "use(***)"),
        ('get("https://anna:pw@example.com/")', 'get("https://***@example.com/")'),
        ("tokens = count(words)", "tokens = count(words)"),
    ],
)
def test_snippets_hide_what_looks_like_a_credential(code: str, shown: str) -> None:
    assert snippet_of(code) == shown
