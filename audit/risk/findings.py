"""What an assessor says about code: findings with their place and weight, and the assessment they add up to."""

from __future__ import annotations

import functools
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Tier = Literal["L0", "L1", "L2", "L3"]
Kind = Literal["capability", "indicator", "correlation"]

TIERS: tuple[Tier, ...] = get_args(Tier)
BANDS = {"low": (0, 24), "medium": (25, 49), "high": (50, 74), "critical": (75, 100)}
MAX_SNIPPET = 120

# What must not travel from the assessed code into events and pages: values that look like credentials.
_SECRETS = (
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}"),
    re.compile(r"\b(?:gh[opsur]_|github_pat_|glpat-|sk-|xox[abp]-|gh_sb_)[\w-]{12,}"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*"),
    re.compile(r"(?i)(?<=://)[^/\s:@'\"]+:[^/\s@'\"]+(?=@)"),
    re.compile(
        r"(?i)(?:(?<=password)|(?<=passwd)|(?<=secret)|(?<=token)|(?<=api_key)|(?<=apikey))[\"']?\s*[=:]\s*[^\s,;)}]+"
    ),
)


def band_of(score: int) -> str:
    """Return the name of the band that a score falls into."""
    return next(name for name, (low, high) in BANDS.items() if low <= score <= high)


def higher(one: Tier, other: Tier) -> Tier:
    """Return the tier of the two that isolates more; the names sort by strength."""
    return max(one, other)


def snippet_of(text: str) -> str:
    """Return one line of code fit for events and pages: short, printable, without what looks like a credential."""
    return _shown(text[: MAX_SNIPPET * 4])


# The same few names and lines come again and again.
@functools.lru_cache(maxsize=2048)
def _shown(text: str) -> str:
    line = " ".join(text.split())
    for secret in _SECRETS:
        line = secret.sub("***", line)
    if not line.isprintable():
        line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= MAX_SNIPPET else line[: MAX_SNIPPET - 1] + "…"


@dataclass(frozen=True, slots=True)
class Span:
    """A place in the code. Lines count from 1, columns and offsets from 0, both in characters."""

    line: int
    column: int
    end_line: int
    end_column: int
    offset: int
    end_offset: int

    def as_dict(self) -> dict[str, int]:
        """Return it as JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, int]) -> Span:
        """Read what `as_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason for the tier and the score."""

    rule: str
    title: str
    kind: Kind
    weight: int
    tier: Tier
    message: str
    span: Span | None = None
    snippet: str = ""
    chain: tuple[Span, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self) | {"chain": [span.as_dict() for span in self.chain]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """Read what `as_dict` wrote."""
        span = None if data["span"] is None else Span.from_dict(data["span"])
        return cls(**data | {"span": span, "chain": tuple(map(Span.from_dict, data["chain"]))})


@dataclass(frozen=True, slots=True)
class Assessment:
    """The verdict on one piece of code: the weakest isolation it may run in, a score, and why."""

    ruleset: str
    language: str
    tier: Tier
    score: int
    band: str
    findings: tuple[Finding, ...]
    floor_reason: str
    unassessable: str | None
    ms: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        shallow = {name: getattr(self, name) for name in self.__slots__}
        return shallow | {"findings": [finding.as_dict() for finding in self.findings]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Assessment:
        """Read what `as_dict` wrote."""
        return cls(**data | {"findings": tuple(map(Finding.from_dict, data["findings"]))})
