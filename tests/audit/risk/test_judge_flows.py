"""What a sandbox reached, or tried to: judged one by one by the reason, and many by their number."""

from __future__ import annotations

import pytest

from audit.risk.flows import Flow, Recent

MIB = 1024 * 1024


def denied(host: str, at: float = 0.0, reason: str = "no_rule", **more: int) -> Flow:
    return Flow("egress.denied", at, reason, host, **more)


def asked(host: str, at: float = 0.0, count: int = 1) -> Flow:
    return Flow("egress.dns_denied", at, "no_rule", host, count)


def sent(mib: int, at: float = 0.0, *, back: int = 0, host: str = "drop.example") -> Flow:
    return Flow("egress.closed", at, "", host, 1, back * MIB, mib * MIB)


def rules(flow: Flow, before: list[Flow] | None = None) -> list[str]:
    found = Recent(before or []).assess(flow)
    return [] if found is None else [finding.rule for finding in found.findings]


@pytest.mark.parametrize(
    ("reason", "rule", "band"),
    [
        ("metadata", "flow.metadata", "critical"),
        ("sni_mismatch", "flow.disguise", "high"),
        ("host_mismatch", "flow.disguise", "high"),
        ("smuggling", "flow.disguise", "high"),
        ("resolved_private", "flow.inward", "high"),
        ("operator_deny", "flow.operator_denied", "medium"),
    ],
)
def test_some_reasons_say_enough(reason: str, rule: str, band: str) -> None:
    found = Recent().assess(denied("169.254.169.254", reason=reason))

    assert found is not None
    assert ([finding.rule for finding in found.findings], found.band) == ([rule], band)


def test_a_secrets_placeholder_elsewhere_says_enough() -> None:
    found = Recent().assess(Flow("secret.exfil_attempt", 0.0, "secret_elsewhere", "evil.example"))

    assert found is not None
    assert ([one.rule for one in found.findings], found.score) == (["flow.secret_elsewhere"], 85)
    # The refusal of the same request says it no second time.
    assert Recent().assess(denied("evil.example", reason="secret_elsewhere")) is None


@pytest.mark.parametrize("reason", ["no_rule", "port", "literal_ip", "resolve_failed", "connect_failed", "limit"])
def test_one_wrong_host_says_nothing(reason: str) -> None:
    assert Recent().assess(denied("a.example", reason=reason)) is None


def test_what_was_let_through_says_nothing() -> None:
    assert Recent().assess(Flow("egress.closed", 0.0, "metadata", "a.example")) is None


def test_the_tenth_wrong_host_says_it_once() -> None:
    before = [denied(f"h{n}.example", at=float(n)) for n in range(9)]

    assert rules(denied("h8.example", at=9.0), before) == []
    assert rules(denied("h9.example", at=9.0), before) == ["flow.wrong_hosts"]
    assert rules(denied("h10.example", at=10.0), [*before, denied("h9.example", at=9.0)]) == []


def test_it_says_how_many() -> None:
    found = Recent(denied(f"h{n}.example", at=float(n)) for n in range(9)).assess(asked("h9.example", 9.0))

    assert found is not None
    assert found.findings[0].message == "Within ten minutes it asked for 10 hosts that its policy does not allow."


def test_wrong_hosts_are_forgotten_after_ten_minutes() -> None:
    before = [denied(f"h{n}.example") for n in range(9)]

    assert rules(denied("h9.example", at=599.0), before) == ["flow.wrong_hosts"]
    assert rules(denied("h9.example", at=600.0), before) == []


def test_a_flood_without_names_counts_by_its_number() -> None:
    flood = Flow("egress.denied", 1.0, "no_rule", "", 500)

    assert rules(flood) == ["flow.scan", "flow.wrong_hosts"]


def test_a_hundred_names_within_a_minute_are_a_burst() -> None:
    before = [asked("a.tunnel.example", float(n), 33) for n in range(3)]

    assert rules(asked("b.tunnel.example", 30.0), before) == ["flow.dns_burst"]
    assert rules(asked("b.tunnel.example", 61.5), before) == []
    assert rules(denied("b.tunnel.example", 30.0), before) == []


def test_much_that_goes_out_in_small_pieces_is_seen() -> None:
    before = [sent(8, at=300.0 * n) for n in range(7)]

    assert rules(sent(7, at=2100.0), before) == []
    assert rules(sent(8, at=2100.0), before) == ["flow.sends_much"]
    assert rules(sent(8, at=2400.0), [*before, sent(8, at=2100.0)]) == []
    assert rules(sent(8, at=2100.0, host="other.example"), before) == []
    assert rules(sent(8, at=4000.0), before) == []


def test_a_conversation_is_none() -> None:
    assert rules(sent(600, back=200)) == []
    assert rules(sent(600, back=100)) == ["flow.exfiltration", "flow.sends_much"]


def test_ten_thousand_flows_are_counted_as_fast_as_they_come() -> None:
    recent = Recent()

    found = [recent.assess(denied(f"h{n % 5000}.example", at=n / 100)) for n in range(10_000)]

    assert [index for index, one in enumerate(found) if one is not None] == [9, 49]
