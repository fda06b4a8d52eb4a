"""Fixtures of this folder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def anchor_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for the anchors of one test."""
    folder = tmp_path / "anchors"
    folder.mkdir()
    place = dataclasses.replace(settings.GATEHOUSE, anchor_folder=folder)
    monkeypatch.setattr(settings, "GATEHOUSE", place)
    return folder
