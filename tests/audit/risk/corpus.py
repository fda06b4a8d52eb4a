"""Counts how harmless code scores: `python -m tests.audit.risk.corpus DIR` judges every Python file under a folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from audit.risk.findings import BANDS, TIERS
from audit.risk.pool import Assessor


def count(folder: Path) -> list[str]:
    """Return the figures: tiers, bands, what could not be judged, and the heaviest rule of what scores high."""
    tiers: Counter[str] = Counter()
    bands: Counter[str] = Counter()
    heaviest: Counter[str] = Counter()
    unassessable: Counter[str] = Counter()
    with Assessor() as assessor:
        for path in sorted(folder.rglob("*.py")):
            judged = assessor.assess_blocking(path.read_bytes(), "python")
            tiers[judged.tier] += 1
            bands[judged.band] += 1
            if judged.unassessable is not None:
                unassessable[judged.unassessable] += 1
            if judged.score >= BANDS["high"][0]:
                heaviest[max(judged.findings, key=lambda found: found.weight).rule] += 1
    return [
        f"{tiers.total()} files",
        *(f"{name:<10}{tiers[name]:>6}" for name in TIERS),
        *(f"{name:<10}{bands[name]:>6}" for name in BANDS),
        *(f"{number:>6}  unassessable: {reason}" for reason, number in unassessable.most_common()),
        *(f"{number:>6}  {rule}" for rule, number in heaviest.most_common()),
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(count(Path(sys.argv[1]))) + "\n")
