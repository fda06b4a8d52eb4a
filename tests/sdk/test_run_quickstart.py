"""The commission's flow: create, write, run, list, read, extend, kill; with both Python SDKs and both examples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from e2b import AsyncSandbox, Sandbox

from tests.live import ROOT, Stack

SCRIPT = "import json\nprint(json.dumps({'mean': sum([1, 2, 3]) / 3}))\n"


def test_flow_of_the_sync_sdk(sdk: dict[str, Any]) -> None:
    sandbox = Sandbox.create(timeout=300, **sdk)
    try:
        sandbox.files.write("/home/user/analysis.py", SCRIPT)
        printed: list[str] = []
        result = sandbox.commands.run("python3 /home/user/analysis.py", timeout=30, on_stdout=printed.append)
        assert result.exit_code == 0
        assert result.stdout == '{"mean": 2.0}\n'
        assert "".join(printed) == result.stdout
        assert [entry.name for entry in sandbox.files.list("/home/user") if not entry.name.startswith(".")] == [
            "analysis.py"
        ]
        assert sandbox.files.read("/home/user/analysis.py") == SCRIPT
        sandbox.set_timeout(600)
        assert sandbox.is_running()
    finally:
        assert sandbox.kill() is True
    assert sandbox.is_running() is False


async def test_flow_of_the_async_sdk(sdk: dict[str, Any]) -> None:
    sandbox = await AsyncSandbox.create(timeout=300, **sdk)
    try:
        await sandbox.files.write("/home/user/analysis.py", SCRIPT)
        printed: list[str] = []
        result = await sandbox.commands.run("python3 /home/user/analysis.py", timeout=30, on_stdout=printed.append)
        assert (result.exit_code, result.stdout, "".join(printed)) == (0, '{"mean": 2.0}\n', '{"mean": 2.0}\n')
        assert await sandbox.files.read("/home/user/analysis.py") == SCRIPT
        await sandbox.set_timeout(600)
    finally:
        assert await sandbox.kill() is True
    assert await sandbox.is_running() is False


def _environment(stack: Stack) -> dict[str, str]:
    return {**os.environ, "E2B_API_KEY": stack.key, "E2B_API_URL": stack.url, "E2B_SANDBOX_URL": stack.url}


def test_python_example(stack: Stack) -> None:
    others = stack.live_ids()
    example = ROOT / "examples" / "quickstart.py"
    done = subprocess.run(
        [sys.executable, str(example)], env=_environment(stack), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.live_ids() <= others


def test_javascript_example(stack: Stack, tmp_path_factory: Any) -> None:
    others = stack.live_ids()
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("quickstart.mjs", "package.json"):
        shutil.copy(ROOT / "examples" / name, folder / name)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, check=True)
    done = subprocess.run(
        ["node", "quickstart.mjs"], cwd=folder, env=_environment(stack), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.live_ids() <= others
