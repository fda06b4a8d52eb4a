"""`manage.py assess`: score pieces of code, one JSON line in, one JSON line out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from audit.risk.findings import BANDS
from audit.risk.pool import Assessor

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable, Iterator

EXIT_BAD_LINE = 3


class Command(BaseCommand):
    """Judges what a file holds, without a database and without running any of it."""

    help = "Score code: a file of JSON lines with id, lang and code; - is standard input."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the file."""
        parser.add_argument("file", help="JSON lines with id, lang and code; - for standard input")

    def handle(self, *args: object, file: str, **options: Any) -> None:
        """Print one line for each line."""
        bad = 0
        with Assessor(size=1) as assessor:
            for line in _lines(file):
                try:
                    answer = _assessed(assessor, line)
                except ValueError as error:
                    bad += 1
                    answer = {"id": _id_of(line), "error": str(error)}
                self.stdout.write(json.dumps(answer, ensure_ascii=False))
        if bad:
            self.stderr.write(f"{bad} line{'s' if bad > 1 else ''} could not be read.")
            sys.exit(EXIT_BAD_LINE)


def _lines(file: str) -> Iterator[bytes]:
    try:
        if file == "-":
            yield from _filled(sys.stdin.buffer)
        else:
            with Path(file).open("rb") as stream:
                yield from _filled(stream)
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}.") from error


def _filled(stream: Iterable[bytes]) -> Iterator[bytes]:
    return (line for line in stream if line.strip())


def _assessed(assessor: Assessor, line: bytes) -> dict[str, Any]:
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("A line is an object with id, lang and code.")
    if missing := [name for name in ("lang", "code") if not isinstance(entry.get(name), str)]:
        raise ValueError(f"A line needs {' and '.join(missing)}, as text.")
    judged = assessor.assess_blocking(entry["code"].encode("utf-8", "surrogatepass"), entry["lang"])
    low, high = BANDS[judged.band]
    return {
        "id": entry.get("id"),
        "tier": judged.tier,
        "score": judged.score,
        "band": judged.band,
        "range": f"{low}-{high}",
        "findings": [found.as_dict() for found in judged.findings],
        "unassessable": judged.unassessable,
        "ruleset": judged.ruleset,
        "ms": judged.ms,
    }


def _id_of(line: bytes) -> object:
    """Return the id of a line that is otherwise of no use, or None."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry.get("id") if isinstance(entry, dict) else None
