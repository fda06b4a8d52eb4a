"""Nodes whose runtimes make the mistakes that a test asks for."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxes.node.errors import Quarantined
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.node.rig import Rig

# A runtime that does something else than it was told: it runs what a test wrote, then becomes the real one.
WRAPPER = """\
#!/usr/bin/python3 -IS
import json, os, sys
if "create" in sys.argv:
    with open("config.json") as file:
        config = json.load(file)
    exec(open({slip!r}).read())
    with open("config.json", "w") as file:
        json.dump(config, file)
elif "--chdir" in sys.argv:
    exec(open({slip!r}).read())
os.execv("/usr/bin/{program}", sys.argv)
"""


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that every user can walk into: pytest's own are closed, again with each run that begins."""
    with tempfile.TemporaryDirectory(prefix="gh-runtime-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="module")
def slip() -> Iterator[Path]:
    """Return the file with what the runtime does wrong, as Python; empty for a runtime that works."""
    with open_directory() as directory:
        (directory / "slip.py").touch()
        for program in ("crun", "bwrap"):
            (directory / program).write_text(WRAPPER.format(slip=str(directory / "slip.py"), program=program))
            (directory / program).chmod(0o755)
        yield directory / "slip.py"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(slip: Path) -> AsyncIterator[Rig]:
    """Return a node whose crun and bubblewrap make the mistakes that a test asks for."""
    with pytest.MonkeyPatch.context() as patch, rig.new_home() as home:
        patch.setenv("PATH", f"{slip.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
        async with rig.running_node(home) as running:
            yield running


@pytest.fixture(autouse=True)
def _no_slip(slip: Path) -> None:
    slip.write_text("")


async def refused(node: Rig, sandbox_id: str, **changes: Any) -> list[str]:
    """Start a sandbox that must not be handed out; return what differed, once nothing of it is left."""
    with pytest.raises(Quarantined) as caught:
        await node.start(sandbox_id, **changes)
    assert caught.value.details == {"reason": "quarantined"}
    assert sandbox_id not in node.keeper.sandboxes
    assert sandbox_id not in node.keeper.feed._routes
    quarantined, ended = node.events(sandbox_id)
    assert (quarantined["code"], ended["code"]) == ("sandbox.quarantined", "sandbox.ended")
    assert quarantined["details"]["mismatches"] == caught.value.mismatches[:20]
    assert ended["details"]["reason"] == "quarantined"
    await node.is_clean()
    return caught.value.mismatches


def assert_told(found: list[str], sentences: list[str]) -> None:
    """Each expected sentence begins one of those that were found."""
    for sentence in sentences:
        assert any(line.startswith(sentence) for line in found), found
