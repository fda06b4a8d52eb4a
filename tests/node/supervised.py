"""Runs a supervisor over services described as JSON: the program that the tests of supervision drive.

`python -m tests.node.supervised FILE`. Every service is a few lines of Python that find the test's directory in `HERE`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from sandboxes.node.supervisor.loop import Account, Service, Supervisor


def main() -> int:
    """Run until stopped; what happens is told on stdout."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    here = Path(sys.argv[1]).parent
    services = [_service(name, facts, here) for name, facts in plan.items()]
    supervisor = Supervisor(
        services,
        say=lambda text: print(text, flush=True),  # noqa: T201 - the test reads it
        on_ready=lambda _seconds: print("ready", flush=True),  # noqa: T201
    )
    return supervisor.run()


def _service(name: str, facts: dict[str, Any], here: Path) -> Service:
    account = facts.get("account")
    return Service(
        name=name,
        command=(sys.executable, "-c", facts["code"]),
        environment={"HERE": str(here), "PATH": os.environ["PATH"]},
        directory="/",
        account=Account(account[0], account[1], tuple(account[2])) if account else None,
        descriptors=tuple(facts.get("descriptors", ())),
        after=tuple(facts.get("after", ())),
        is_ready=(here / f"{name}.ready").exists,
        patience_s=facts.get("patience_s", 5.0),
    )


if __name__ == "__main__":
    sys.exit(main())
