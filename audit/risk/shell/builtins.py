"""Builtins of the shell: they change its memory, or run text as code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import normal_path
from audit.risk.shell import filters, programs, table
from audit.risk.shell.command import canonical
from audit.risk.shell.values import EMPTY, MYSTERY, NOTHING, UNKNOWN, Value, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_INDEX = re.compile(r"\w\[[^\]]*(?:\$\(([^)]*)\)|`([^`]*)`)")
_SECRET = frozenset({"secret"})
_PLACE = frozenset({"place"})
_PRINTED = frozenset({"output"})
_RESHAPED = frozenset({"reshaped"})
_NUMBERED = re.compile(r"\\(?:x[0-9A-Fa-f]|[0-7]{2}|u[0-9A-Fa-f])")


def echo(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Work out what echo and printf write."""
    texts = [word.text for word in command.arguments]
    text = filters.printf(texts) if command.name == "printf" else filters.echo(texts)
    if command.name == "printf" and "-v" in texts[:1] and len(texts) > 1:
        run_index(judge, command.arguments[1], node)
    if command.name == "printf" and "-v" in texts[:1] and len(texts) > 2:
        pieces = _RESHAPED if len(texts) > 4 else NOTHING
        judge.walker.state.set(texts[1], Value(filters.printf(texts[2:]), command.taints | pieces))
        return EMPTY
    if command.name == "printf" and texts[:1] == ["--"]:
        text = filters.printf(texts[1:])
    # Letters written as numbers are an encoding, too.
    numbered = any(_NUMBERED.search(word) for word in texts) and (command.name == "printf" or "-e" in command.flags)
    return Value(text, command.taints - {"output"} | (filters.DECODED if numbered else frozenset()))


def run_text(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge text that the shell itself runs."""
    code = joined(command.arguments, " ")
    words = command.arguments
    if "parsed options" in code.taints and [word.text for word in words[:2]] in (["set", "--"], ["set", "-"]):
        # What getopt prints is quoted to be read back in this way.
        judge.walker.state.positional = None
        return EMPTY
    if not code.taints & {"decoded", "network"}:
        judge.report.add("sh.dyn.eval", node)
    return programs.run_shell(judge, code, node, own=True)


def run_source(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a file that the shell itself runs."""
    if not command.positionals:
        return EMPTY
    path = command.positionals[0]
    content = judge.walker.state.files.get(normal_path(path.text))
    if path.text in {"/dev/stdin", "/proc/self/fd/0"}:
        return programs.from_input(judge, "bash", stdin, node)
    if content is not None:
        return programs.run_shell(judge, Value(content.text, content.taints - {"written"}), node, own=True)
    return programs.run_file(judge, path, stdin, node)


def set_alias(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Note what a name will stand for."""
    for word in command.arguments:
        if found := re.match(r"^([^=]+)=(.*)$", word.text, re.DOTALL):
            alias = Value(found[2], word.taints)
            if found[1] in table.WATCHED and canonical(alias.text.strip().split(" ")[0]) != found[1]:
                judge.report.add("sh.evade.mask", node, found[1])
                programs.run_shell(judge, alias, node, own=False, quoted=True)
            judge.walker.state.aliases[found[1]] = alias
    return EMPTY


def set_trap(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what runs on a signal."""
    words = [word for word in command.arguments if word.text != "--"]
    if len(words) > 1 and words[0].text not in {"-", "-l", "-p"}:
        programs.run_shell(judge, words[0], node, own=True, quoted=not words[0].text.startswith(UNKNOWN))
    return EMPTY


def read_words(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Set variables from the input."""
    for word in command.values("-C"):
        # It is called with every so many lines.
        judge.report.add("sh.dyn.eval", node, word.text)
    for word in command.positionals:
        run_index(judge, word, node)
    names = [word.text for word in command.positionals if word.text.isidentifier()] or ["REPLY"]
    if stdin.known and judge.piped:
        line = stdin.text.split("\n", 1)[0]
        parts = line.split(None, len(names) - 1) if len(names) > 1 else [line]
        for place, name in enumerate(names):
            judge.walker.state.set(name, Value(parts[place] if place < len(parts) else "", stdin.taints))
    else:
        for name in names:
            # What is typed without being shown is a password.
            judge.walker.state.set(name, Value(UNKNOWN, stdin.taints | (_SECRET if "-s" in command.flags else NOTHING)))
    return EMPTY


def list_variables(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge builtins that list every variable when they get no name."""
    name = command.name
    if name == "set" and any(word.text == "--" for word in command.arguments):
        judge.walker.state.positional = [Value(word.text, word.taints) for word in command.positionals]
        return EMPTY
    if "-n" in command.flags and name in {"declare", "typeset", "local"}:
        _refer(judge, command)
    bare = not command.arguments or (name in {"export", "declare", "typeset"} and not command.positionals)
    if bare and not (name in {"declare", "typeset"} and {"-f", "-F"} & command.flags):
        judge.report.add("sh.env.all", node)
        return Value(UNKNOWN, frozenset({"environment"}))
    if name == "printenv":
        if any("token" in (judge.walker.state.get(word.text) or MYSTERY).taints for word in command.positionals):
            judge.report.add("sh.fs.secret", node)
        values = [judge.walker.state.get(word.text) or MYSTERY for word in command.positionals]
        return joined(values)
    return EMPTY


def find_program(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Return the program that was asked for, wherever it lies."""
    if command.name == "type" and not {"-p", "-P"} & command.flags:
        return None
    return Value(command.positionals[0].text, _PLACE) if command.positionals else EMPTY


def find_folder(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Return where something lies, as far as that is known."""
    text = command.positionals[0].text if command.positionals else UNKNOWN
    if command.name == "dirname" and UNKNOWN not in text:
        text = text.rstrip("/").rpartition("/")[0] or ("/" if text.startswith("/") else ".")
    elif command.name != "dirname" and judge.walker.state.folder == "" and not command.positionals:
        text = "."
    else:
        text = UNKNOWN
    return Value(text, command.taints - _PRINTED | _PLACE)


def bind_key(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what a key will run."""
    if "-x" in command.flags:
        judge.report.add("sh.dyn.hidden-shell", node)
        for word in command.positionals:
            line = word.text.partition(":")[2].strip().strip("'\"")
            programs.run_shell(judge, Value(line, word.taints), node, own=False, quoted=True)
    return EMPTY


def set_completion(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the command that completes words."""
    for word in command.values("-C"):
        judge.report.add("sh.dyn.hidden-shell", node, word.text)
        programs.run_shell(judge, word, node, own=False)
    return EMPTY


def set_place(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a name that is made to mean another file."""
    if "-p" in command.flags:
        judge.report.add("sh.dyn.preload", node)
    return EMPTY


def compute(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge arithmetic and tests: the index of an array in them is evaluated once more."""
    for word in command.arguments:
        run_index(judge, word, node)
    return EMPTY


def run_index(judge: Judge, word: Value, node: Node | None) -> None:
    """Follow the substitutions inside the index of an array, which the shell runs wherever it takes a name."""
    if "[" in word.text and (found := _INDEX.search(word.text)):
        judge.report.add("sh.dyn.eval", node, word.text)
        programs.run_shell(judge, Value(found[1] or found[2], word.taints), node, own=False)


def list_lines(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Return what earlier lines, or the names of all variables, are to others."""
    if command.name == "compgen":
        if {"-e", "-v"} & command.flags:
            judge.report.add("sh.env.all", node)
            return Value(UNKNOWN, frozenset({"environment"}))
        return None
    return Value(UNKNOWN, frozenset({"secret"})) if not {"-c", "-d", "-w"} & command.flags else EMPTY


def parse_options(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Note that what getopt prints is quoted."""
    return Value(UNKNOWN, command.taints - {"network", "decoded"} | {"parsed options"})


def _refer(judge: Judge, command: Command) -> None:
    """Let a name stand for another variable, as far as that is known now."""
    state = judge.walker.state
    for word in command.positionals:
        name, equals, other = word.text.partition("=")
        if equals:
            state.set(name, state.get(other) or MYSTERY)


def load_builtin(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report builtins that are loaded from a file."""
    if "-f" in command.flags:
        judge.report.add("sh.dyn.preload", node)
    return EMPTY


def unset(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Forget variables and functions."""
    for word in command.positionals:
        run_index(judge, word, node)
        judge.walker.state.variables.pop(word.text, None)
        judge.assigned(word.text, EMPTY, node)
    return EMPTY


def change_folder(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Remember where later paths start."""
    state = judge.walker.state
    target = command.positionals[0].text if command.positionals else "~"
    place = normal_path(state.located(target))
    state.entered = place
    state.folder = place if place.startswith(("/", "~")) and UNKNOWN not in place else ""
    return EMPTY
