"""Clients of databases: their own commands start programs, read and write files, or drop what is stored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import path_classes
from audit.risk.shell import network, options, programs
from audit.risk.shell.values import UNKNOWN, Value, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_PROGRAM = re.compile(
    r"\bPROGRAM\s+(?:'((?:[^']|'')*)'|\$\$(.*?)\$\$)"
    r"|(?:^|[\s;])\\!\s*(.*)|^\s*system\s+(.*)|(?:sys_exec|sys_eval|xp_cmdshell)\W+(.*)"
    r"|^\s*\.(?:shell|system)\s+(.*)|\.(?:once|output|import)\s+['\"]?\|(.*)|\\o\s*\|(.*)|\\g\s*\|(.*)",
    re.IGNORECASE | re.MULTILINE,
)
_LOADS = re.compile(
    r"\bload_extension\s*\(|^\s*\.load\b|\bCREATE\s+FUNCTION\b.*\bSONAME\b|\bMODULE\s+LOAD\b",
    re.IGNORECASE | re.MULTILINE,
)
_FILES = re.compile(
    r"(?:LOAD_FILE|pg_read_file|pg_read_binary_file|pg_ls_dir|lo_import|readfile|writefile|edit)\s*\(\s*['\"]([^'\"]+)"
    r"|(?:OUTFILE|DUMPFILE|INFILE)\s+['\"]([^'\"]+)|\bCOPY\s+\S+\s+(?:FROM|TO)\s+'([^']+)'|^\s*\.(?:output|once|save|read)\s+(\S+)",
    re.IGNORECASE | re.MULTILINE,
)
_DROPS = re.compile(
    r"\bDROP\s+(?:DATABASE|SCHEMA|TABLE|USER|ROLE)\b|\bTRUNCATE\s+(?:TABLE\s+)?\w|\bDELETE\s+FROM\s+[\w.\"`]+\s*(?:;|$)"
    r"|\bFLUSH(?:ALL|DB)\b|\bdropDatabase\s*\(|\.drop\s*\(\s*\)|\bdeleteMany\s*\(\s*\{\s*\}",
    re.IGNORECASE,
)
# They open a file of the workspace, not a server.
_LOCAL = frozenset({"sqlite3", "duckdb"})


def judge(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what a client is told to do, on its command line, its input, and in scripts that were written here."""
    local = command.name in _LOCAL
    options.judge(judge, command, node)
    database = command.positionals[:1] if local else []
    texts: list[Value] = [word for word in command.arguments if word not in database]
    if judge.piped:
        texts.append(stdin)
    text = joined(texts, "\n").text
    for found in _PROGRAM.finditer(text):
        line = next((part for part in found.groups() if part), "")
        judge.report.add("sh.dyn.hidden-shell", node, line)
        programs.run_shell(judge, Value(line.strip("'\"")), node, own=False, quoted=True)
    if _LOADS.search(text):
        judge.report.add("sh.dyn.preload", node)
    for found in _FILES.finditer(text):
        name = next(part for part in found.groups() if part)
        if path_classes(name) - {"workspace"} or local:
            judge.touch(Value(name), node, writing=any(word in found[0].lower() for word in ("outf", "dumpf", "write")))
    if not local and _DROPS.search(text):
        judge.report.add("sh.destroy.data", node)
    if not local:
        return network.judge(judge, command, stdin, node)
    read = [judge.read(word, node) for word in database if word.text not in {"", ":memory:"}]
    return Value(UNKNOWN, joined(read).taints | {"made"})
