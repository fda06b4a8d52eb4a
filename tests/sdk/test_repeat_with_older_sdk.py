"""The tests of tests/sdk/python once more, in an interpreter that holds an older SDK, against the same stack."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.live import ROOT

if TYPE_CHECKING:
    from tests.live import Stack

PYTHON = ROOT / "var" / "sdk-2.45.1" / "bin" / "python"
SUITE = ROOT / "tests" / "sdk" / "python"
FILES = sorted(path.name for path in SUITE.glob("test_*.py") if path.name != "test_use_latest_sdk.py")


def test_interpreter_holds_the_older_sdk() -> None:
    assert PYTHON.exists(), "The older SDK is missing: run `make test`, which installs it first."
    done = subprocess.run(
        [PYTHON, "-c", "import importlib.metadata as m; print(m.version('e2b'))"], capture_output=True, check=True
    )
    assert done.stdout == b"2.45.1\n"


@pytest.mark.parametrize("name", FILES)
def test_older_sdk_passes(roomy_stack: Stack, name: str) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("E2B_", "PYTEST_"))},
        "GATEHOUSE_TEST_URL": roomy_stack.url,
        "GATEHOUSE_TEST_KEY": roomy_stack.key,
    }
    command = [str(PYTHON), "-m", "pytest", "-q", "-c", str(SUITE / "older_sdk.ini"), str(SUITE / name)]
    done = subprocess.run(command, cwd=SUITE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
