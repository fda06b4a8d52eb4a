"""House rules that a machine can keep: docstrings, no loose ends, no words that don't belong here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.architecture.code import ROOT, files, product_modules, shown

THIS = Path(__file__)
# Written apart, so that this list does not find itself.
LOOSE_ENDS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
UNFINISHED = re.compile("NotImplemented" + "Error|pytest.mark.sk" + "ip|pytest.sk" + "ip|mark.xf" + "ail")
# Programs that other people wrote and no package index need have: their tests say what refused them. All else runs.
MAY_BE_ABSENT = {"tests/vaults/emulator.py"}
UNVERIFIED = re.compile(r"\b(?:connection_verify|verify_challenge_resource|verify)=Fal" + "se")
MACHINE = re.compile("/wo" + "rk/|/home/" + "[a-z]+/(src|code|projects)/")
TEXTS = (".py", ".go", ".md", ".toml", ".txt", ".sh", ".mjs", ".json", ".yml", ".yaml", ".html", ".css", "Makefile")


def found(pattern: re.Pattern[str], *suffixes: str) -> list[str]:
    return [
        f"{shown(path)}:{number}"
        for path in files(*suffixes)
        if path != THIS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_for_later() -> None:
    assert found(LOOSE_ENDS, *TEXTS) == []


def test_nothing_is_unfinished_or_switched_off() -> None:
    places = found(UNFINISHED, ".py")
    assert [place for place in places if place.partition(":")[0] not in MAY_BE_ABSENT] == []


def test_no_client_is_told_to_trust_whoever_answers() -> None:
    assert found(UNVERIFIED, ".py") == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert found(MACHINE, *TEXTS) == []


def test_everything_public_says_what_it_is() -> None:
    silent = [f"{shown(path)}: {name}" for path in product_modules() for name in undocumented(path)]
    assert silent == []


def undocumented(path: Path) -> list[str]:
    """Return the public names of a module that have no docstring."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    silent = [] if ast.get_docstring(module) or not module.body else ["the module"]
    for node in module.body:
        silent += silent_names(node)
    return silent


def silent_names(node: ast.stmt, owner: str = "") -> list[str]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return []
    if node.name in {"Meta"}:
        return []
    name = f"{owner}{node.name}"
    silent = [] if ast.get_docstring(node) or is_overload(node) else [name]
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            silent += silent_names(inner, f"{name}.")
    return silent


def is_overload(node: ast.stmt) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in decorators)


def test_packages_are_pinned_and_say_what_they_are_for() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line.strip() and not line.startswith("#")]
    assert entries[-1] == "-e ."
    assert [line for line in entries[:-1] if not re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+\s+# .+", line)] == []
