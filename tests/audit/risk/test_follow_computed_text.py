"""Text that is computed is worked out; where it cannot be, and decides what happens, nothing less than L3 will do."""

from __future__ import annotations

import pytest

from audit.risk.assessor import assess

WALK = "{0.__init__.__globals__}"


def rules(code: str) -> set[str]:
    return {finding.rule for finding in assess(code.encode(), "python").findings}


@pytest.mark.parametrize(
    "template",
    [
        "'{0.@@init@@.@@globals@@}'.translate({64: '_'})",
        "'{0.@@init@@.@@globals@@}'.translate(str.maketrans('@', '_'))",
        "b'{0.@@init@@.@@globals@@}'.translate(bytes.maketrans(b'@', b'_')).decode()",
        "__import__('ast').literal_eval('\"{0.__init__.__globals__}\"')",
        "__import__('json').loads('[\"{0.__init__.__globals__}\"]')[0]",
        "__import__('codecs').getdecoder('rot13')('{0.__vavg__.__tybonyf__}')[0]",
        f"({int.from_bytes(WALK.encode(), 'big')}).to_bytes({len(WALK)}, 'big').decode()",
    ],
)
def test_a_template_is_read_however_it_is_made(template: str) -> None:
    assert "py.reflect.format" in rules(f"print({template}.format(Exception()))")


@pytest.mark.parametrize(
    "code",
    [
        "print(('{0.%s}' % input()).format(3))",
        "print('{0.a}'.translate(open('table')).format(3))",
        "import os\n().__getattribute__(input())",
        "import os, struct\ngetattr(os, struct.pack('>I', int(input())).decode())('id')",
        "globals()[input()] = __import__('os')\nx.system('id')",
        "globals().update(eval)\nrun('id')",
        "import subprocess\nsubprocess.run(['bash'], input=input(), text=True)",
        "import subprocess\np = subprocess.Popen(['python3', '-'], stdin=-1)\np.communicate(input().encode())",
    ],
)
def test_what_only_running_would_tell_needs_the_strongest_isolation(code: str) -> None:
    assert assess(code.encode(), "python").tier == "L3"


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run(['python3'], input=code)",
        "subprocess.run('python3 -', shell=True, input=code)",
        "subprocess.Popen(['python3'], stdin=-1).communicate(code)",
        "p = subprocess.Popen([sys.executable, '-'], stdin=-1)\np.stdin.write(code)",
    ],
)
def test_what_an_interpreter_reads_is_code(start: str) -> None:
    dangerous = f"import subprocess, sys\ncode = 'open(\"/etc/shadow\").read()'\n{start}"
    harmless = f"import subprocess, sys\ncode = 'print(1 + 1)'\n{start}"
    assert "py.fs.secret" in rules(dangerous)
    assert "py.fs.secret" not in rules(harmless)


def test_input_of_other_programs_is_no_code() -> None:
    code = "import subprocess\nsubprocess.run(['sort'], input='import os; os.system(1)', text=True)"
    assert assess(code.encode(), "python").tier == "L2"


def test_names_that_are_bound_as_text_are_names() -> None:
    assert "py.fs.secret" in rules("globals()['read'] = open\nread('/etc/shadow')")
    assert "py.fs.secret" in rules("globals().update(read=open)\nread('/etc/shadow')")


def test_a_name_in_pieces_that_no_rule_knows_is_not_harmless() -> None:
    assert "py.dyn.unresolved" in rules("import os\ngetattr(os, 'sy' + 'stem2')('id')")
    assert "py.dyn.unresolved" not in rules("import os\ngetattr(os, 'getcwd')()")


@pytest.mark.parametrize(
    ("config", "tier"),
    [
        ("{'version': 1, 'root': {'level': 'INFO'}}", "L0"),
        ("{'version': 1, 'handlers': {'f': {'class': 'logging.FileHandler', 'filename': 'run.log'}}}", "L1"),
        ("{'version': 1, 'handlers': {'f': {'()': 'os.system', 'command': 'id'}}}", "L3"),
        ("{'version': 1, 'handlers': {'f': {'class': 'subprocess.Popen', 'args': 'id'}}}", "L3"),
        ("load()", "L2"),
    ],
)
def test_a_table_for_logging_counts_by_what_it_makes(config: str, tier: str) -> None:
    code = f"import logging.config\nlogging.config.dictConfig({config})"
    assert max(tier, "L0") == assess(code.encode(), "python").tier


@pytest.mark.parametrize(
    ("code", "fills"),
    [
        ("parts = []\nwhile True:\n    parts.append(bytearray(1000000))", True),
        ("text = 'a'\nwhile 1:\n    text += text", True),
        ("import itertools\nparts = []\nfor _ in itertools.count():\n    parts.extend([0] * 1000)", True),
        ("x = [0] * 10**11", True),
        ("n = 0\nwhile True:\n    n += 1\n    if n > 5:\n        break", False),
        ("import queue\nq = queue.Queue()\ndone = []\nwhile True:\n    done.append(q.get())", False),
        ("x = [0] * 10**6", False),
        ("while True:\n    pass", False),
        ("def again():\n    return again()\nagain()", False),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef again():\n    return again()\nagain()", True),
    ],
)
def test_loops_that_only_grow_fill_the_memory(code: str, fills: bool) -> None:  # noqa: FBT001
    assert ("py.exhaust" in rules(code)) == fills
