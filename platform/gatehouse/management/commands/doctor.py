"""`manage.py doctor`: say what this host can run, and why not the rest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.management.base import BaseCommand

from corekit.errors import GatehouseError
from sandboxes.node import hostfacts, hostsettings
from tenants.vaults import choosing
from tenants.vaults.contract import Health

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

_MARKS = {True: "yes", False: "no", None: "?"}
_GRADES = {"good": "ok", "weak": "!", "fatal": "NO"}


def render(facts: hostfacts.HostFacts, vaults: Mapping[str, Health]) -> str:
    """Return the report as text, one line for each tier, fact and vault, with the fix below what is missing."""
    host = facts.host
    lines = [
        f"{host['system']}, Linux {host['kernel']}, {host['machine']}, {host['processors']} processors, "
        f"{host['memory_mib']} MiB memory, {host['disk_free_mib']} MiB free disk",
        "",
        "Isolation tiers",
    ]
    for tier in facts.tiers:
        lines.append(_line(f"{tier.level} {tier.name}", tier.available, _told(tier), tier.fix))
    lines += ["", "What they rest on"]
    lines += [_line(fact.name, fact.good, fact.value, fact.fix) for fact in facts.facts]
    lines += ["", "Settings that isolation depends on"]
    lines += [_setting_line(setting) for setting in facts.settings]
    lines += ["", "Vaults"]
    lines += [_line(name, one.ok, one.message, one.fix) for name, one in vaults.items()]
    return "\n".join([*lines, "", _verdict(facts)])


def _verdict(facts: hostfacts.HostFacts) -> str:
    if not facts.can_run_containers:
        return "Gatehouse cannot run here yet: mend tier L2 first."
    if not facts.is_safe:
        return "Gatehouse does not start here: mend what is marked NO first."
    return "Gatehouse can run here."


def _setting_line(setting: hostsettings.Setting) -> str:
    mark = "!" if setting.accepted else _GRADES[setting.grade]
    lines = [f"  {mark:<4}{setting.name:<33}{setting.value}"]
    if setting.grade != "good":
        lines += [f"{'':30}why: {setting.why}", f"{'':30}fix: {setting.fix}"]
    if setting.accepted:
        lines.append(f"{'':30}accepted by {hostsettings.ACCEPT}")
    return "\n".join(lines)


def _told(tier: hostfacts.Tier) -> str:
    programs = ", ".join(f"{name} {version}" for name, version in tier.runtimes.items())
    if tier.available or not programs:
        return tier.reason or programs
    return f"{tier.reason} (found: {programs})"


def _line(name: str, good: bool | None, text: str, fix: str | None) -> str:  # noqa: FBT001 - a fact's own value
    line = f"  {_MARKS[good]:<4}{name:<24}{text}"
    return line if good or not fix else f"{line}\n{'':30}fix: {fix}"


class Command(BaseCommand):
    """Prints the facts; the exit status is 0 when tier L2 can run and no setting of the host undoes it."""

    help = "Print what this host can run (tiers, runtimes, kernel features) and why not the rest."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the form of the output."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: object, json: bool, **options: object) -> None:
        """Print and exit."""
        home = settings.GATEHOUSE.home
        facts = hostfacts.gather(next(path for path in (home, *home.parents) if path.is_dir()))
        vaults = _vaults()
        self.stdout.write(_as_json(facts, vaults) if json else render(facts, vaults))
        sys.exit(0 if facts.can_run_containers and facts.is_safe else 1)


def _as_json(facts: hostfacts.HostFacts, vaults: Mapping[str, Health]) -> str:
    told = {name: {"ok": one.ok, "message": one.message, "fix": one.fix} for name, one in vaults.items()}
    return json.dumps(facts.as_json() | {"vaults": told}, indent=2)


def _vaults() -> dict[str, Health]:
    """Return how each vault is; what the configuration can't name stands for all."""
    try:
        return {name: one.vault.health() for name, one in choosing.configured().items()}
    except GatehouseError as error:
        return {"all": Health(ok=False, message=error.message, fix="mend the configuration of vaults")}
