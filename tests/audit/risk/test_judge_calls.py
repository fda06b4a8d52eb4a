"""Calls that run no code are judged by what they touch, and every act by what surrounds it."""

from __future__ import annotations

from typing import Any

import pytest

from audit.risk.assessor import assess
from audit.risk.calls import assess_call
from audit.risk.circumstances import Circumstances, Denials, in_context
from audit.risk.findings import Assessment, Finding, Kind, Tier
from audit.risk.reporting import columns
from audit.risk.scoring import combine


def rules(assessment: Assessment) -> list[str]:
    return [finding.rule for finding in assessment.findings]


@pytest.mark.parametrize(
    ("code", "rule", "tier"),
    [
        ("file.stat", "call.look", "L1"),
        ("file.list", "call.look", "L1"),
        ("command.signal", "call.attach", "L1"),
        ("file.read", "call.read", "L1"),
        ("file.write", "call.write", "L1"),
        ("file.remove", "call.remove", "L1"),
        ("command.input", "call.input", "L2"),
        ("port.connect", "call.port", "L2"),
    ],
)
def test_each_call_has_its_base(code: str, rule: str, tier: str) -> None:
    found = assess_call(code, {"path": "/home/user/notes.txt"})
    assert (rules(found), found.tier, found.band) == ([rule], tier, "low")


@pytest.mark.parametrize(
    ("code", "path", "rule"),
    [
        ("file.read", "/etc/hostname", "call.path.system"),
        ("file.write", "/etc/hostname", "call.path.system.write"),
        ("file.read", "/home/user/.ssh/id_rsa", "call.path.secret"),
        ("file.read", "/proc/self/environ", "call.path.secret"),
        ("file.read", "/var/run/docker.sock", "call.path.host"),
        ("file.write", "/home/user/.bashrc", "call.path.persist"),
        ("file.move", "/etc/cron.d/job", "call.path.persist"),
    ],
)
def test_the_path_counts(code: str, path: str, rule: str) -> None:
    field = "destination" if code == "file.move" else "path"
    assert rule in rules(assess_call(code, {field: path}))
    assert rule not in rules(assess_call(code, {field: "/home/user/data.csv"}))


def test_reading_what_only_writing_makes_dangerous_is_harmless() -> None:
    assert rules(assess_call("file.read", {"path": "/home/user/.bashrc"})) == ["call.read"]


@pytest.mark.parametrize(
    "arguments", [{}, {"path": None}, {"path": 5}, {"path": ["/etc/shadow", 5, None]}, {"path": "/" * 100_000}]
)
def test_arguments_of_any_form_are_judged(arguments: dict[str, Any]) -> None:
    assert assess_call("file.read", arguments).score >= 3


def test_an_unknown_call_has_no_base() -> None:
    assert assess_call("code.later", {}).findings == ()


def finding(rule: str, weight: int, tier: Tier = "L2", kind: Kind = "capability") -> Finding:
    return Finding(rule, rule, kind, weight, tier, "It says so.", None, "some code")


def test_less_isolation_than_needed_counts() -> None:
    code = combine("python", [finding("py.exec", 40, "L3")])
    weak = in_context(code, Circumstances(tier="L2"))
    assert rules(weak) == ["py.exec", "context.isolation"]
    assert (weak.score, weak.tier, weak.floor_reason) == (49, "L3", code.floor_reason)
    assert in_context(code, Circumstances(tier="L3")) is code


def test_without_a_network_its_use_counts_half() -> None:
    code = combine("bash", [finding("sh.net.client", 40), finding("sh.net.metadata", 50, kind="indicator")])
    assert in_context(code, Circumstances(network=False)).score == round(100 * (1 - 0.8 * 0.5))
    assert in_context(code, Circumstances(network=True)) is code


def test_denials_count_and_are_forgotten() -> None:
    denials = Denials()
    assert denials.value(0) == 0
    for second in (0, 0, 0, 0):
        denials.add(second)
    assert (denials.value(0), denials.value(300), denials.value(600)) == (4, 2, 0)
    code = combine("python", [])
    assert in_context(code, Circumstances(denials=denials.value(0))).score == 20
    assert in_context(code, Circumstances(denials=denials.value(300))).score == 10
    assert in_context(code, Circumstances(denials=1000)).score == 50
    assert in_context(code, Circumstances(denials=denials.value(600))) is code


def test_what_nobody_could_read_stays_so() -> None:
    code = combine("python", [], unassessable="It is too long.")
    found = in_context(code, Circumstances(tier="L0"))
    assert rules(found) == ["input.unassessable", "context.isolation"]
    assert (found.unassessable, found.tier) == (code.unassessable, "L2")


def test_events_get_the_heaviest_of_each_rule_first_and_no_word_of_the_code() -> None:
    code = combine("python", [finding("a", 10), finding("b", 60), finding("a", 9), *[finding("b", 60)] * 30])
    found: dict[str, Any] = columns(code)
    assert found["risk_reasons"] == ["b", "a"]
    assert [one["rule"] for one in found["risk_findings"][:3]] == ["b", "a", "b"]
    assert len(found["risk_findings"]) == 20
    assert "some code" not in str(found)
    assert "It says so." not in str(found)
    assert (found["risk_score"], found["risk_band"], found["risk_tier"]) == (code.score, code.band, code.tier)


def test_our_own_words_stay() -> None:
    found: dict[str, Any] = columns(in_context(assess(b"x", "cobol"), Circumstances(tier="L1")))
    messages = {one["rule"]: one["message"] for one in found["risk_findings"]}
    assert messages["context.isolation"] == "It needs L2 and runs at L1."
    assert messages["lang.unknown"] == ""
