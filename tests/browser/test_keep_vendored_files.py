"""What browsers load comes from here: vendored files are what their table says, and no template names another host."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.architecture.code import ROOT

if TYPE_CHECKING:
    from pathlib import Path

VENDOR = ROOT / "static" / "vendor"
ROW = re.compile(r"^\| (\S+) \| (\S+) \| ([\d.]+) \| (\S+) \| ([0-9a-f]{64}) \|$", re.MULTILINE)
ASSET = re.compile(r"""(?:src|href|action|url\(|@import|from)\s*[=(]?\s*["']?\s*((?:https?:)?//[^"'\s)]+)""")
OURS = [
    path
    for folder, suffix in (("templates", ".html"), ("static/css", ".css"), ("static/js", ".js"))
    for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
]


def test_the_table_names_every_file_with_its_hash() -> None:
    text = (VENDOR / "VENDOR.md").read_text(encoding="utf-8")
    listed = {name: digest for name, _, _, _, digest in ROW.findall(text)}
    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "VENDOR.md"
    }
    assert found == listed


def test_every_folder_names_the_version_of_its_row() -> None:
    for name, package, version, licence, _ in ROW.findall((VENDOR / "VENDOR.md").read_text(encoding="utf-8")):
        assert name.split("/")[0].endswith(f"-{version}"), package
        assert licence in {"MIT", "0BSD"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_ours_loads_from_another_host(path: Path) -> None:
    assert ASSET.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [one for one in OURS if one.suffix == ".html"], ids=lambda path: path.name)
def test_no_template_needs_a_weaker_policy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\sstyle\s*=|\son[a-z]+\s*=|javascript:|hx-on|hx-vals='js:|<style", text) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text) == []


def test_every_icon_that_a_template_names_is_in_the_sprite() -> None:
    sprite = (VENDOR / "tabler-icons-3.52.0" / "sprite.svg").read_text(encoding="utf-8")
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', sprite))
    named = {
        name
        for path in (ROOT / "templates").rglob("*.html")
        for name in re.findall(r'<c-icon name="([\w-]+)"|\sicon="([\w-]+)"', path.read_text(encoding="utf-8"))
        for name in name
        if name
    }
    assert named - drawn == set()
