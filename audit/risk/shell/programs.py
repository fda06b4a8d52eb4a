"""Code inside commands: scripts in strings, in files and on standard input, in the shell's language or another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import normal_path, path_classes
from audit.risk.shell import table
from audit.risk.shell.command import Command
from audit.risk.shell.loops import starts_itself
from audit.risk.shell.values import EMPTY, MYSTERY, UNKNOWN, Value, Word

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tree_sitter import Node

    from audit.risk.shell.judge import Judge

_WORDS = [(entry["rule"], re.compile(entry["pattern"])) for entry in table.LANGUAGE_WORDS]
_STARTED = re.compile(
    r"(?:system|exec|popen|spawn|shell_exec|passthru|execute|execSync|IO\.popen|execl?p?)\s*[( ]?\s*"
    r"(?:(['\"])((?:\\.|(?!\1)[^\\])*)\1|q[qx]?\{([^}]*)\})|`([^`]*)`|qx\s*[{(/]([^})/]*)[})/]"
)
# A substitution without `e`, a translation, a printed or skipped line.
_PERL_EDIT = re.compile(
    r"(?:(?:s|tr|y)([/|#,!@~%:])(?:(?!\1)[^\\]|\\.)*\1(?:(?!\1)[^\\]|\\.)*\1[gimsxrcdn]*"
    r"|s\{[^{}]*\}\{[^{}]*\}[gimsxr]*|(?:next|last|chomp|\$n\+\+)?"
    r"|print(?:\s+(?:\"[^\"`]*\"|\$\w+(?:\[-?\d+\])?|\d+)(?:\s*[,.]\s*(?:\"[^\"`]*\"|\$\w+(?:\[-?\d+\])?|\d+))*)?)"
    r"(?:\s*(?:if|unless)\s*(?:/(?:[^/\\]|\\.)*/i?|\$\.\s*[<>=!]=?\s*\d+|eof))?",
    re.DOTALL,
)
_PERL_RUNS = re.compile(r"`|@\{|\$\{|\(\?\??\{")
_SOCKET_SHELLS = [pattern for rule, pattern in _WORDS if rule == "sh.net.reverse-shell"]
_FILE_NAMES = re.compile(r"(['\"])((?:\.{0,2}/|~/)?[\w.-]+(?:/[\w.-]+)*)\1")
_MAX_STRINGS = 20
_HIDDEN = re.compile(
    r"/dev/shm/|(?:/var)?/tmp/(?:.*/)?\.[^/]|/run/(?!user)|/proc/(?:self|\d+)/fd/(?!0)|/dev/(?!fd/|stdin)\w"  # noqa: S108
)
_STRANGE_PATH = re.compile(r"^[\w./~@+-]+$")


def run_shell(
    judge: Judge,
    code: Value,
    node: Node | None,
    *,
    own: bool,
    arguments: list[Word] | None = None,
    quoted: bool = False,
) -> Value:
    """Follow a script that stands in a string; `quoted` when what is unknown in it is taken for plain words."""
    _origins(judge, code, node)
    if not code.text.strip():
        if "unset" in code.taints:
            judge.report.add("sh.dyn.unresolved", node)
        return EMPTY
    if code.text.strip(UNKNOWN + " \n") == "":
        if "network" not in code.taints:
            judge.report.add("sh.dyn.unresolved", node)
        return Value(UNKNOWN, code.taints)
    context = judge.context
    if not context.enter():
        judge.report.add("sh.dyn.depth", node)
        return MYSTERY
    context.depth += 1
    try:
        if not code.known and not quoted:
            # What nobody knows may hold more than a word.
            judge.report.add("sh.dyn.eval", node)
        with judge.report.anchored(node):
            return judge.walker.inner(code.text, own=own, arguments=arguments)
    finally:
        context.depth -= 1


def run_code(judge: Judge, language: str, code: Value, node: Node | None) -> Value:
    """Judge a program of another language that stands in a string."""
    _origins(judge, code, node)
    judge.report.add("sh.code.inline", node)
    if code.text.strip(UNKNOWN + " \n") == "" and code.text:
        judge.report.add("sh.dyn.unresolved", node)
    elif language in {"python", "javascript"}:
        text = code.text
        if UNKNOWN in text or ("unset" in code.taints and not text.strip()):
            judge.report.add("sh.dyn.eval", node)
            text = text.replace(UNKNOWN, "unknown")
        found = judge.context.judged(text, language)
        judge.report.take(found, node)
        if any(finding.rule.startswith(("py.net.", "js.net")) for finding in found):
            _leaves(judge, text)
    elif language != "perl" or not _is_edit(code.text):
        run_words(judge, code.text, node)
        judge.report.add("sh.code.other", node, language)
    if language == "javascript":
        for pattern in _SOCKET_SHELLS:
            if pattern.search(code.text):
                judge.report.add("sh.net.reverse-shell", node)
    return Value(UNKNOWN, code.taints & {"secret", "environment", "network"})


def _is_edit(program: str) -> bool:
    """Whether a Perl program only edits lines, as `sed` would: what it may run is then nothing."""
    return not _PERL_RUNS.search(program) and all(
        _PERL_EDIT.fullmatch(step.strip()) for step in re.split(r";\s+|;$", program.strip()) if step.strip()
    )


def run_words(judge: Judge, text: str, node: Node | None) -> None:
    """Judge a program by its words, and follow the shell commands in its strings."""
    matching = {rule for rule, pattern in _WORDS if pattern.search(text)}
    for rule in sorted(matching):
        judge.report.add(rule, node)
    if "sh.net.client" in matching:
        _leaves(judge, text)
        if "sh.dyn.hidden-shell" in matching:
            judge.report.add("sh.corr.download-run", node)
    for place, found in enumerate(_STARTED.finditer(text)):
        command = next((part for part in found.groups()[1:] if part), "")
        if place < _MAX_STRINGS and command.strip():
            run_shell(judge, Value(command.replace('\\"', '"')), node, own=False)
    for secret in re.findall(r"(?:/etc|/root|/proc|~)/[\w./-]+", text)[:_MAX_STRINGS]:
        if path_classes(secret) - {"workspace"}:
            judge.touch(Value(secret), node)


def _leaves(judge: Judge, text: str) -> None:
    """Note that files which a program names may come from the network, where it talks to it."""
    state = judge.walker.state
    for found in _FILE_NAMES.finditer(text):
        state.files.setdefault(normal_path(state.located(found[2])), Value(UNKNOWN, frozenset({"network"})))


def _origins(judge: Judge, code: Value, node: Node | None) -> None:
    if "network" in code.taints:
        judge.report.add("sh.corr.download-run", node)
    if "decoded" in code.taints:
        judge.report.add("sh.dyn.decoded", node)


def run_file(judge: Judge, path: Word, stdin: Value, node: Node | None, language: str = "bash") -> Value:
    """Judge the running of a file: what is known of it when this script wrote it, else that nobody has read it."""
    state = judge.walker.state
    content = state.files.get(normal_path(state.located(path.text)))
    hidden = UNKNOWN in path.text.rpartition("/")[2] or ("unset" in path.taints and not path.text.strip("/"))
    if hidden or (not path.known and "output" in path.taints and "place" not in path.taints):
        judge.report.add("sh.dyn.unresolved", node)
    if content is None:
        _watch_place(judge, path, node)
        judge.report.add("sh.code.workspace", node, path.text if _STRANGE_PATH.match(path.text) else "")
        if state.fetched:
            judge.report.add("sh.corr.download-run", node)
        classes = path_classes(path.text) & {"secret", "environment", "traffic", "socket", "kernel"}
        if classes:
            judge.touch(path, node)
        return Value(UNKNOWN, stdin.taints)
    if "written" in content.taints:
        judge.report.add("sh.corr.written-run", node)
        judge.report.add("sh.code.workspace", node)
    if not content.known and "network" in content.taints:
        judge.report.add("sh.corr.download-run", node)
        return Value(UNKNOWN, content.taints)
    code = Value(content.text, content.taints - {"written"})
    if starts_itself(content.text):
        judge.report.add("sh.destroy.fork-bomb", node)
    return run_shell(judge, code, node, own=False) if language == "bash" else run_code(judge, language, code, node)


def _watch_place(judge: Judge, path: Word, node: Node | None) -> None:
    """Report a program that lies in the clone of somebody's repository, or where nobody is meant to look."""
    state = judge.walker.state
    place = normal_path(state.located(path.text))
    inside = any(place.startswith(f"{folder}/") for folder in state.cloned)
    if inside or (state.entered in state.cloned and not place.startswith(("/", "~", ".."))):
        judge.report.add("sh.corr.download-run", node)
    if _HIDDEN.match(place):
        judge.report.add("sh.evade.mask", node, place)


def shell(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value:
    """Judge a shell that is started as a command."""
    judge.role = "shell"
    if "-c" in command.flags:
        # Flags may stand together with `c`: the first other word is the script.
        words = command.positionals
        if not words:
            return EMPTY
        output = run_shell(judge, words[0], node, own=False, arguments=words[1:])
        judge.role = "shell"
        return output
    for word in command.values("--rcfile", "--init-file"):
        judge.report.add("sh.dyn.preload", node, word.text)
        run_file(judge, word, stdin, node)
    files = [] if "-s" in command.flags else command.positionals
    if files and "-n" in command.flags:
        # It only looks whether the script can be read.
        return judge.read(files[0], node)
    if files:
        return run_file(judge, files[0], stdin, node)
    if not judge.piped:
        judge.report.add("sh.code.other", node, "an interactive shell")
        return Value(UNKNOWN)
    return from_input(judge, "bash", stdin, node)


def from_input(judge: Judge, language: str, stdin: Value, node: Node | None) -> Value:
    """Judge a program that an interpreter reads from its standard input."""
    if not stdin.known:
        judge.context.fed |= "descriptor" in stdin.taints
        if "network" in stdin.taints:
            judge.report.add("sh.corr.download-run", node)
            if "socket" in stdin.taints:
                judge.report.add("sh.corr.network-shell", node)
            if "decoded" in stdin.taints:
                judge.report.add("sh.dyn.decoded", node)
        elif stdin.text == UNKNOWN and stdin.taints == {"file"}:
            judge.report.add("sh.code.workspace", node)
            return Value(UNKNOWN)
        else:
            judge.report.add("sh.dyn.inherit", node)
            if "decoded" in stdin.taints:
                judge.report.add("sh.dyn.decoded", node)
        if stdin.text.strip(UNKNOWN + " \n") == "":
            return Value(UNKNOWN, stdin.taints)
    if language == "bash":
        output = run_shell(judge, stdin, node, own=False)
        judge.role = "shell"
        return output
    return run_code(judge, language, stdin, node)


def interpreter(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value:
    """Judge Python, Perl and the like, started as a command."""
    entry = table.INTERPRETERS[command.name]
    language = entry["language"]
    if language == "php" and "-S" in command.flags:
        served(judge, command.value("-t"), node)
        return Value(UNKNOWN)
    words = list(command.arguments)
    while words:
        word = words.pop(0)
        code = code_after(word, words, entry["code"])
        if code is not None:
            return run_code(judge, language, code, node)
        if language == "python" and word.text == "-m" and words:
            return _module(judge, Command(words[0].text, words[1:]), words[0].text, stdin, node)
        if word.text in {"-W", "-X", "-I", "-M", "-r", "--require", "--import"} and language != "php" and words:
            if word.text in {"-W", "-X"}:
                words.pop(0)
            continue
        if word.text == "-":
            break
        if not word.text.startswith("-"):
            return _script(judge, word, stdin, node, language)
    if {"--version", "-V", "-v", "--help", "-h"} & command.flags:
        return Value("1")
    if judge.piped:
        return from_input(judge, language, stdin, node)
    judge.report.add("sh.code.other", node, language)
    return Value(UNKNOWN)


def _script(judge: Judge, word: Word, stdin: Value, node: Node | None, language: str) -> Value:
    if word.text.startswith(("/dev/stdin", "/proc/self/fd/0")):
        return from_input(judge, language, stdin, node)
    return run_file(judge, word, stdin, node, language)


def served(judge: Judge, folder: Word | None, node: Node | None) -> None:
    """Report a folder with credentials in it that anybody may now ask for."""
    state = judge.walker.state
    place = normal_path(state.located(folder.text) if folder is not None else state.folder)
    if place in {"~", "/", "/home", "/etc", "/root"} or "secret" in path_classes(place):
        judge.report.add("sh.corr.secret-network", node, place)


def code_after(word: Word, rest: list[Word], flags: Iterable[str]) -> Value | None:
    """Return the code that an option hands over, in its own word or the next; None for another option."""
    text = word.text
    for flag in flags:
        if text == flag:
            return rest[0] if rest else EMPTY
        if flag.startswith("--") or len(flag) > 2:
            if text.startswith(f"{flag}="):
                return Value(text[len(flag) + 1 :], word.taints)
        elif text.startswith(flag):
            return Value(text[2:], word.taints)
        # Letters may stand together: -ne, -lane, -qc.
        elif re.fullmatch(rf"-[A-Za-z0-9]{{0,5}}{re.escape(flag[1:])}", text):
            return rest[0] if rest else EMPTY
    return None


def _module(judge: Judge, command: Command, module: str, stdin: Value, node: Node | None) -> Value:
    kind = table.MODULES.get(module, "")
    if kind == "pip":
        return judge.judge(Command("pip", command.arguments), stdin, node)
    rules = {
        "listen": "sh.net.listen",
        "network": "sh.net.client",
        "install": "sh.pkg.install",
        "read": "sh.fs.read",
        "write": "sh.fs.write",
        "text": "sh.code.inline",
        "inline": "sh.code.inline",
        "shell": "sh.dyn.hidden-shell",
    }
    judge.report.add(rules.get(kind, "sh.code.workspace"), node, "" if kind in rules else module)
    if "--cgi" in command.flags:
        judge.report.add("sh.dyn.hidden-shell", node)
    if kind == "listen":
        served(judge, command.value("-d", "--directory"), node)
    for place, word in enumerate(command.arguments):
        # A line for the debugger is Python, or nearly so.
        if kind == "debug" and word.text in {"-c", "--command"} and place + 1 < len(command.arguments):
            return run_code(judge, "python", command.arguments[place + 1], node)
    if kind == "read":
        for word in command.positionals:
            judge.read(word, node)
    if module == "timeit" and command.positionals:
        return run_code(judge, "python", command.positionals[-1], node)
    return Value(UNKNOWN, stdin.taints)
