"""The tests of tests/sdk/js: the JavaScript SDK under Node's own test runner, against the same stack."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.live import ROOT

if TYPE_CHECKING:
    from tests.live import Stack

SUITE = ROOT / "tests" / "sdk" / "js"


def test_packages_are_installed() -> None:
    assert (SUITE / "node_modules" / "e2b").exists(), "The JavaScript SDK is missing: `make test` installs it first."
    assert shutil.which("node")


@pytest.mark.parametrize("template", ["base", "base-process"])
@pytest.mark.parametrize("name", sorted(path.name for path in SUITE.glob("*.test.mjs")))
def test_javascript_sdk_passes(roomy_stack: Stack, name: str, template: str) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("E2B_")},
        "E2B_API_KEY": roomy_stack.key,
        "E2B_API_URL": roomy_stack.url,
        "E2B_SANDBOX_URL": roomy_stack.url,
        "GATEHOUSE_TEST_TEMPLATE": template,
    }
    command = ["node", "--test", "--test-reporter=spec", str(SUITE / name)]
    done = subprocess.run(command, cwd=SUITE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
