"""`manage.py audit_verify`: say whether the ledger is what was signed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from audit import verify_export
from audit.models import PLATFORM_CHAIN
from audit.verification import badges, checking, findings
from audit.verification.snapshot import READ_ERRORS
from gatehouse.management.operator import tenant_named

if TYPE_CHECKING:
    from audit.verification.findings import ChainReport, Finding, Report


_WRONG_ARGUMENTS = 2
# With these a good result says less, or something else, than the badge beside the chain promises.
_OTHER_GROUNDS = ("key", "checkpoint", "anchors", "no_anchors", "last")


class Command(BaseCommand):
    """Checks events, chains, the tree's roots, signatures and anchors, and notes how it went beside the chain."""

    help = (
        "Check the ledger against its signatures. Status 0: as it was signed; 1: changed; 2: something is missing;"
        " 3: it can't be checked as asked."
    )

    # What is wrong with the settings must not keep anybody from looking.
    requires_system_checks = ()
    _begun = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take which chains, which keys and which anchors."""
        parser.add_argument("--tenant", metavar="SLUG", help="one tenant's chain only")
        parser.add_argument("--chain", help="one chain only: a tenant's id in 32 hex, or platform")
        parser.add_argument("--from", dest="first", type=_number, default=1, metavar="SEQ", help="the first number")
        parser.add_argument("--to", dest="last", type=_number, metavar="SEQ", help="the last number")
        parser.add_argument(
            "--key", action="append", metavar="HEX", help="a public key to trust, in place of the file's"
        )
        parser.add_argument(
            "--checkpoint", action="append", type=Path, default=[], metavar="FILE", help="a signed note"
        )
        parser.add_argument("--anchors", type=Path, metavar="DIR", help="a copy of the anchors' folder")
        parser.add_argument("--no-anchors", action="store_true", help="do without the anchors' folder")
        parser.add_argument("--export", metavar="FILE", help="check an exported file instead of the database")
        parser.add_argument("--jobs", type=_number, metavar="N", help="how many processes; one a core without it")
        parser.add_argument("--json", action="store_true", help="answer as JSON")

    def run_from_argv(self, argv: list[str]) -> None:
        """Run it from the command line, where wrong arguments must not look like missing rows."""
        try:
            super().run_from_argv(argv)
        except SystemExit as error:
            sys.exit(findings.USAGE if error.code == _WRONG_ARGUMENTS and not self._begun else error.code)

    def handle(self, *args: object, **options: Any) -> None:
        """Do it. Whatever state the tables are in, the answer is a verdict."""
        self._begun = True
        try:
            self._run(options)
        except (checking.UnusableError, DatabaseError, *READ_ERRORS, OSError, UnicodeDecodeError) as error:
            raise CommandError(" ".join(str(error).split()), returncode=findings.USAGE) from error

    def _run(self, options: dict[str, Any]) -> None:
        keys = checking.trusted_keys(options["key"])
        if options["export"]:
            sys.exit(verify_export.main([options["export"], *(part for key in keys for part in ("--key", key.hex()))]))
        report = checking.verify(
            checking.Request(
                chains=self._chains(options),
                first=options["first"],
                last=options["last"],
                keys=keys,
                notes=[path.read_text(encoding="utf-8") for path in options["checkpoint"]],
                anchors=None if options["no_anchors"] else options["anchors"] or checking.anchor_folder(),
                jobs=options["jobs"] or 0,
            )
        )
        if not any(options[name] for name in _OTHER_GROUNDS):
            badges.note(report)
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict(), indent=2))
        else:
            self._show(report)
        if report.status:
            sys.exit(report.status)

    def _chains(self, options: dict[str, Any]) -> list[str]:
        """Return the chains that were asked for; none stands for all."""
        if options["tenant"] and options["chain"]:
            raise checking.UnusableError("Name --tenant or --chain, not both.")
        if options["tenant"] == PLATFORM_CHAIN or options["chain"]:
            return [options["chain"] or PLATFORM_CHAIN]
        try:
            return [tenant_named(options["tenant"]).id.hex] if options["tenant"] else []
        except CommandError as error:
            raise checking.UnusableError(str(error)) from error

    def _show(self, report: Report) -> None:
        for chain in report.chains:
            self._show_chain(chain)
        for finding in report.findings:
            self.stdout.write(f"{finding.verdict}  {_sentence(finding)}")
        for note in report.notes:
            self.stdout.write(f"note: {note}")
        rate = f", {report.checked / report.seconds:,.0f} a second" if report.seconds and report.checked else ""
        self.stdout.write(
            f"{report.verdict}: {report.checked} events in {len(report.chains)} chains,"
            f" {report.waiting} waiting for their number{rate}"
        )

    def _show_chain(self, chain: ChainReport) -> None:
        self.stdout.write(
            f"{chain.chain}  {chain.verdict}  {chain.size} events, {chain.checked} checked, {chain.pruned} pruned,"
            f" last checkpoint that holds: {chain.good_checkpoint or 'none'}"
        )
        for finding in chain.findings[:20]:
            self.stdout.write(f"  {finding.verdict}  {_sentence(finding)}")
            if finding.expected or finding.found:
                self.stdout.write(f"    expected {finding.expected or '-'}")
                self.stdout.write(f"    found    {finding.found or '-'}")
        if left := len(chain.findings[20:]) + chain.more:
            self.stdout.write(f"  and {left} more")


def _sentence(finding: Finding) -> str:
    where = [f"number {finding.seq}" if finding.seq else "", f"event {finding.event_id}" if finding.event_id else ""]
    return f"{', '.join(part for part in where if part)}: {finding.note}".removeprefix(": ")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)
