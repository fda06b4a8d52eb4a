"""The embedded broker hands each message to one consumer, and leaves nothing of it behind."""

from __future__ import annotations

import json
from queue import Empty
from typing import TYPE_CHECKING

import pytest
from kombu.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Return a connection to a broker in an empty folder."""
    for name in ("messages", "messages/control"):
        (tmp_path / name).mkdir()
    folder = str(tmp_path / "messages")
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}/control"}
    with Connection(transport="gatehouse.folderbroker:Transport", transport_options=options) as opened:
        yield opened


def files(folder: Path) -> list[str]:
    """Return the names of the messages that lie in the folder."""
    return sorted(path.name for path in (folder / "messages").iterdir() if path.is_file())


def test_a_message_is_taken_once_and_is_gone(connection: Connection, tmp_path: Path) -> None:
    one, other = connection.channel(), connection.channel()
    one._put("work", {"body": "text"})
    assert len(files(tmp_path)) == 1

    assert other._get("work") == {"body": "text"}

    with pytest.raises(Empty):
        one._get("work")
    assert files(tmp_path) == []


def test_other_queues_and_unfinished_messages_are_passed_by(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "messages" / "1_a.work.msg.new").write_text("{")
    channel = connection.channel()
    channel._put("control", {})

    with pytest.raises(Empty):
        channel._get("work")
    assert len(files(tmp_path)) == 2


def test_garbage_is_told_once_and_is_gone(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "messages" / "0_garbage.work.msg").write_text("{")
    channel = connection.channel()

    with pytest.raises(json.JSONDecodeError):
        channel._get("work")

    with pytest.raises(Empty):
        channel._get("work")
    assert files(tmp_path) == []
