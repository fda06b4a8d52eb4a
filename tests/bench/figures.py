"""Percentiles, and the table that the bench prints and keeps."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One line: times in ms, memory in MB, rates in events (1/s) or megabytes a second (MB/s).

    `floor` is what the bare tool does, measured in the same run.
    """

    name: str
    unit: str
    n: int
    p50: float
    p95: float
    p99: float
    floor: float | None
    ratio: float | None


def figure(name: str, samples: Sequence[float], floor: Sequence[float] | None = None, unit: str = "ms") -> Figure:
    """Sum samples up; the floor is the median of its own samples."""
    middle = statistics.median(samples)
    bottom = statistics.median(floor) if floor else None
    return Figure(
        name=name,
        unit=unit,
        n=len(samples),
        p50=round(middle, 3),
        p95=round(_percentile(samples, 95), 3),
        p99=round(_percentile(samples, 99), 3),
        floor=None if bottom is None else round(bottom, 3),
        ratio=None if not bottom else round(middle / bottom, 3),
    )


def _percentile(samples: Sequence[float], percent: int) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def header() -> str:
    """Return the head of the table."""
    return f"{'name':<58} {'unit':<4} {'n':>4} {'p50':>9} {'p95':>9} {'p99':>9} {'floor':>9} {'ratio':>6}"


def line(row: Figure) -> str:
    """Return one line of the table."""
    floor = "" if row.floor is None else f"{row.floor:.2f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    times = f"{row.p50:>9.2f} {row.p95:>9.2f} {row.p99:>9.2f}"
    return f"{row.name:<58} {row.unit:<4} {row.n:>4} {times} {floor:>9} {ratio:>6}"


def write(rows: Sequence[Figure], path: Path) -> None:
    """Keep the figures as a JSON list."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
