"""Python is judged by what it does beside running code, and its harmless neighbours are left alone."""

from __future__ import annotations

import pytest

from audit.risk.assessor import assess


def rules(code: str) -> set[str]:
    return {finding.rule for finding in assess(code.encode(), "python").findings}


@pytest.mark.parametrize(
    ("rule", "dangerous", "harmless"),
    [
        (
            "py.exhaust",
            "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    f()\nf()",
            "import sys\nsys.setrecursionlimit(10**9)\ndef show():\n    from helper import show\n    show()\nshow()",
        ),
        (
            "py.exhaust",
            "import itertools\nx = list(itertools.product(range(100), repeat=10))",
            "import itertools\nx = list(itertools.product(range(3), repeat=2))",
        ),
        ("py.exhaust", "b = bytearray(1 << 40)", "b = bytearray(1 << 20)"),
        (
            "py.net.scan",
            "import socket\ndef probe(port): return socket.socket().connect_ex(('10.0.0.5', port))\n"
            "list(map(probe, range(1, 65536)))",
            "import socket\ndef alive(host, port): return socket.create_connection((host, port), timeout=3)\n"
            "for host, port in [('www.example.com', 443), ('mail.example.com', 25)]: print(alive(host, port))",
        ),
        (
            "py.net.flood",
            "import socket\ns = socket.socket()\nwhile True: s.sendto(b'x', ('www.example.com', 80))",
            "import socket\ns = socket.socket()\nwhile True: s.sendto(s.recv(9), ('www.example.com', 80))",
        ),
        ("py.self.change", "import os, sys\nos.remove(sys.argv[0])", "import os, sys\nos.remove(sys.argv[1])"),
        (
            "py.fs.secret",
            "import os\nd = os.open('/etc', os.O_RDONLY)\nos.open('shadow', os.O_RDONLY, dir_fd=d)",
            "import os\nd = os.open('data', os.O_RDONLY)\nos.open('shadow', os.O_RDONLY, dir_fd=d)",
        ),
        (
            "py.fs.destroy",
            "import glob, os\nfor p in glob.glob('/var/log/*.log'): os.remove(p)",
            "import glob, os\nfor p in glob.glob('logs/*.log'): os.remove(p)",
        ),
        (
            "py.env.preload",
            "import os\nos.environ['PAGER'] = 'sh -c ls'",
            "import os\nos.environ['PAGER'] = 'less'",
        ),
        (
            "py.evade.name",
            "__import__('su' 'bprocess').run(['id'])",
            "import subprocess\nTEXT = ('one' 'two')",
        ),
        (
            "py.both.fetch.run",
            "import urllib.request\nfrom unittest import mock\n"
            "urllib.request.urlretrieve('https://example.com/h', 'helper.py')\nmock.patch('helper.ready', True)",
            "import urllib.request\nfrom unittest import mock\n"
            "urllib.request.urlretrieve('https://example.com/h', 'helper.txt')\nmock.patch('helper.ready', True)",
        ),
        (
            "py.proc.unresolved",
            "import subprocess\nsubprocess.run('wc -l < ' + input(), shell=True)",
            "import shlex, subprocess\nsubprocess.run(f'wc -l < {shlex.quote(input())}', shell=True)",
        ),
    ],
)
def test_only_the_dangerous_one_is_found(rule: str, dangerous: str, harmless: str) -> None:
    assert rule in rules(dangerous)
    assert rule not in rules(harmless)


@pytest.mark.parametrize(
    "call",
    [
        "c.load_extension('x')",
        "getattr(c, 'load_extension')('x')",
        "operator.attrgetter('load_' + 'extension')(c)('x')",
    ],
)
def test_a_method_is_known_by_whatever_look_up(call: str) -> None:
    assert "py.sql.native" in rules(f"import operator\ndef f(c):\n    {call}")


def test_a_name_of_the_class_around_is_followed() -> None:
    assert "py.proc.shell.plain" in rules("class C:\n    import os\n    def f(self):\n        os.system('id')")


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("SELECT * FROM read_csv('/etc/shadow')", "py.fs.secret"),
        ("ATTACH '/var/www/x.php' AS x", "py.fs.write.system"),
        ("SELECT * FROM 'https://example.com/a.parquet'", "py.net.client"),
    ],
)
def test_a_statement_tells_which_files_it_touches(statement: str, rule: str) -> None:
    assert rule in rules(f"import duckdb\nduckdb.sql({statement!r})")
    assert rule not in rules("import duckdb\nduckdb.sql(\"SELECT * FROM 'data/a.parquet'\")")
