"""What opens a sandbox from outside is never inside it, nor where any other user of the host could read it."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import structlog

from tests.security.conftest import with_root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.security.conftest import Place
    from tests.security.inside import Inside

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACCESS_KEY = secrets.token_hex(32)
AUDIT_KEY = secrets.token_hex(32)
KEY_ID = secrets.token_hex(8)
SECRETS = {"access key": ACCESS_KEY, "audit key": AUDIT_KEY, "API key's id": KEY_ID}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(place: Place) -> AsyncIterator[Inside]:
    """Return a sandbox with keys that are found nowhere else."""
    yield await place.sandbox(access_key=ACCESS_KEY, audit_key=AUDIT_KEY, grants={KEY_ID: None})


_SEARCH = r"""
def regions(pid):
    for line in open(f"/proc/{pid}/maps"):
        span, access = line.split()[:2]
        if access.startswith("r") and "[v" not in line:
            yield [int(end, 16) for end in span.split("-")]

def memory(pid):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for start, end in regions(pid):
            try:
                file.seek(start)
                yield file.read(end - start)
            except (OSError, OverflowError):
                continue

def holds(chunk, text):
    return text.encode() in chunk or bytes.fromhex(text) in chunk

seen = sum(len(chunk) for chunk in memory(1))
answer([seen > 1 << 20, any(holds(chunk, wanted) for chunk in memory(1))])
"""


# Elsewhere nobody inside may look.
@with_root
@pytest.mark.parametrize("what", SECRETS)
async def test_it_is_not_in_the_guest_s_memory(keyed: Inside, what: str) -> None:
    # Backwards, or the search would find what it was told to look for.
    found = await keyed.python(f"wanted = '{SECRETS[what][::-1]}'[::-1]\n{_SEARCH}")
    assert found == [True, False]


@pytest.mark.parametrize("what", SECRETS)
async def test_it_is_in_no_environment_command_line_or_file_inside(keyed: Inside, what: str) -> None:
    half = len(SECRETS[what]) // 2
    pattern = f"{SECRETS[what][: half - 1]}[{SECRETS[what][half - 1]}]{SECRETS[what][half:]}"
    places = "/proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc /home /root /run /tmp /var/tmp /opt /dev/shm /srv"
    done = await keyed.shell(f"grep -rlaE --devices=skip {shlex.quote(pattern)} {places} 2>/dev/null")
    assert (done.exit_code, done.stdout) in ((1, ""), (2, ""))


@pytest.mark.parametrize("what", SECRETS)
async def test_no_process_of_the_host_shows_it(keyed: Inside, what: str) -> None:
    for name in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                text = path.read_bytes()
            except OSError:
                continue
            assert SECRETS[what].encode() not in text, path


@pytest.mark.parametrize("what", SECRETS)
async def test_only_root_s_own_store_holds_it(place: Place, keyed: Inside, what: str) -> None:
    command = ["grep", "-rlFD", "skip", "--exclude=disk.img", SECRETS[what], "node", "run"]
    found = subprocess.run(command, cwd=place.home, capture_output=True, text=True, check=False).stdout.split()
    assert found == [f"node/sandboxes/{keyed.sandbox.spec.id}/spec.json"]


async def test_the_store_is_closed_to_everybody_else(place: Place, keyed: Inside) -> None:
    store = place.home / "node"
    directory = store / "sandboxes" / keyed.sandbox.spec.id
    for path in (store, store / "sandboxes", directory, store / "members", store / "runtime", store / "spool"):
        assert _owner_and_mode(path) == (0, 0, 0o700), path
    for path in (directory / "spec.json", directory / "state.json", *(store / "spool").iterdir()):
        assert _owner_and_mode(path) == (0, 0, 0o600), path


async def test_sockets_are_open_to_their_own_group_alone(place: Place, keyed: Inside) -> None:
    config = place.rig.node.config
    expected = {
        place.home / "run" / "node.sock": (0, config.control_gid, 0o660),
        place.home / "run" / "edge.sock": (0, config.gateway_gid, 0o660),
        place.home / "run" / "tap.sock": (0, config.gateway_gid, 0o660),
        place.home / "run" / "guests": (0, config.gateway_gid, 0o750),
        Path(keyed.socket_path).parent: (0, config.gateway_gid, 0o750),
        Path(keyed.socket_path): (0, config.gateway_gid, 0o660),
    }
    assert {path: _owner_and_mode(path) for path in expected} == expected


async def test_names_on_the_host_tell_nothing(place: Place, keyed: Inside) -> None:
    text = Path(f"/proc/{keyed.pid}/cgroup").read_text()
    assert set(re.findall(r"/(gatehouse-\S+)", text)) <= {
        f"{place.rig.node.config.cgroup_name}/{keyed.sandbox.state['slot']}"
    }
    state = json.dumps(keyed.sandbox.state)
    assert not [value for value in SECRETS.values() if value in state]


async def test_the_node_s_log_and_events_hold_none_of_it(place: Place) -> None:
    with structlog.testing.capture_logs() as lines:
        doomed = await place.sandbox(
            access_key=ACCESS_KEY[::-1],
            audit_key=AUDIT_KEY[::-1],
            grants={KEY_ID[::-1]: None},
            env={"TOKEN": "hush-hush"},
        )
        place.rig.keeper.revoke_key(KEY_ID[::-1])
        await place.end(doomed)
    told = json.dumps([lines, place.rig.events(doomed.sandbox.spec.id)], default=str)
    assert "sandbox_ended" in told
    for secret in (ACCESS_KEY[::-1], AUDIT_KEY[::-1], "hush-hush"):
        assert secret not in told


async def test_a_refused_start_does_not_repeat_what_it_was_given(place: Place) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(Exception, match=r"Template build nowhere") as refusal,
    ):
        await place.sandbox(build="nowhere", env={"TOKEN": "hush-hush"}, access_key=ACCESS_KEY)
    told = f"{lines}{refusal.value}"
    assert "hush-hush" not in told
    assert ACCESS_KEY not in told


async def test_only_the_environment_that_was_asked_for_reaches_the_guest(place: Place) -> None:
    doomed = await place.sandbox(env={"TOKEN": "hush-hush"})
    assert await doomed.text("echo $TOKEN") == "hush-hush\n"
    assert b"hush-hush" not in Path(f"/proc/{doomed.pid}/environ").read_bytes()
    await place.end(doomed)


def _owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)
