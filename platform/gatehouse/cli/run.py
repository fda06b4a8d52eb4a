"""`exec` and `shell`: a command in the sandbox with this terminal, or this pipe, at its ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehouse.cli.agent import Agent, Process
from gatehouse.cli.errors import NOT_STARTED, CliError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from gatehouse.cli.control import Control

_BLOCK = 32 * 1024
_STDIN, _STDOUT, _STDERR = 0, 1, 2


def execute(control: Control, options: Namespace) -> int:
    """Run a command and return its exit code."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CliError("Name the command, as in `gatehouse exec ID -- ls -l`.", status=2)
    agent = _agent(control, options)
    piped = options.interactive or not (os.isatty(_STDIN) or _has_ended(_STDIN))
    try:
        process = agent.start(command, cwd=options.cwd, env=options.env, stdin=piped, timeout_s=options.timeout)
    except CliError as error:
        raise CliError(error.message, status=max(error.status, NOT_STARTED)) from error
    interrupted = _pass_interrupts(process)
    if piped:
        _in_background(_feed, process)
    for name, data in process.output():
        _write(_STDERR if name == "stderr" else _STDOUT, data)
    return 130 if interrupted else int(process.code or 0)


def shell(control: Control, options: Namespace) -> int:
    """Open a terminal in the sandbox and return the shell's exit code."""
    if not (os.isatty(_STDIN) and os.isatty(_STDOUT)):
        raise CliError("A shell needs a terminal on both ends; use `gatehouse exec` in scripts.", status=2)
    command = [options.shell, "-i", "-l"]
    env = {"TERM": os.environ.get("TERM", "xterm-256color"), "LANG": os.environ.get("LANG", "C.UTF-8"), **options.env}
    process = _agent(control, options).start(command, cwd=options.cwd, env=env, size=_size())
    with _raw_terminal():
        _follow_size(process)
        _in_background(_type, process)
        for _, data in process.output():
            _write(_STDOUT, data)
    return int(process.code or 0)


def _has_ended(descriptor: int) -> bool:
    """Say whether an input is known to hold nothing, as `/dev/null` and most background jobs' do."""
    mode = os.fstat(descriptor)
    return stat.S_ISCHR(mode.st_mode) and mode.st_rdev == Path(os.devnull).stat().st_rdev


def _agent(control: Control, options: Namespace) -> Agent:
    return Agent(control.place, control.open(options.sandbox)["access"], user=options.user)


def _pass_interrupts(process: Process) -> list[int]:
    """Let Ctrl-C end the command instead of us: SIGTERM first, SIGKILL when it is pressed again."""
    seen: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        seen.append(number)
        with contextlib.suppress(CliError):
            process.signal("SIGTERM" if len(seen) == 1 else "SIGKILL")

    signal.signal(signal.SIGINT, interrupt)
    return seen


def _feed(process: Process) -> None:
    """Pass our standard input on, to its end."""
    # Not through sys.stdin: its lock would be held when we end before the input does.
    while block := os.read(_STDIN, _BLOCK):
        process.send(block)
    process.close_stdin()


def _type(process: Process) -> None:
    """Pass on what is typed."""
    while block := os.read(_STDIN, _BLOCK):
        process.send(block, kind="pty")


def _in_background(work: Any, process: Process) -> None:
    def run() -> None:
        # The command may have ended meanwhile, or never read its input: its output says how it went.
        with contextlib.suppress(CliError, OSError):
            work(process)

    threading.Thread(target=run, daemon=True).start()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _size() -> tuple[int, int]:
    found = shutil.get_terminal_size()
    return found.columns, found.lines


def _follow_size(process: Process) -> None:
    def resized(_number: int, _frame: object) -> None:
        with contextlib.suppress(CliError):
            process.resize(_size())

    signal.signal(signal.SIGWINCH, resized)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand every key on as it is typed; the terminal is as before afterwards, whatever happens."""
    import termios
    import tty

    before = termios.tcgetattr(_STDIN)
    # What was typed ahead is kept.
    tty.setraw(_STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)
        sys.stdout.flush()
