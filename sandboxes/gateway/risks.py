"""How risky an act is, before it happens: its code read by the assessor, everything else looked up in tables."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING

from audit.risk import reporting, seed_v1, shell
from audit.risk.assessor import assess_argv
from audit.risk.calls import assess_call
from audit.risk.circumstances import Circumstances, in_context
from corekit import tiers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.risk.findings import Assessment
    from audit.risk.pool import Assessor
    from sandboxes.gateway.routes import Route

_RUNS = "command.start"
_SHORT = 1024


async def of_act(assessor: Assessor, route: Route, code: str, arguments: Mapping[str, object]) -> Assessment:
    """Return how risky an act is in the sandbox that it is for."""
    if code != _RUNS:
        found = assess_call(code, arguments)
    elif (command := _argv(arguments)) is not None:
        found = _known(tuple(command)) or await assessor.assess_argv(command)
    else:
        found = await assessor.assess(*_cell(arguments))
    level = tiers.level(route.tier) if route.tier in tiers.TIERS else ""
    return in_context(found, Circumstances(level, route.network, route.denials.value(time.monotonic())))


def _known(command: tuple[str, ...]) -> Assessment | None:
    """Return what the tables say of a short command that holds no code: the same ones come again and again."""
    return _looked_up(command) if sum(map(len, command)) <= _SHORT else None


@functools.lru_cache(maxsize=1024)
def _looked_up(command: tuple[str, ...]) -> Assessment | None:
    return assess_argv(command) if shell.is_plain(command) else None


def _argv(arguments: Mapping[str, object]) -> list[str] | None:
    command, more = arguments.get("cmd"), arguments.get("args") or []
    if not isinstance(command, str) or not isinstance(more, list):
        return None
    return [command, *map(str, more)]


def _cell(arguments: Mapping[str, object]) -> tuple[bytes, str]:
    """Return the code of a cell and its language; a message of another form may run in ways that nobody knows."""
    code, language = arguments.get("code"), arguments.get("language") or "python"
    if not isinstance(code, str):
        return json.dumps(arguments).encode(), "unknown"
    return code.encode("utf-8", "surrogatepass"), str(language)


@functools.lru_cache(maxsize=1024)
def columns(assessment: Assessment) -> dict[str, object]:
    """Return an assessment as events have it. The same commands come again and again."""
    return reporting.columns(assessment)


def by_seed(tool: str, code: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Return what the ruleset seed-v1 says of an act."""
    score = seed_v1.score(tool, arguments)
    found: dict[str, object] = {"score": score.value, "reasons": score.reasons}
    if code == _RUNS:
        found["tier"] = f"L{seed_v1.tier(_text(arguments))}"
    return found


def _text(arguments: Mapping[str, object]) -> str:
    command = _argv(arguments)
    return str(arguments.get("code", "")) if command is None else " ".join(command)
