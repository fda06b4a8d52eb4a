"""Values for a while in the memory of this process, so that a vault is asked rarely and once at a time.

A value counts for some minutes. When the vault is away then, it counts on for an hour at most; a vault that refuses us,
or says that the secret is gone, is believed at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tenants.vaults.contract import SecretDisabled, SecretMissing, VaultUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from tenants.vaults.secretvalue import SecretValue

logger = structlog.get_logger("tenants.vaults")

FRESH_S = 300.0
# So that what was read together does not come due together.
JITTER = 0.1
NEGATIVE_S = 15.0
STALE_S = 3600.0
# A vault that is away is not asked again for each call.
PAUSE_S = 5.0
MAX_ENTRIES = 256
SWEEP_S = 60.0

_Absent = SecretMissing | SecretDisabled


@dataclass(slots=True)
class _Entry:
    revision: int
    found: SecretValue | _Absent
    read_at: float
    fresh_until: float


class ValueCache:
    """A value for each key; another revision of the key's secret is another value."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._under_way: dict[tuple[Hashable, int], Future[SecretValue]] = {}
        self._next_sweep = 0.0

    def get(self, key: Hashable, revision: int, load: Callable[[], SecretValue]) -> SecretValue:
        """Return the value of a key, loaded unless it is here. Of many that ask at once one loads, for all.

        Raises what `load` raises, unless an older value may stand in for a vault that is away.
        """
        with self._lock:
            now = self._clock()
            self._sweep(now)
            entry = self._entry(key, revision)
            if entry is not None and now < entry.fresh_until:
                return _told(entry.found)
            loading = self._under_way.get((key, revision))
            if loading is None:
                mine = self._under_way[key, revision] = Future()
        if loading is not None:
            return loading.result()
        return self._load(key, revision, load, mine)

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Forget the values whose keys are wanted."""
        with self._lock:
            for key in [key for key in self._entries if wanted(key)]:
                del self._entries[key]

    def _sweep(self, now: float) -> None:
        """Keep no value longer in memory than it may be used."""
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            for key in [key for key, entry in self._entries.items() if now >= entry.read_at + STALE_S]:
                del self._entries[key]

    def _load(
        self, key: Hashable, revision: int, load: Callable[[], SecretValue], mine: Future[SecretValue]
    ) -> SecretValue:
        try:
            value = self._loaded(key, revision, load)
        except BaseException as error:
            self._done(key, revision)
            mine.set_exception(error)
            raise
        self._done(key, revision)
        mine.set_result(value)
        return value

    def _loaded(self, key: Hashable, revision: int, load: Callable[[], SecretValue]) -> SecretValue:
        try:
            value = load()
        except (SecretMissing, SecretDisabled) as error:
            self._keep(key, revision, error, NEGATIVE_S)
            raise
        except VaultUnavailable as error:
            return self._stale(key, revision, error)
        self._keep(key, revision, value, FRESH_S * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311
        return value

    def _stale(self, key: Hashable, revision: int, error: VaultUnavailable) -> SecretValue:
        with self._lock:
            entry, now = self._entry(key, revision), self._clock()
            if entry is None or now >= entry.read_at + STALE_S or isinstance(entry.found, Exception):
                raise error
            entry.fresh_until = min(now + PAUSE_S, entry.read_at + STALE_S)
            logger.warning("vault_away_older_value_used", age_s=round(now - entry.read_at), error=error.message)
            return entry.found

    def _keep(self, key: Hashable, revision: int, found: SecretValue | _Absent, seconds: float) -> None:
        with self._lock:
            now = self._clock()
            self._entries[key] = _Entry(revision, found, now, now + seconds)
            self._entries.move_to_end(key)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def _entry(self, key: Hashable, revision: int) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or entry.revision != revision:
            return None
        self._entries.move_to_end(key)
        return entry

    def _done(self, key: Hashable, revision: int) -> None:
        with self._lock:
            del self._under_way[key, revision]


def _told(found: SecretValue | _Absent) -> SecretValue:
    if isinstance(found, SecretMissing | SecretDisabled):
        # A new one: an error that is raised again collects the traces of all who got it.
        raise type(found)(found.message)
    return found
