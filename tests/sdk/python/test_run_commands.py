"""process.Process through the SDK: Start, Connect, List, SendInput, CloseStdin, SendSignal, StreamInput."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from e2b import CommandExitException, InvalidArgumentException, NotFoundException, TimeoutException
from e2b.exceptions import AuthenticationException, SandboxException


async def test_run_returns_output_and_exit_code(box: Any, ok: Any) -> None:
    result = await ok(box.commands.run("echo out; echo err >&2"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")


async def test_run_fails_with_exit_code_and_output(box: Any, ok: Any) -> None:
    with pytest.raises(CommandExitException) as caught:
        await ok(box.commands.run("echo before; echo sorry >&2; exit 7"))
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (7, "before\n", "sorry\n")


async def test_run_of_an_unknown_program_is_127(box: Any, ok: Any) -> None:
    with pytest.raises(CommandExitException) as caught:
        await ok(box.commands.run("no-such-program-anywhere"))
    assert caught.value.exit_code == 127


@pytest.mark.parametrize("text", ["a" * 64, "with 'quotes' and \"more\"", "tab\tand $dollar", "ünïcödé ☃ 🚀", ""])
async def test_run_passes_text_as_it_is(box: Any, ok: Any, text: str) -> None:
    escaped = text.replace("'", "'\"'\"'")
    assert (await ok(box.commands.run(f"printf %s '{escaped}'"))).stdout == text


async def test_run_passes_many_lines(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("printf 'a\\n\\n\\nb\\n'; printf last"))).stdout == "a\n\n\nb\nlast"


async def test_run_calls_back_for_each_stream(box: Any, ok: Any) -> None:
    out: list[str] = []
    err: list[str] = []
    result = await ok(box.commands.run("echo 1; echo 2 >&2; echo 3", on_stdout=out.append, on_stderr=err.append))
    assert ("".join(out), "".join(err)) == (result.stdout, result.stderr) == ("1\n3\n", "2\n")


async def test_run_as_the_default_user_at_home(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("id -un; pwd; echo $HOME"))).stdout == "user\n/home/user\n/home/user\n"


async def test_run_in_another_directory(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("pwd", cwd="/tmp"))).stdout == "/tmp\n"
    assert (await ok(box.commands.run("mkdir -p there && cd there && pwd"))).stdout == "/home/user/there\n"
    assert (await ok(box.commands.run("pwd", cwd="there"))).stdout == "/home/user/there\n"


async def test_run_in_a_missing_directory_is_invalid(box: Any, ok: Any) -> None:
    with pytest.raises(InvalidArgumentException, match="'/no/where' does not exist"):
        await ok(box.commands.run("pwd", cwd="/no/where"))


async def test_run_with_variables_of_its_own(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("echo $A-$B", envs={"A": "x y", "B": "$HOME"}))).stdout == "x y-$HOME\n"
    assert (await ok(box.commands.run("echo $A-$B"))).stdout == "-\n"


async def test_run_knows_its_sandbox(box: Any, ok: Any) -> None:
    result = await ok(box.commands.run("echo $E2B_SANDBOX $E2B_SANDBOX_ID", envs={"E2B_SANDBOX_ID": "forged"}))
    assert result.stdout.split()[0] == "true"
    plain = await ok(box.commands.run("echo $E2B_SANDBOX_ID"))
    assert plain.stdout == f"{box.sandbox_id}\n"


async def test_run_as_an_unknown_user_is_refused(box: Any, ok: Any) -> None:
    with pytest.raises(AuthenticationException, match="invalid username: 'mallory'"):
        await ok(box.commands.run("id", user="mallory"))


async def test_run_as_root_where_there_is_one(box: Any, ok: Any, template: str) -> None:
    if template == "base-process":
        with pytest.raises(AuthenticationException, match="'root'"):
            await ok(box.commands.run("id -u", user="root"))
    else:
        assert (await ok(box.commands.run("id -u; pwd", user="root"))).stdout == "0\n/root\n"


async def test_run_past_its_time_limit_is_ended(box: Any, ok: Any) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutException):
        await ok(box.commands.run("exec sleep 654", timeout=1))
    assert time.monotonic() - began < 5
    # The SDK's clock and the sandbox's ring at the same moment, and either may be first.
    await ok(box.commands.run("while pgrep -fx 'sleep 654'; do sleep 0.05; done", timeout=10))


async def test_run_without_stdin_reads_the_end_at_once(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("cat; echo done"))).stdout == "done\n"


async def test_background_command_is_listed_until_killed(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("sleep 333", background=True, envs={"SEEN": "yes"}, cwd="/tmp"))
    listed = {process.pid: process for process in await ok(box.commands.list())}
    process = listed[handle.pid]
    assert (process.cmd, process.args, process.cwd) == ("/bin/bash", ["-l", "-c", "sleep 333"], "/tmp")
    assert process.envs["SEEN"] == "yes"
    assert (await ok(box.commands.run(f"kill -0 {handle.pid}"))).exit_code == 0
    assert await ok(box.commands.kill(handle.pid)) is True
    with pytest.raises(CommandExitException) as caught:
        await ok(handle.wait())
    assert caught.value.exit_code != 0
    assert handle.pid not in [process.pid for process in await ok(box.commands.list())]
    assert await ok(box.commands.kill(handle.pid)) is False


async def test_kill_through_the_handle(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("sleep 334", background=True))
    assert await ok(handle.kill()) is True
    assert await ok(handle.kill()) is False


async def test_stdin_reaches_the_command_and_closes(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("cat", background=True, stdin=True))
    await ok(box.commands.send_stdin(handle.pid, "grüße "))
    await ok(box.commands.send_stdin(handle.pid, ""))
    await ok(box.commands.send_stdin(handle.pid, b"welt\n"))
    await ok(box.commands.close_stdin(handle.pid))
    assert (await ok(handle.wait())).stdout == "grüße welt\n"


async def test_stdin_of_a_command_without_one_is_refused(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("sleep 335", background=True, stdin=False))
    with pytest.raises(SandboxException):
        await ok(box.commands.send_stdin(handle.pid, "lost"))
    await ok(handle.kill())


@pytest.mark.parametrize("call", ["send_stdin", "close_stdin", "connect"])
async def test_an_unknown_process_is_not_found(box: Any, ok: Any, call: str) -> None:
    arguments = (999_999, "x") if call == "send_stdin" else (999_999,)
    with pytest.raises(NotFoundException):
        await ok(getattr(box.commands, call)(*arguments))


async def test_connect_gets_the_rest_of_the_output(box: Any, ok: Any) -> None:
    handle = await ok(box.commands.run("read line; echo got $line", background=True, stdin=True))
    await ok(handle.disconnect())
    again = await ok(box.commands.connect(handle.pid))
    assert again.pid == handle.pid
    await ok(box.commands.send_stdin(handle.pid, "it\n"))
    assert (await ok(again.wait())).stdout == "got it\n"


async def test_two_listeners_hear_the_same(box: Any, ok: Any) -> None:
    first = await ok(box.commands.run("read line; seq 1 20000", background=True, stdin=True))
    second = await ok(box.commands.connect(first.pid))
    await ok(box.commands.send_stdin(first.pid, "go\n"))
    waits = [asyncio.to_thread(handle.wait) if box_is_sync(box) else handle.wait() for handle in (first, second)]
    heard = await asyncio.gather(*waits)
    assert heard[0].stdout == heard[1].stdout == "".join(f"{number}\n" for number in range(1, 20001))


def box_is_sync(box: Any) -> bool:
    """Tell which face of the SDK this is."""
    return type(box).__name__ == "Sandbox"


async def test_disconnecting_leaves_the_command_alone(box: Any, ok: Any, folder: str) -> None:
    handle = await ok(box.commands.run(f"sleep 0.3; touch {folder}.done; sleep 336", background=True))
    await ok(handle.disconnect())
    wait = f"until [ -e {folder}.done ]; do sleep 0.05; done; echo seen"
    assert (await ok(box.commands.run(wait, timeout=10))).stdout == "seen\n"
    assert await ok(box.commands.kill(handle.pid)) is True


async def test_a_hundred_thousand_lines_arrive_in_order(box: Any, ok: Any) -> None:
    result = await ok(box.commands.run("seq 1 100000"))
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 100001))


async def test_twenty_commands_at_once(box: Any) -> None:
    if box_is_sync(box):
        calls = [asyncio.to_thread(box.commands.run, f"echo {number}") for number in range(20)]
    else:
        calls = [box.commands.run(f"echo {number}") for number in range(20)]
    assert [result.stdout for result in await asyncio.gather(*calls)] == [f"{number}\n" for number in range(20)]


async def test_no_time_limit_at_all(box: Any, ok: Any) -> None:
    assert (await ok(box.commands.run("sleep 0.1; echo through", timeout=0))).stdout == "through\n"
