"""A network policy that says more than its author can mean is refused as it is written, with what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tenants.models import NetworkPolicy

if TYPE_CHECKING:
    from tests.api.rest import Rest

pytestmark = pytest.mark.django_db

ADVICE = "write it like *.example.com"


def test_a_wildcard_below_a_name_of_ones_own(rest: Rest) -> None:
    made = rest.post("network-policies", {"name": "wild", "egress": ["*.wild.allowed.test:443"]}, status=201)
    assert (made["spec"]["egress"], made["warnings"][0]["code"]) == (["*.wild.allowed.test:443"], "not_in_ceiling")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("*:443", ADVICE),
        ("a.*.b.test:443", ADVICE),
        ("*foo.test:443", ADVICE),
        ("foo.*:443", ADVICE),
        ("*.test:443", "two labels behind it"),
        ("*.com:443", "two labels behind it"),
        ("*.co.uk:443", "everybody can have a name below co.uk"),
        ("*.github.io:443", "everybody can have a name below github.io"),
        ("api.allowed.test", "names no port"),
        ("api.allowed.test:*", "Only an operator allows all ports"),
        ("0x7f.1:443", "no address in its usual form"),
        ("169.254.169.254:80", "nobody reaches it"),
        ("metadata.google.internal:80", "nobody reaches"),
        ("api。allowed。test:443", "no host name"),
    ],
)
def test_an_entry_that_is_too_wide_or_means_something_else(rest: Rest, entry: str, says: str) -> None:
    answer = rest.call("POST", "network-policies", {"name": "wild", "egress": ["api.allowed.test:443", entry]})
    assert (answer.status_code, answer.json()["field"]) == (400, "egress[1]")
    assert says in answer.json()["detail"]
    assert NetworkPolicy.objects.count() == 3


def test_a_name_in_unicode_is_kept_as_it_is_sent_and_as_it_was_written(rest: Rest) -> None:
    made = rest.post("network-policies", {"name": "munich", "egress": ["münchen.test:443"]}, status=201)
    assert (made["spec"]["egress"], made["spec"]["written"]) == (["xn--mnchen-3ya.test:443"], ["münchen.test:443"])
    assert "mixed_scripts" not in {one["code"] for one in made["warnings"]}


@pytest.mark.parametrize("name", ["ap\u0456.openai.test", "\u0430\u0440\u0440\u04cf\u0435.test"])
def test_a_name_that_looks_like_another_is_warned_of(rest: Rest, name: str) -> None:
    made = rest.post("network-policies", {"name": "alike", "egress": [f"{name}:443"]}, status=201)
    assert "mixed_scripts" in {one["code"] for one in made["warnings"]}
