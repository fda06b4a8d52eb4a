"""`execute`: a file of code, run once in a sandbox of its own at the tier that it needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehouse.cli.control import Control
from gatehouse.cli.errors import TIMED_OUT, USAGE, CliError

if TYPE_CHECKING:
    from argparse import Namespace

_BASH = frozenset({".sh", ".bash"})
_START_S = 90


def execute(control: Control, options: Namespace) -> int:
    """Run the file, write what it wrote, and return its exit code."""
    language = options.language or ("bash" if Path(options.file).suffix in _BASH else "python")
    body: dict[str, Any] = {
        "code": _read(options.file),
        "language": language,
        "timeout_s": options.timeout,
        "env": options.env,
    }
    for name in ("tier", "template", "network"):
        if getattr(options, name) is not None:
            body[name] = getattr(options, name)
    patient = Control(control.place, timeout=options.timeout + _START_S)
    done = patient.call("POST", "executions", body)
    if options.json:
        sys.stdout.write(json.dumps(done, indent=2) + "\n")
    else:
        sys.stdout.write(done["stdout"] or "")
        sys.stderr.write(done["stderr"] or "")
    sys.stdout.flush()
    if done["state"] == "timed_out":
        raise CliError("The code took longer than --timeout and was killed.", status=TIMED_OUT)
    if done["state"] != "completed":
        raise CliError(f"The code did not run to its end. {done['reason']}")
    return int(done["exit_code"])


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode()
    except OSError as error:
        raise CliError(f"{name} can't be read: {error.strerror}.", status=USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{name} is not UTF-8.", status=USAGE) from error
