"""Labelled code gets the tier and the band that people gave it, and no rewriting of it lowers its tier."""

from __future__ import annotations

import base64
import json
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audit.risk.assessor import assess
from audit.risk.findings import BANDS, TIERS

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[2] / "data" / "risk"
SETS = ("risk-snippets", "own-snippets", "shell-snippets", "agent-snippets", "kind-snippets")
RANGES = {f"{low}-{high}": name for name, (low, high) in BANDS.items()}
NAMES = list(BANDS)


@dataclass(frozen=True)
class Judged:
    id: str
    wanted: str
    tier: str
    wanted_band: str
    band: str
    reasons: str

    def __str__(self) -> str:
        return f"{self.id}: wanted {self.wanted} {self.wanted_band}, got {self.tier} {self.band} ({self.reasons})"


def labelled(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module", params=SETS)
def judged(request: pytest.FixtureRequest) -> list[Judged]:
    rows = []
    for row in labelled(request.param):
        got = assess(row["code"].encode("utf-8", "surrogatepass"), row["lang"])
        reasons = ", ".join(f"{found.rule} {found.weight}" for found in got.findings[:6]) or "nothing"
        rows.append(Judged(row["id"], row["tier"], got.tier, RANGES[row["band"]], got.band, reasons))
    return rows


def table(rows: list[Judged]) -> str:
    """Return what was wanted against what came out, for people."""
    tiers = Counter((row.wanted, row.tier) for row in rows)
    bands = Counter((row.wanted_band, row.band) for row in rows)
    lines = ["", "wanted \\ got  " + "".join(f"{name:>10}" for name in TIERS)]
    lines += [f"{one:<14}" + "".join(f"{tiers[one, other]:>10}" for other in TIERS) for one in TIERS]
    lines += ["", "wanted \\ got  " + "".join(f"{name:>10}" for name in NAMES)]
    lines += [f"{one:<14}" + "".join(f"{bands[one, other]:>10}" for other in NAMES) for one in NAMES]
    return "\n".join(lines + [str(row) for row in rows if (row.tier, row.band) != (row.wanted, row.wanted_band)])


def test_nothing_dangerous_is_judged_fit_for_less_than_a_container(judged: list[Judged]) -> None:
    assert [str(row) for row in judged if row.wanted == "L3" and row.tier < "L2"] == []


def test_at_most_three_in_a_hundred_dangers_are_judged_below_their_tier(judged: list[Judged]) -> None:
    dangers = [row for row in judged if row.wanted == "L3"]
    low = [row for row in dangers if row.tier < "L3"]
    assert len(low) <= 0.03 * len(dangers), table(judged)


def test_at_most_five_in_a_hundred_harmless_ones_are_judged_above_their_tier(judged: list[Judged]) -> None:
    harmless = [row for row in judged if row.wanted in {"L0", "L1"}]
    high = [row for row in harmless if row.tier > row.wanted]
    assert len(high) <= 0.05 * len(harmless), table(judged)
    assert [str(row) for row in high if row.tier > "L2"] == []


def test_eighty_five_of_a_hundred_bands_are_right_and_nearly_all_are_near(judged: list[Judged]) -> None:
    right = sum(row.band == row.wanted_band for row in judged)
    near = sum(abs(NAMES.index(row.band) - NAMES.index(row.wanted_band)) <= 1 for row in judged)
    assert right >= 0.85 * len(judged), table(judged)
    assert near >= 0.97 * len(judged), table(judged)


def heredoc(code: str) -> str:
    return f"<<'HERE_ENDS'\n{code}\nHERE_ENDS"


SHELL_VARIANTS: dict[str, Callable[[str], str]] = {
    "comments": lambda code: f"# harmless\n{code}\n# nothing to see",
    "function": lambda code: f"f() {{\n{code}\n}}\nf",
    "function that is never called": lambda code: f"f() {{\n{code}\n}}",
    "subshell": lambda code: f"(\n{code}\n)",
    "branch": lambda code: f"if false; then :; else\n{code}\nfi",
    "loop": lambda code: f"for i in 1; do\n{code}\ndone",
    "case": lambda code: f"case a in a)\n{code}\n;; esac",
    "background": lambda code: f"{{\n{code}\n}} &",
    "sh -c": lambda code: f"bash -c {shlex.quote(code)}",
    "eval": lambda code: f"eval {shlex.quote(code)}",
    "variable": lambda code: f'code={shlex.quote(code)}; bash -c "$code"',
    "two variables": lambda code: f'a={shlex.quote(code[:3])}; b={shlex.quote(code[3:])}; eval "$a$b"',
    "array": lambda code: f'run=(bash -c {shlex.quote(code)}); "${{run[@]}}"',
    "argument": lambda code: f'f() {{ eval "$1"; }}; f {shlex.quote(code)}',
    "here-document": lambda code: f"bash {heredoc(code)}",
    "pipe": lambda code: f"printf '%s' {shlex.quote(code)} | sh",
    "base64": lambda code: f"echo {base64.b64encode(code.encode()).decode()} | base64 -d | bash",
    "hexadecimal": lambda code: f"echo {code.encode().hex()} | xxd -r -p | sh",
    "substitution": lambda code: f"x=$(\n{code}\n)",
    "process substitution": lambda code: f". <(printf '%s' {shlex.quote(code)})",
    "file": lambda code: f"cat > step.sh {heredoc(code)}\nchmod +x step.sh; ./step.sh",
    "wrappers": lambda code: f"nohup timeout 60 nice -n 5 env A=b bash -c {shlex.quote(code)} &",
    "escaped name": lambda code: "$'\\x62\\x61\\x73\\x68' -c " + shlex.quote(code),
    "quoted name": lambda code: f"b'as'h -c {shlex.quote(code)}",
    "slice": lambda code: f"e=xbashx; ${{e:1:4}} -c {shlex.quote(code)}",
    "braces": lambda code: f"{{bash,-c,{shlex.quote(code)}}}",
    "find": lambda code: f"find . -maxdepth 0 -exec bash -c {shlex.quote(code)} \\;",
    "trap": lambda code: f"trap {shlex.quote(code)} EXIT",
    "alias": lambda code: f"alias step={shlex.quote(code)}\nstep",
}


@pytest.mark.parametrize("name", SHELL_VARIANTS)
def test_no_rewriting_lowers_the_tier_of_shell(name: str) -> None:
    lowered = []
    for row in (row for each in SETS for row in labelled(each)):
        if row["lang"] == "bash" and row["tier"] == "L3":
            code = SHELL_VARIANTS[name](row["code"])
            if assess(code.encode(), "bash").tier < "L3":
                lowered.append((row["id"], code))
    assert lowered == []


def indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


PYTHON_VARIANTS: dict[str, Callable[[str], str]] = {
    "comments": lambda code: f"# harmless\n{code}\n# nothing to see",
    "exec": lambda code: f"exec({code!r})",
    "split strings": lambda code: f"exec({code[: len(code) // 2]!r} + {code[len(code) // 2 :]!r})",
    "base64": lambda code: f"import base64\nexec(base64.b64decode({base64.b64encode(code.encode())!r}))",
    "renamed exec": lambda code: f"go = exec\ngo({code!r})",
    "getattr": lambda code: f"import builtins\ngetattr(builtins, 'ex' + 'ec')({code!r})",
    "python -c": lambda code: f"import subprocess\nsubprocess.run(['python3', '-c', {code!r}])",
}


@pytest.mark.parametrize("name", PYTHON_VARIANTS)
def test_no_rewriting_lowers_the_tier_of_python(name: str) -> None:
    lowered = []
    for row in (row for each in SETS for row in labelled(each)):
        if row["lang"] == "python" and row["tier"] == "L3" and row["code"].isascii():
            code = PYTHON_VARIANTS[name](row["code"])
            if assess(code.encode(), "python").tier < "L3":
                lowered.append((row["id"], code))
    assert lowered == []


@pytest.mark.parametrize("wrap", ["if True:\n{}", "def f():\n{}\nf()", "try:\n{}\nfinally:\n    pass"])
def test_no_block_lowers_the_tier_of_python(wrap: str) -> None:
    lowered = []
    for row in (row for each in SETS for row in labelled(each)):
        plain = row["code"].isascii() and '"""' not in row["code"] and "coding" not in row["code"]
        if row["lang"] == "python" and row["tier"] == "L3" and plain:
            code = wrap.format(indented(row["code"]))
            if assess(code.encode(), "python").tier < "L3":
                lowered.append((row["id"], code))
    assert lowered == []
