"""`manage.py up` starts its processes in order, starts again what dies, and leaves nothing behind when it stops."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 15.0

# A service that says when it started, is ready at once, and notes when it is told to stop.
STEADY = """
import os, pathlib, signal, sys, time
here, name = pathlib.Path(os.environ["HERE"]), "{name}"
def note(word):
    with (here / "log").open("a") as log:
        log.write(f"{{name}} {{word}} {{os.getpid()}} {{time.monotonic()}}\\n")
def stop(*_):
    note("stops")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("starts")
(here / (name + ".ready")).touch()
{more}
while True:
    time.sleep(60)
"""


def steady(name: str, more: str = "", **facts: Any) -> dict[str, Any]:
    """Return the plan of a service that behaves well."""
    return {name: {"code": STEADY.format(name=name, more=more), **facts}}


class Stage:
    """A supervisor process and what can be seen of it."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.process: subprocess.Popen[bytes] | None = None
        self.said = ""

    def run(self, *plans: dict[str, Any], pass_fds: tuple[int, ...] = ()) -> None:
        """Start the supervisor over these services."""
        plan = {name: facts for each in plans for name, facts in each.items()}
        (self.here / "plan.json").write_text(json.dumps(plan))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.node.supervised", str(self.here / "plan.json")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self.process is not None
        return self.process.pid

    def log(self) -> list[list[str]]:
        """What the services noted, in order: name, word, pid, time."""
        path = self.here / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def words(self) -> list[str]:
        """The log as `name word`."""
        return [f"{name} {word}" for name, word, *_ in self.log()]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when the condition holds; fail when it does not in time."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, (self.words(), self.read())
            time.sleep(0.005)

    def wait_for_words(self, *words: str) -> None:
        """Return when the supervisor or its services have said all these."""
        self.wait_for(lambda: all(word in self.read() or word in self.words() for word in words))

    def read(self) -> str:
        """Return everything that the supervisor has said so far."""
        assert self.process is not None
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        while select.select([handle], [], [], 0)[0]:
            data = os.read(handle, 4096)
            if not data:
                break
            self.said += data.decode()
        return self.said

    def pid_of(self, name: str) -> int:
        """Return the pid of a service's newest process."""
        return [int(pid) for service, word, pid, _ in self.log() if (service, word) == (name, "starts")][-1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the supervisor to stop; return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for the supervisor's end; return its exit status."""
        assert self.process is not None
        self.read()
        code = self.process.wait(timeout=PATIENCE_S)
        self.read()
        return code


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A supervisor to be started, ended with all its services afterwards."""
    stage = Stage(tmp_path)
    yield stage
    if stage.process is not None:
        stage.process.kill()
        stage.process.wait(timeout=PATIENCE_S)
        assert stage.process.stdout is not None
        stage.process.stdout.close()
    for _, word, pid, _ in stage.log():
        if word == "starts":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Say whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_starts_everything_and_says_so_once(stage: Stage) -> None:
    stage.run(steady("web"), steady("worker", after=["web", "node"]), steady("node"))
    stage.wait_for_words("ready")

    assert sorted(stage.words()[:2]) == ["node starts", "web starts"]
    assert stage.words()[2] == "worker starts"
    assert stage.stop() == 0
    assert stage.said == "ready\n"


def test_what_is_killed_comes_back_within_a_moment(stage: Stage) -> None:
    stage.run(steady("web"), steady("node"))
    stage.wait_for_words("ready")
    first, killed_at = stage.pid_of("web"), time.monotonic()
    os.kill(first, signal.SIGKILL)
    stage.wait_for(lambda: stage.pid_of("web") != first)

    restarted_at = float(stage.log()[-1][3])
    assert restarted_at - killed_at < 3  # 0.1 s of waiting, the rest is how long a busy machine takes to start Python
    assert "web ended (signal 9); starting it again in 0.1 s." in stage.read()


def test_what_dies_again_and_again_waits_longer(stage: Stage) -> None:
    stage.run(steady("web"))
    stage.wait_for_words("ready")
    for started in range(1, 4):
        stage.wait_for(partial(_started, stage, started))
        os.kill(stage.pid_of("web"), signal.SIGKILL)
    stage.wait_for(lambda: "in 0.4 s" in stage.read())

    delays = [line.rpartition(" in ")[2] for line in stage.said.splitlines() if "again" in line]
    assert delays == ["0.1 s.", "0.2 s.", "0.4 s."]


def test_others_go_on_while_one_is_started_again(stage: Stage) -> None:
    stage.run(steady("web"), steady("node"))
    stage.wait_for_words("ready")
    node, web = stage.pid_of("node"), stage.pid_of("web")
    os.kill(web, signal.SIGKILL)
    stage.wait_for(lambda: stage.pid_of("web") != web)

    assert stage.pid_of("node") == node
    assert alive(node)


def test_they_are_stopped_in_order(stage: Stage) -> None:
    stage.run(steady("web"), steady("worker"), steady("node"))
    stage.wait_for_words("ready")

    assert stage.stop(signal.SIGINT) == 0
    assert stage.words()[3:] == ["web stops", "worker stops", "node stops"]


def test_one_that_does_not_stop_is_killed(stage: Stage) -> None:
    stage.run(steady("web", more="signal.signal(signal.SIGTERM, signal.SIG_IGN)", patience_s=0.3), steady("node"))
    stage.wait_for_words("ready")
    stage.wait_for(lambda: _ignores_term(stage.pid_of("web")))
    web = stage.pid_of("web")

    assert stage.stop() == 0
    assert "web did not stop in time and was killed." in stage.said
    assert not alive(web)
    assert stage.words()[-1] == "node stops"


def test_a_second_interrupt_does_not_wait(stage: Stage) -> None:
    stage.run(steady("web", more="signal.signal(signal.SIGTERM, signal.SIG_IGN)", patience_s=60))
    stage.wait_for_words("ready")
    stage.wait_for(lambda: _ignores_term(stage.pid_of("web")))
    os.kill(stage.pid, signal.SIGINT)
    time.sleep(0.2)

    began = time.monotonic()
    assert stage.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 5


def test_one_that_never_starts_ends_all_with_one_sentence(stage: Stage) -> None:
    stage.run(steady("node"), {"web": {"code": "import sys; sys.exit('the port is taken')"}})

    assert stage.end() == 1
    assert stage.said.count("the port is taken") == 3
    assert stage.said.splitlines()[-1] == "web fails to start (exit status 1): its messages above say why."
    assert stage.words() == ["node starts", "node stops"]


def test_a_service_becomes_its_user_for_good(stage: Stage) -> None:
    show = "import time; print(open('/proc/self/status').read(), 'end', flush=True); time.sleep(60)"
    stage.run({"web": {"code": show, "account": [65534, 65534, [4242]]}})
    stage.wait_for(lambda: "end" in stage.read())

    status = dict(line.split(":\t", 1) for line in stage.said.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].split() == ["4242"]
    assert status["NoNewPrivs"] == "1"
    assert status["CapEff"] == "0" * 16


def test_orphans_of_a_dead_service_are_let_go(stage: Stage) -> None:
    fork = "if os.fork() == 0:\n    time.sleep(0.5)\n    os._exit(0)"
    stage.run(steady("node", more=fork))
    stage.wait_for_words("ready")
    stage.wait_for(lambda: len(_children(stage.pid_of("node"))) == 1)
    orphan = _children(stage.pid_of("node"))[0]
    os.kill(stage.pid_of("node"), signal.SIGKILL)
    stage.wait_for(lambda: orphan in _children(stage.pid))

    stage.wait_for(lambda: not Path(f"/proc/{orphan}").exists())


def test_its_own_death_ends_the_services(stage: Stage) -> None:
    stage.run(steady("web"), steady("node"))
    stage.wait_for_words("ready")
    os.kill(stage.pid, signal.SIGKILL)

    stage.wait_for(lambda: {"web stops", "node stops"} <= set(stage.words()))


def test_a_restart_of_web_loses_no_connection(stage: Stage) -> None:
    path = stage.here / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(16)
        answer = (
            "import socket\n"
            f"listener = socket.socket(fileno={listener.fileno()})\n"
            "while True:\n"
            "    peer, _ = listener.accept()\n"
            "    peer.sendall(str(os.getpid()).encode())\n"
            "    peer.close()\n"
        )
        plan = steady("web", more=answer, descriptors=[listener.fileno()])
        stage.run(plan, pass_fds=(listener.fileno(),))
        stage.wait_for_words("ready")
        first = _ask(path)
        os.kill(int(first), signal.SIGKILL)
        stage.wait_for(lambda: not alive(int(first)))
        # Between two processes: the connection waits in the listener, and the next process answers it.
        second = _ask(path)

    assert int(second) == stage.pid_of("web") != int(first)


def _started(stage: Stage, times: int) -> bool:
    return stage.words().count("web starts") == times


def _ask(path: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(str(path))
        return peer.recv(64).decode()


def _ignores_term(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask.split()[1], 16) & (1 << (signal.SIGTERM - 1)))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
