"""Writes signed checkpoints to places that the database's administrators can't change.

Who can write the database and has the signing key can make up another history. What was written elsewhere before
shows it. Each anchor gets every checkpoint in order and at least once.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from django.conf import settings
from django.db import transaction

from audit import outbound, recording
from audit.models import AnchorPosition, Checkpoint
from corekit import clock
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from pathlib import Path

logger = structlog.get_logger("gatehouse.audit")

BATCH = 20
_MODE = 0o640
_delivering = threading.Lock()


class AnchorError(Exception):
    """An anchor did not take a checkpoint. The text is one sentence without secrets."""


class Anchor(Protocol):
    """A place outside the database."""

    name: str

    def deliver(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint for good before returning; it may come again. Raises AnchorError."""
        ...


class DirectoryAnchor:
    """One file for each chain, to which one line is added for each checkpoint. What is there is never touched."""

    name = "directory"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, checkpoint: Checkpoint) -> None:
        """Add the line and wait until it is on disk."""
        try:
            self._append(self._folder / f"{checkpoint.chain}.jsonl", _line(checkpoint))
        except OSError as error:
            raise AnchorError(f"{self._folder} can't be written: {error.strerror}.") from error

    def _append(self, path: Path, line: bytes) -> None:
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            rest = _missing(handle, line)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        if is_new:
            _sync_folder(self._folder)


class WebhookAnchor:
    """A URL of the operator's. The checkpoint carries its own signature."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def deliver(self, checkpoint: Checkpoint) -> None:
        """Send it and wait until it was taken."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Gatehouse-Anchor",
            "webhook-id": f"{checkpoint.chain}-{checkpoint.size}",
        }
        answer = asyncio.run(outbound.post(self._url, _line(checkpoint), headers))
        if not answer.ok:
            raise AnchorError(answer.error or f"the host answered {answer.status}")


def names() -> tuple[str, ...]:
    """Return the names of the anchors that are set up."""
    found: tuple[str, ...] = settings.GATEHOUSE.anchors
    return found


def deliver_all() -> int:
    """Bring every anchor up to date as far as it goes; return how many checkpoints were taken."""
    if not _delivering.acquire(blocking=False):
        return 0
    try:
        return sum(_deliver(anchor) for anchor in _anchors())
    finally:
        _delivering.release()


def _anchors() -> list[Anchor]:
    place = settings.GATEHOUSE
    made: dict[str, Anchor] = {"directory": DirectoryAnchor(place.anchor_directory)}
    if place.anchor_webhook:
        made["webhook"] = WebhookAnchor(place.anchor_webhook)
    return [made[name] for name in names() if name in made]


def _deliver(anchor: Anchor) -> int:
    position, _ = AnchorPosition.objects.get_or_create(name=anchor.name)
    taken = 0
    # A batch at a time, so that a slow anchor leaves the others their turn.
    new: Any = Checkpoint.objects.filter(pk__gt=position.checkpoint_id).order_by("pk")[:BATCH]
    for checkpoint in new:
        try:
            anchor.deliver(checkpoint)
        except AnchorError as error:
            _note_failure(position, str(error))
            return taken
        taken += 1
        AnchorPosition.objects.filter(pk=anchor.name).update(
            checkpoint_id=checkpoint.pk, delivered_at=clock.now(), error=""
        )
        position.error = ""
    return taken


def _note_failure(position: AnchorPosition, error: str) -> None:
    """Keep why an anchor is behind; the first failure of an outage is an event."""
    logger.warning("anchor_failed", anchor=position.name, error=error)
    with transaction.atomic():
        AnchorPosition.objects.filter(pk=position.pk).update(error=error[:500])
        if not position.error:
            recording.record(
                "audit.anchor_failed",
                actor=SYSTEM,
                object_type="anchor",
                object_id=position.name,
                tenant_id=None,
                details={"error": error},
            )


def _line(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as one line, the same each time: its note, and the hashes since the one before it."""
    leaves = base64.b64encode(bytes(checkpoint.leaves)).decode()
    return json.dumps({"note": checkpoint.note, "leaves": leaves}, separators=(",", ":")).encode() + b"\n"


def _missing(handle: int, line: bytes) -> bytes:
    """Return what has to be added so that a file ends with a line: nothing, its rest, or all of it."""
    size = os.fstat(handle).st_size
    tail = os.pread(handle, len(line) + 1, max(0, size - len(line) - 1))
    if tail in {line, b"\n" + line}:
        return b""
    cut = tail[tail.rfind(b"\n") + 1 :]
    if not cut or (len(cut) < len(line) and line.startswith(cut)):
        # Whoever was killed while writing this line is helped to its end.
        return line[len(cut) :]
    return b"\n" + line


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
