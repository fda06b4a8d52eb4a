"""The reference pages name everything that there is: settings, commands, events, and no page links into the void."""

from __future__ import annotations

import re
from pathlib import Path

from audit import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("docs/**/*.md"),
    *(ROOT / name for name in ("README.md", "SECURITY.md", "THREAT_MODEL.md", "CHANGELOG.md")),
]
# Set by one process for another, never by a person.
INTERNAL = {
    *("GATEHOUSE_SERVICE", "GATEHOUSE_LISTEN_FD", "GATEHOUSE_NODE_GATEWAY"),
    *("GATEHOUSE_EGRESS_CONTROL_FD", "GATEHOUSE_BROKER_SOCKET"),
}


def page(name: str) -> str:
    """Return the text of a reference page."""
    return (ROOT / "docs" / "reference" / f"{name}.md").read_text()


def test_every_setting_is_described() -> None:
    read: set[str] = set()
    for folder in ("platform", "tenants", "sandboxes", "audit"):
        for path in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(r'"(GATEHOUSE_[A-Z_]+[A-Z]|DATABASE_URL|REDIS_URL)"', path.read_text()))

    assert read - INTERNAL - set(re.findall(r"`([A-Z_]+)`", page("configuration"))) == set()


def test_every_command_is_described() -> None:
    commands = {path.stem for path in ROOT.glob("platform/gatehouse/management/commands/[a-z]*.py")}
    described = set(re.findall(r"^\| `([a-z_]+)", page("commands"), re.MULTILINE))

    assert commands - described == set()


def test_every_target_of_make_is_described() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {target for target in targets - {"help"} if f"`make {target}`" not in page("commands")} == set()


def test_every_event_is_described_as_it_is_registered() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([a-z]+) \|", page("events"), re.MULTILINE))

    assert rows == {code.code: code.severity for code in registry.all_codes()}


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in PAGES
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
        if not target.startswith("https://") and not (path.parent / target).exists()
    ]

    assert broken == []
