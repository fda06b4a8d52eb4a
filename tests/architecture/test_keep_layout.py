"""The folders are where the architecture says, and nothing else is at the root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.architecture.code import IGNORED, ROOT, files, product_modules, shown

FOLDERS = {
    *("platform", "tenants", "sandboxes", "audit", "templates", "static", "tests"),
    *("docs", "examples", "deploy", ".ci"),
}
FILES = {
    *("manage.py", "requirements.txt", "pyproject.toml", "Makefile", ".gitignore"),
    *("README.md", "CHANGELOG.md", "SECURITY.md", "THREAT_MODEL.md", "LICENSE"),
}
MAX_LINES = 500


def test_the_root_holds_what_the_architecture_names() -> None:
    present = {path.name for path in ROOT.iterdir() if path.name not in IGNORED and not path.name.endswith("_cache")}
    assert present - FOLDERS - FILES == set()
    assert {"manage.py", "platform", "tenants", "sandboxes", "audit", "templates", "static", "tests"} <= present
    assert {"requirements.txt", "pyproject.toml"} <= present


def test_generated_folders_are_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/.venv/", "/var/", "node_modules/", "__pycache__/"} <= set(ignored)


def test_platform_is_a_path_entry_and_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert list((ROOT / "platform").glob("*.py")) == []
    assert not (ROOT / "platform.py").exists()
    packages = {path.name for path in (ROOT / "platform").iterdir() if path.name != "__pycache__"}
    assert packages <= {"corekit", "gatehouse", "agentruns", "gatehouse_langgraph"}


def test_the_standard_librarys_platform_stays_itself() -> None:
    code = "import platform; print(platform.system()); print(platform.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    system, origin = done.stdout.splitlines()
    assert system == "Linux"
    assert ROOT / "platform" not in Path(origin).parents


def test_modules_stay_short() -> None:
    long = {
        shown(path): lines
        for path in files(".py", ".go")
        if path.parent.name != "migrations"
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_there_is_no_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "misc", "common", "stuff"}
    assert [shown(path) for path in product_modules() if drawers & set(path.with_suffix("").parts)] == []


def test_every_app_has_an_init_with_its_purpose_or_nothing() -> None:
    packages = {path.parent for path in product_modules()}
    missing = [shown(folder) for folder in packages if not (folder / "__init__.py").exists()]
    assert missing == []
