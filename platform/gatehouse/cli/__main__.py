"""`gatehouse`: the commands and their options."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gatehouse.cli import copy, execute, run, sandboxes
from gatehouse.cli.control import Control
from gatehouse.cli.errors import USAGE, CliError
from gatehouse.cli.transport import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_URL = "http://localhost:8000"
INTERRUPTED, READER_GONE = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(Control(place(options, os.environ)), options)
    except CliError as error:
        sys.stderr.write(f"gatehouse: {error.message}\n")
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Our reader, such as `head`, has seen enough; what is buffered must not fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return code


def place(options: argparse.Namespace, env: Mapping[str, str]) -> Place:
    """Return where Gatehouse is and the key: from the flags, else the environment. Raises CliError."""
    url = options.url or env.get("GATEHOUSE_URL") or env.get("E2B_API_URL") or DEFAULT_URL
    key = options.api_key or env.get("GATEHOUSE_API_KEY") or env.get("E2B_API_KEY") or ""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(f"{url!r} is no URL: GATEHOUSE_URL must look like {DEFAULT_URL}.", status=USAGE)
    if not key:
        raise CliError("There is no API key: set GATEHOUSE_API_KEY, or pass --api-key.", status=USAGE)
    if not (key.isascii() and key.isprintable()):
        raise CliError("The API key holds characters that no key has: copy it once more.", status=USAGE)
    return Place(url.rstrip("/"), key)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="gatehouse", description="Create sandboxes and work in them.")
    top.add_argument("--url", help=f"where Gatehouse is; else GATEHOUSE_URL, E2B_API_URL, {DEFAULT_URL}")
    top.add_argument("--api-key", help="the key; better in GATEHOUSE_API_KEY or E2B_API_KEY, which others can't see")
    commands = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    _add_create(commands.add_parser("create", help="create a sandbox and print its id"))
    _add_list(commands.add_parser("ls", help="list sandboxes"))
    _add_execute(
        commands.add_parser("execute", help="run a file of code in a sandbox of its own; its exit code is ours")
    )
    _add_exec(commands.add_parser("exec", help="run a command; its exit code is ours"))
    _add_shell(commands.add_parser("shell", help="open a terminal"))
    _add_copy(commands.add_parser("cp", help="copy files in or out"))
    _add_logs(commands.add_parser("logs", help="show what happened to a sandbox"))
    _add_simple(commands.add_parser("info", help="show one sandbox as JSON"), sandboxes.info)
    _add_simple(commands.add_parser("pause", help="freeze a sandbox with its memory"), sandboxes.pause)
    for verb, work, text in (
        ("resume", sandboxes.resume, "let a paused sandbox go on"),
        ("extend", sandboxes.extend, "let a sandbox go on for at least this long"),
    ):
        one = commands.add_parser(verb, help=text)
        _add_simple(one, work)
        one.add_argument("--timeout", type=int, default=300, metavar="S", help="seconds from now; 300 without it")
    kill = commands.add_parser("kill", help="end sandboxes")
    kill.add_argument("sandboxes", nargs="+", metavar="ID")
    kill.set_defaults(run=sandboxes.kill)
    return top


def _add_simple(one: argparse.ArgumentParser, work: object) -> None:
    one.add_argument("sandbox", metavar="ID")
    one.set_defaults(run=work)


def _add_create(one: argparse.ArgumentParser) -> None:
    one.add_argument("-t", "--template", default="base", help="its name or id; base without it")
    one.add_argument("--timeout", type=int, default=300, metavar="S", help="seconds it lives; 300 without it")
    one.add_argument("--tier", help="a better isolation than the template's")
    one.add_argument("--profile", help="workstation or hardened")
    one.add_argument("--runtime", help="crun, runc or runsc")
    one.add_argument("--cpu", type=int, metavar="MILLI", help="thousandths of a CPU")
    one.add_argument("--memory", type=int, metavar="MIB")
    one.add_argument("--disk", type=int, metavar="MIB")
    one.add_argument("--on-timeout", choices=("kill", "pause"), default="kill")
    one.add_argument("--auto-resume", action="store_true", help="let requests to its ports wake it")
    one.add_argument("--private", action="store_true", help="its ports need the traffic token")
    one.add_argument("--network", metavar="POLICY", help="a network policy; the tenant's default without it")
    _add_pairs(one, "-m", "--metadata", "a label; more than once for more")
    _add_pairs(one, "-e", "--env", "an environment variable of all its commands")
    one.add_argument("--json", action="store_true", help="print all about it, its token too")
    one.set_defaults(run=sandboxes.create)


def _add_list(one: argparse.ArgumentParser) -> None:
    one.add_argument("-a", "--all", action="store_true", help="ended ones too")
    one.add_argument("--state", default="live", help="only this state")
    _add_pairs(one, "-m", "--metadata", "only with this label")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=sandboxes.ls)


def _add_inside(one: argparse.ArgumentParser) -> None:
    one.add_argument("-u", "--user", help="as this user; the sandbox's own without it")
    one.add_argument("-w", "--cwd", help="in this folder; the user's home without it")
    _add_pairs(one, "-e", "--env", "an environment variable")


def _add_exec(one: argparse.ArgumentParser) -> None:
    _add_inside(one)
    one.add_argument("-i", "--interactive", action="store_true", help="pass on what is typed; pipes are passed anyway")
    one.add_argument("--timeout", type=float, metavar="S", help="kill it after this many seconds")
    one.add_argument("sandbox", metavar="ID")
    one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    one.set_defaults(run=run.execute)


def _add_execute(one: argparse.ArgumentParser) -> None:
    one.add_argument("-l", "--language", choices=("python", "bash"), help="as the file's name ends without it")
    one.add_argument("-t", "--template", help="the tier's public one without it")
    one.add_argument("--tier", help="at least this isolation")
    one.add_argument("--network", metavar="POLICY", help="a network policy; isolated without it")
    one.add_argument(
        "--timeout", type=int, default=30, metavar="S", help="kill it after this many seconds; 30 without it"
    )
    _add_pairs(one, "-e", "--env", "an environment variable")
    one.add_argument("--json", action="store_true", help="print all about it: tier, reasons, risk, findings")
    one.add_argument("file", metavar="FILE", help="a path here, or - for standard input")
    one.set_defaults(run=execute.execute)


def _add_shell(one: argparse.ArgumentParser) -> None:
    _add_inside(one)
    one.add_argument("--shell", default="/bin/bash", help="/bin/bash without it")
    _add_simple(one, run.shell)


def _add_copy(one: argparse.ArgumentParser) -> None:
    one.add_argument("-r", "--recursive", action="store_true", help="folders too")
    one.add_argument("-u", "--user", help="whose the new files are")
    one.add_argument("source", help="a path here, ID:PATH, or - for standard input")
    one.add_argument("target", help="ID:PATH, a path here, or - for standard output")
    one.set_defaults(run=copy.copy)


def _add_logs(one: argparse.ArgumentParser) -> None:
    one.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    one.add_argument("--json", action="store_true", help="print one JSON object a line")
    _add_simple(one, sandboxes.logs)


class _Pairs(argparse.Action):
    """Collects KEY=VALUE."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        key, equals, value = str(values).partition("=")
        if not equals or not key:
            parser.error(f"write {option} as KEY=VALUE, not {str(values)!r}")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), key: value})


def _add_pairs(one: argparse.ArgumentParser, short: str, long: str, text: str) -> None:
    one.add_argument(short, long, action=_Pairs, default={}, metavar="KEY=VALUE", help=text)


if __name__ == "__main__":
    sys.exit(main())
