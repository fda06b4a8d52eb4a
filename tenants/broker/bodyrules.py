"""What the JSON body of a request may say, where a token limits it: the model, the length of the answer, streaming.

A body that two readers could understand in two ways is refused: names that repeat or differ only in case, and text
that is not plain UTF-8.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from corekit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODEL, LENGTH, STREAM = "model", "max_tokens", "stream"
MAX_BODY = 1024 * 1024
"""A body that is looked at is held in memory, so it may not be larger."""
MAX_MODELS, MAX_MODEL = 32, 200
MOST_TOKENS = 10_000_000
# Each vendor has a name of its own for how long an answer may be, and some have had several.
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample")
# So many answers are made at once, each of that length.
_TIMES = ("n", "best_of", "num_generations")
_GOVERNED = frozenset({MODEL, STREAM, *_LENGTHS, *_TIMES})


class BrokenRule(ValueError):
    """The body says what the token does not allow, or can't be read."""


def check(params: Mapping[str, Any], body: bytes) -> None:
    """Hold a body to a token's rules. Raises BrokenRule, which never repeats the body."""
    said = _read(body)
    if MODEL in params and said.get(MODEL) not in params[MODEL]:
        raise BrokenRule("another model")
    if STREAM in params and said.get(STREAM, False) is not params[STREAM]:
        raise BrokenRule("streaming")
    if LENGTH in params:
        _check_length(params[LENGTH], said)


def _check_length(most: int, said: Mapping[str, Any]) -> None:
    lengths = [said[name] for name in _LENGTHS if name in said]
    if not lengths:
        raise BrokenRule("no length of the answer")
    # Which of several a vendor goes by is unknown, so the largest counts; and so do all answers together.
    times = 1
    for name in _TIMES:
        times = max(times, _whole(said.get(name, 1)))
    if max(map(_whole, lengths)) * times > most:
        raise BrokenRule("a longer answer")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise BrokenRule("a number that is none")
    return value


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenRule("not JSON") from error
    if not isinstance(found, dict):
        raise BrokenRule("no object")
    if any(name not in _GOVERNED and _carelessly(name) in _GOVERNED for name in found):
        raise BrokenRule("a name in another spelling")
    return found


def _carelessly(name: str) -> str:
    """Return what some vendors' readers take for a name: in any case, up to a zero, without what nobody sees."""
    return "".join(one for one in name.partition("\0")[0] if one.isprintable()).strip().casefold()


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BrokenRule("a name that repeats")
    return found


def _refuse(constant: str) -> object:
    raise BrokenRule(f"no JSON: {constant}")


def checked(wanted: Mapping[str, Any], *, field: str = "params") -> dict[str, Any]:
    """Return rules as a token keeps them. Raises InvalidInput that names the place."""
    models: object = wanted.get(MODEL)
    if isinstance(models, list) and not models:
        raise InvalidInput(f"{field}.{MODEL}: Name at least one model.", field=f"{field}.{MODEL}")
    return dict(wanted)
