"""Commands of the SDK: output, exit codes, users, environment, stdin, background, reconnect, kill."""

from __future__ import annotations

import hashlib
import time

import pytest
from e2b import AsyncSandbox, CommandExitException, Sandbox, TimeoutException
from e2b.exceptions import AuthenticationException, InvalidArgumentException, NotFoundException, SandboxException


def test_output_and_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo out; echo err >&2")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")


async def test_output_and_exit_code_async(async_sandbox: AsyncSandbox) -> None:
    result = await async_sandbox.commands.run("echo out; echo err >&2")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")


def test_failing_command_raises_with_its_output(sandbox: Sandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("echo before; echo sorry >&2; exit 7")
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (7, "before\n", "sorry\n")


def test_runs_as_user_in_its_home_by_default(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("id -un; pwd; echo $HOME $USER").stdout == "user\n/home/user\n/home/user user\n"


def test_runs_as_root_when_asked(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("id -u; pwd", user="root").stdout == "0\n/root\n"


def test_sudo_works_without_a_password(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("sudo id -u").stdout == "0\n"


def test_unknown_user_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(AuthenticationException, match="invalid username: 'mallory'"):
        sandbox.commands.run("id", user="mallory")


def test_environment_of_sandbox_and_command(sdk: dict[str, object]) -> None:
    sandbox = Sandbox.create(timeout=60, envs={"A": "sandbox", "B": "sandbox"}, **sdk)  # type: ignore[arg-type]
    try:
        assert sandbox.commands.run("echo $A $B", envs={"B": "command"}).stdout == "sandbox command\n"
        assert sandbox.commands.run("echo $A $B").stdout == "sandbox sandbox\n"
        assert sandbox.commands.run("echo $E2B_SANDBOX $E2B_SANDBOX_ID").stdout == f"true {sandbox.sandbox_id}\n"
    finally:
        sandbox.kill()


def test_working_directory(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("pwd", cwd="/tmp").stdout == "/tmp\n"


def test_missing_working_directory_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises((InvalidArgumentException, NotFoundException, SandboxException)):
        sandbox.commands.run("pwd", cwd="/nowhere")


def test_stdin_reaches_the_command_and_closes(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "hello ")
    sandbox.commands.send_stdin(handle.pid, "world\n")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "hello world\n"


def test_background_command_is_listed_and_killed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 600", background=True)
    assert [process.pid for process in sandbox.commands.list()] == [handle.pid]
    assert sandbox.commands.kill(handle.pid) is True
    with pytest.raises(CommandExitException):
        handle.wait()
    assert sandbox.commands.list() == []
    assert sandbox.commands.kill(handle.pid) is False


def test_reconnecting_gets_the_rest_of_the_output(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("for i in 1 2 3 4; do echo $i; sleep 0.3; done", background=True)
    handle.disconnect()
    again = sandbox.commands.connect(handle.pid)
    assert again.wait().stdout.endswith("4\n")


def test_kill_ends_what_the_command_started(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("(sleep 601 & sleep 602 & wait)", background=True)
    time.sleep(0.3)
    sandbox.commands.kill(handle.pid)
    time.sleep(0.3)
    left = sandbox.commands.run("pgrep -fc 'sleep 60[12]' || true").stdout
    assert left.strip() in {"0", "1"}, left  # pgrep's own shell may match itself


def test_time_limit_of_a_command(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 30", timeout=1)
    assert time.monotonic() - started < 5
    assert sandbox.commands.run("echo still here").stdout == "still here\n"


def test_output_survives_byte_for_byte(sandbox: Sandbox) -> None:
    size = 20 * 1024 * 1024
    script = (
        "import sys, hashlib; data = b'x\\n' * 10485760; "
        "sys.stdout.buffer.write(data); sys.stderr.write(hashlib.sha256(data).hexdigest())"
    )
    chunks: list[str] = []
    result = sandbox.commands.run(f'python3 -c "{script}"', on_stdout=chunks.append, timeout=120)
    text = "".join(chunks)
    assert len(text) == size
    assert hashlib.sha256(text.encode()).hexdigest() == result.stderr


def test_last_bytes_come_before_the_end(sandbox: Sandbox) -> None:
    for _ in range(20):
        assert sandbox.commands.run("head -c 100000 /dev/zero | tr '\\0' a; echo end").stdout.endswith("aend\n")


async def test_parallel_commands(async_sandbox: AsyncSandbox) -> None:
    import asyncio

    results = await asyncio.gather(*(async_sandbox.commands.run(f"sleep 0.2; echo {i}") for i in range(20)))
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(20)]
