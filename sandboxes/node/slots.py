"""Ranges of user ids: each sandbox has one of its own for as long as anything of it is left."""

from __future__ import annotations

from sandboxes.node.errors import NoRoom

# From here to 0x7fff_ffff nobody else gives out ids: systemd's containers get lower ones, and higher ones are negative
# to programs that take them for signed numbers.
_FIRST_UID = 0x7000_0000
UIDS_PER_SLOT = 65_536
MAX_SLOTS = 4_096


def uid_base(slot: int) -> int:
    """Return the first host uid of a slot; it is root inside the sandbox."""
    return _FIRST_UID + slot * UIDS_PER_SLOT


class Slots:
    """Hands out slot numbers in turn, so that a range rests as long as possible before it is used again."""

    def __init__(self, count: int = MAX_SLOTS) -> None:
        self._count = count
        self._used: set[int] = set()
        self._next = 0

    def take(self) -> int:
        """Return a free slot; NoRoom when every range is in use."""
        for offset in range(self._count):
            slot = (self._next + offset) % self._count
            if slot not in self._used:
                self._used.add(slot)
                self._next = slot + 1
                return slot
        raise NoRoom("Every uid range of this host is in use.", resource="uid_ranges", needed=1, free=0)

    def claim(self, slot: int) -> None:
        """Mark a slot that an adopted sandbox already uses."""
        self._used.add(slot)
        self._next = max(self._next, slot + 1)

    def release(self, slot: int) -> None:
        """Give the slot back once nothing of its sandbox is left."""
        self._used.discard(slot)

    @property
    def used(self) -> int:
        """How many slots are in use."""
        return len(self._used)
