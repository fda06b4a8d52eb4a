"""Times are aware UTC inside and have one form outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from corekit import clock


def test_rfc3339_has_milliseconds_and_z() -> None:
    assert clock.to_rfc3339(datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)) == "2026-01-02T03:04:05.678Z"
    assert clock.to_rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000Z"


def test_other_zones_become_utc() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert clock.to_rfc3339(at) == "2026-01-02T01:04:05.000Z"


def test_milliseconds_survive_both_ways() -> None:
    for ms in (0, 1, 999, 1_767_323_045_678, 253_402_300_799_999):
        assert clock.to_ms(clock.from_ms(ms)) == ms
    assert clock.to_rfc3339(1_767_323_045_678) == "2026-01-02T03:04:05.678Z"


def test_now_is_aware() -> None:
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(clock.epoch_ms() - clock.to_ms(clock.now())) < 1000
