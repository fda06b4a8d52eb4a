"""Tools that start other commands: wrappers, xargs, find, awk, sed, tar, git, containers, editors."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from audit.risk.places import is_root, normal_path, path_classes
from audit.risk.shell import destruction, later, network, options, programs, table
from audit.risk.shell.command import Command
from audit.risk.shell.values import EMPTY, NOTHING, UNKNOWN, Value, Word, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.judge import Judge

_FUNCTION = re.compile(r"^BASH_FUNC_([^=%(]+)(?:%%|\(\))=(.*)$", re.DOTALL)
_ASSIGNMENT = re.compile(r"^([A-Za-z_]\w*)=(.*)$", re.DOTALL)
_DELETES = frozenset({"rm", "unlink", "shred", "rmdir", "truncate"})
# With one of these, find picks some of what is there.
_CHOOSES = frozenset(
    {"-name", "-iname", "-path", "-ipath", "-regex", "-iregex", "-mtime", "-atime", "-ctime", "-mmin", "-newer"}
    | {"-size", "-empty", "-user", "-group", "-perm", "-nouser", "-xtype"}
)
# A line that is put into a file.
_SED_ADDS = re.compile(r"^(?:\d+|\$|/(?:\\.|[^/])*/)?\s*[iac]\\?\s*(.+)", re.DOTALL)
_SED_RUNS = re.compile(r"(?:^|[;{}\n]|\d|\$|/)\s*e(?:\s+(.+))?$|(?:^|[;\s])s(.).*\2.*\2\w*e\w*\s*$", re.MULTILINE)
_AWK_RUNS = re.compile(r"\bsystem\s*\(|\|&?\s*getline|\bprintf?\b[^\n;}]*\|&?\s*[\"'(\w]|/inet/|\"\s*\|\s*getline")
# A pipe to or from one of the plain filters, in an awk program.
_AWK_PIPES = re.compile(
    r"\|\s*\"((?:sort|uniq|cat|column|head|wc|tee|nl)(?: [\w ./&>,=-]*)?)\"|\"(date(?: [\w %+:-]*)?)\"\s*\|\s*getline"
)
_BASENAMES = re.compile(r"\{(?:\.|/|//|/\.|\+|#)\}")
_STRINGS = re.compile(r"\"((?:\\.|[^\"\\])*)\"")


def tar(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge an archive: what goes in, where it goes, and what it starts."""
    for word in command.values("--checkpoint-action"):
        action, _, program = word.text.partition("=")
        if action == "exec":
            judge.report.add("sh.dyn.hidden-shell", node, word.text)
            programs.run_shell(judge, Value(program, word.taints), node, own=False)
    words = list(command.positionals)
    # The first word may be flags without their dash.
    if words and re.fullmatch(r"[cxtruvzjJfpC]{1,8}", words[0].text):
        words = words[1:]
    extracts = bool({"-x", "--extract", "--get"} & command.flags) or (
        bool(command.positionals) and words is not command.positionals and command.positionals[0].text.startswith("x")
    )
    place = command.value("-C", "--directory")
    if place is not None and not extracts:
        words = [Word(posixpath.join(place.text, word.text), word.taints, word.node) for word in words]
    sources = [judge.read(word, node) for word in words]
    destruction.packed(judge, command, words, node)
    archive = command.value("-f", "--file")
    listing = bool({"-t", "--list"} & command.flags)
    if archive is not None and archive.text != "-":
        if extracts or listing:
            judge.read(archive, node)
        else:
            judge.write([archive], joined(sources), node)
    if extracts:
        judge.unpacked(stdin.taints | joined(sources).taints | _archived(judge, archive), node)
        folder = command.value("-C", "--directory")
        judge.touch(folder if folder is not None else Word("."), node, writing=True)
    return Value(UNKNOWN, stdin.taints | joined(sources).taints | {"made"})


def _archived(judge: Judge, archive: Word | None) -> frozenset[str]:
    state = judge.walker.state
    name = normal_path(state.located(archive.text)) if archive is not None else ""
    return state.files[name].taints if name in state.files else frozenset()


def wrapper(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the command that a wrapper starts."""
    wrapper = table.WRAPPERS[command.name]
    words = list(command.arguments)
    skip = wrapper.skip
    if command.name == "coproc" and [word.text for word in words[1:2]] in (["{"], ["("]):
        # Its name stands before the command.
        words = words[2:]
    lookup = command.name == "command" and {"-v", "-V"} & command.flags
    if lookup and command.positionals:
        return Value(command.positionals[0].text, frozenset({"place"}))
    while words and not lookup:
        word = words.pop(0)
        text = word.text
        code = programs.code_after(word, words, wrapper.code)
        if code is not None:
            if command.name == "env":
                # `-S` is for the first line of a file; anywhere else it hides what is started.
                judge.report.add("sh.dyn.hidden-shell", node, code.text)
            return programs.run_shell(judge, code, node, own=False)
        if text in wrapper.values and words:
            _option_value(judge, command.name, text, words.pop(0), node)
        elif text == "--" or (text.startswith("-") and len(text) > 1):
            if _takes_next(text, wrapper.values) and words:
                words.pop(0)
        elif wrapper.takes_assignments and (found := _FUNCTION.match(text)):
            # This is how a shell hands its functions on: the next one has this one.
            judge.report.add("sh.dyn.preload", node, found[1])
            programs.run_shell(judge, Value(f"f {found[2]}", word.taints), node, own=False)
        elif wrapper.takes_assignments and (found := _ASSIGNMENT.match(text)):
            judge.assigned(found[1], Value(found[2], word.taints), node)
        elif skip:
            skip -= 1
        elif wrapper.takes_line:
            return programs.run_shell(judge, joined([word, *words], " "), node, own=False)
        else:
            if command.name == "coproc":
                # Who knows what will be written to it.
                judge.piped, stdin = True, Value(UNKNOWN)
            return judge.run([word, *words], stdin, [], node)
    return _bare_wrapper(judge, command, stdin, node)


def _takes_next(text: str, values: frozenset[str]) -> bool:
    """Whether short options that stand together end in one that takes the next word, as in `-dmS name`."""
    together = len(text) > 2 and not text.startswith("--") and text.isascii()
    return together and f"-{text[-1]}" in values and not any(f"-{letter}" in values for letter in text[1:-1])


def _option_value(judge: Judge, wrapper: str, flag: str, word: Word, node: Node | None) -> None:
    if wrapper == "exec" and flag == "-a":
        judge.report.add("sh.evade.mask", node, word.text)
    if wrapper == "env" and flag in {"-u", "--unset"}:
        judge.assigned(word.text, EMPTY, node)


def _bare_wrapper(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    name = command.name
    if judge.lost:
        # The command to start is a variable that nothing here has set.
        judge.report.add("sh.dyn.unresolved", node)
    if name == "env" and not {"-i", "-", "--version"} & command.flags:
        judge.report.add("sh.env.all", node)
        return Value(UNKNOWN, frozenset({"environment"}))
    if name in {"sudo", "su", "unshare", "nsenter", "chroot", "script", "doas"} and judge.piped:
        judge.role = "shell"
        return programs.from_input(judge, "bash", stdin, node)
    return EMPTY if name in {"exec", "command", "builtin"} else Value(UNKNOWN, stdin.taints)


def parallel(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge parallel: its words are a line of shell, which it runs for each argument after `:::`."""
    words = [word for word in command.positionals if not re.fullmatch(r"-?\d+", word.text)]
    marks = [place for place, word in enumerate(words) if word.text in {":::", ":::+", "::::"}]
    line, items = (words[: marks[0]], words[marks[0] + 1 :]) if marks else (words, [])
    if marks and words[marks[0]].text == "::::":
        items = [Word(UNKNOWN, judge.read(word, node).taints, node) for word in items]
    if not marks and judge.piped:
        items = [Word(text, stdin.taints) for text in (stdin.text.splitlines() if stdin.known else [UNKNOWN])]
    outputs = []
    for item in items[:16] or [Word()]:
        text = _BASENAMES.sub("{}", " ".join(word.text for word in line))
        filled = text.replace("{}", item.text) if "{}" in text else f"{text} {item.text}".strip()
        # What is filled in is quoted: it can only be a word.
        quoted = not filled.startswith(UNKNOWN)
        outputs.append(programs.run_shell(judge, Value(filled, item.taints), node, own=False, quoted=quoted))
    return joined(outputs)


def make(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the recipes of a makefile that this script wrote or feeds in."""
    for word in command.positionals:
        if word.text.startswith(("SHELL=", ".SHELLFLAGS=", "MAKE=")):
            judge.report.add("sh.dyn.hidden-shell", node, word.text)
            programs.run_shell(judge, Value(word.text.partition("=")[2], word.taints), node, own=False)
    given = joined(command.values("--eval"), "\n")
    fed = False
    name = command.value("-f", "--file", "--makefile")
    # The grammar loses a dash that stands before a here-document.
    if name.text == "-" if name is not None else "-f" in command.flags:
        rules, fed = stdin, True
    elif name is not None and name.text.startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/")):
        rules = judge.walker.state.files.get(name.text, stdin)
    else:
        rules = judge.walker.state.files.get(normal_path(name.text if name is not None else "Makefile"), EMPTY)
    rules = joined([rules, given], "\n")
    if given.text:
        judge.report.add("sh.dyn.hidden-shell", node, given.text)
    recipes = later.recipes(rules.text)
    if recipes and fed:
        # Who reads the makefile sees nothing of it.
        judge.report.add("sh.dyn.inherit", node)
    if recipes:
        programs.run_shell(
            judge, Value("\n".join(recipes).replace("$$", "$"), rules.taints - {"written"}), node, own=False
        )
    return Value(UNKNOWN)


def xargs(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the command that xargs starts, with its input as arguments where that is known."""
    words = list(command.arguments)
    mark = ""
    while words and words[0].text.startswith("-"):
        flag = words.pop(0).text
        if flag.startswith(("-I", "-i", "--replace")):
            mark = (
                flag[2:]
                if len(flag) > 2 and not flag.startswith("--")
                else (words.pop(0).text if flag == "-I" and words else "{}")
            )
        elif flag in {"-n", "-P", "-L", "-d", "-s", "-a", "-E"} and words:
            value = words.pop(0)
            stdin = judge.read(value, node) if flag == "-a" else stdin
    if not words:
        if judge.lost:
            judge.report.add("sh.dyn.unresolved", node)
        return Value(stdin.text, stdin.taints)
    if not stdin.known and Command(words[0].text, []).name in _DELETES:
        # How much goes is as open as what is found.
        judge.report.add("sh.fs.delete.tree", node)
    given = stdin.text.split("\n") if mark and stdin.known else stdin.text.replace("\0", " ").split()
    items = [Word(text, stdin.taints, node) for text in (given if stdin.known else [UNKNOWN])][:200]
    if not mark:
        starts = Command(words[0].text, words[1:])
        if not stdin.known and starts.name in table.SHELLS and not starts.positionals:
            judge.report.add("sh.dyn.inherit", node)
        return judge.run([*words, *items], EMPTY, [], node)
    if any(mark in word.text for word in words[:1]) or (
        Command(words[0].text, words[1:]).name in table.SHELLS and any(mark in word.text for word in words)
    ):
        judge.report.add("sh.dyn.inherit", node)
    outputs = []
    for item in [item for item in items if item.text][:16]:
        filled = [Word(word.text.replace(mark, item.text), word.taints | item.taints, node) for word in words]
        outputs.append(judge.run(filled, EMPTY, [], node))
    return joined(outputs)


def find(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what is looked for, and what is done with what is found."""
    words = list(command.arguments)
    starts = []
    while words and not words[0].text.startswith(("-", "(", "!")):
        starts.append(words.pop(0))
    classes = frozenset(name for start in starts for name in judge.touch(start, node))
    judge.report.add("sh.fs.read", node)
    wide = bool(classes - {"workspace"}) or any(normal_path(start.text).startswith("~") for start in starts)
    taints = frozenset({"file"})
    of_all = any(is_root(judge.walker.state.located(start.text)) for start in starts)
    everywhere = of_all and not any(word.text in _CHOOSES for word in words)
    wide_taint = frozenset({"everywhere"}) if everywhere else NOTHING
    for place, word in enumerate(words):
        value = words[place + 1] if place + 1 < len(words) else Word()
        if word.text in {"-name", "-iname", "-path", "-regex", "-wholename", "-ipath"}:
            if wide and re.search(table.SECRET_WORDS, value.text, re.IGNORECASE):
                judge.report.add("sh.fs.hunt", node, value.text)
                taints |= {"secret"}
        elif word.text == "-perm" and wide and re.search(r"[-/]?(?:[2467][0-7]{3}|[ug]=?\+?s)", value.text):
            judge.report.add("sh.fs.hunt", node, value.text)
        elif word.text == "-delete":
            if everywhere:
                judge.report.add("sh.destroy.root", node)
            else:
                for start in starts:
                    judge.touch(start, node, writing=True)
        elif word.text in {"-exec", "-execdir", "-ok", "-okdir"}:
            starts_with = Command(value.text, []).name
            if (everywhere and starts_with in _DELETES) or (starts_with == "shred" and of_all):
                judge.report.add("sh.destroy.root", node)
            _found(judge, starts, words[place + 1 :], taints | wide_taint, node)
        elif word.text in {"-fprint", "-fprintf", "-fls", "-fprint0"}:
            judge.touch(value, node, writing=True)
    taints |= wide_taint
    return Value(UNKNOWN, taints - {"file"} or frozenset({"name"}))


def _found(judge: Judge, starts: list[Word], words: list[Word], taints: frozenset[str], node: Node | None) -> None:
    end = next((place for place, word in enumerate(words) if word.text in {";", "+"}), len(words))
    start = starts[0].text if starts else "."
    # A whole tree that is looked through stands for each file in it.
    path = start if start in {"/", "~"} else posixpath.join(start, UNKNOWN)
    filled = [
        Word(word.text.replace("{}", path), word.taints | (taints if "{}" in word.text else frozenset()), node)
        for word in words[:end]
    ]
    if filled and Command(filled[0].text, []).name in _DELETES:
        judge.report.add("sh.fs.delete.tree", node)
    if filled:
        judge.run(filled, EMPTY, [], node)


def awk(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge an awk program: it may start commands."""
    if command.value("-f") is not None or not command.positionals:
        return None
    program = command.positionals[0]
    if not program.known and "output" in program.taints:
        judge.report.add("sh.dyn.unresolved", node)
    commands = [found[1] or found[2] for found in _AWK_PIPES.finditer(program.text)]
    if _AWK_RUNS.search(_AWK_PIPES.sub("", program.text)):
        if "/inet/" in program.text:
            judge.report.add("sh.net.reverse-shell", node)
        judge.report.add("sh.dyn.hidden-shell", node)
        for found in list(_STRINGS.finditer(program.text))[:20]:
            text = found[1].replace('\\"', '"')
            before, after = program.text[: found.start()].rstrip(), program.text[found.end() :].lstrip()
            if before.endswith(("(", "|", "|&")) or after.startswith("|"):
                programs.run_shell(judge, Value(text), node, own=False)
    else:
        for text in commands[:20]:
            programs.run_shell(judge, Value(text), node, own=False)
    if "ENVIRON" in program.text and re.search(r"in\s+ENVIRON", program.text):
        judge.report.add("sh.env.all", node)
    return None


def sed(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a sed script: it may start commands and write files."""
    scripts = command.values("-e", "--expression") or command.positionals[:1]
    in_place = any(flag.startswith("-i") or flag == "--in-place" for flag in command.flags)
    for script in scripts:
        if in_place and (line := _SED_ADDS.match(script.text)):
            judge.walker.foresee(line[1], node)
        for found in _SED_RUNS.finditer(script.text):
            judge.report.add("sh.dyn.hidden-shell", node, script.text)
            if found[1]:
                programs.run_shell(judge, Value(found[1], script.taints), node, own=False)
        for target in re.findall(r"(?:^|[;\d/$])\s*[wWrR]\s+(\S+)", script.text):
            judge.touch(Value(target), node, writing="w" in script.text)
    return None


def rename(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a renaming by a program in Perl."""
    words = command.positionals
    if words and re.match(r"(?:s|y|tr)\W", words[0].text):
        programs.run_code(judge, "perl", words[0], node)
        words = words[1:]
    for word in words:
        judge.touch(word, node, writing=True)
    return EMPTY


def crontab(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what is scheduled."""
    words = command.positionals
    if {"-l"} & command.flags:
        return Value("")
    if command.name == "crontab" and words and words[0].text != "-":
        judge.later(judge.read(words[0], node), node)
    elif judge.piped:
        judge.later(stdin, node)
    return EMPTY


def query(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the lines of shell that a program for JSON or YAML puts into what it writes."""
    for word in command.positionals[:1]:
        for found in list(_STRINGS.finditer(word.text))[:20]:
            if "|" in found[1] or "$(" in found[1]:
                judge.walker.foresee(found[1].replace('\\"', '"'), node)
    return None


def socat(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge the two ends that socat joins."""
    judge.role = "network"
    for word in command.positionals:
        kind, _, program = word.text.partition(":")
        if kind.upper() in {"EXEC", "SYSTEM", "SHELL"}:
            judge.report.add("sh.net.reverse-shell", node)
            programs.run_shell(judge, Value(program.split(",")[0], word.taints), node, own=False)
        elif "LISTEN" in kind.upper():
            judge.report.add("sh.net.listen", node)
        elif program:
            network.judge_host(judge, "//" + program, node)
            judge.touch(Value(program.split(",")[0]), node)
    return network.judge(judge, command, stdin, node)


def docker(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a container: what of the host it gets, and what it runs."""
    for word in command.values("-H", "--host"):
        judge.touch(Value(word.text.removeprefix("unix://")), node)
    for word in command.values("-v", "--volume", "--mount"):
        source = re.split(r"[:,]", word.text.partition("source=")[2] or word.text.partition("src=")[2] or word.text)[0]
        if normal_path(source) == "/" or path_classes(source) - {"workspace"}:
            judge.report.add("sh.priv.host", node, word.text)
        judge.touch(Value(source), node)
    words = command.positionals
    if words and words[0].text in {"run", "exec"} and len(words) > 2:
        judge.run(words[2:], EMPTY, [], node)
    return Value(UNKNOWN, frozenset({"network"}) if words and words[0].text == "pull" else frozenset())


def editor(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge editors and debuggers, which start shells on request."""
    if command.name == "gdb" and any(word.text.isdigit() for word in command.positionals[1:2]):
        judge.report.add("sh.priv.debug", node)
    given = command.values(
        "-c", "--cmd", "-ex", "-iex", "--eval-command", "--eval", "--command", "-cmd", "-e", "-o", "-O"
    )
    starts = [word for word in command.arguments if word.text.startswith("+")]
    for word in [*given, *starts]:
        options.script(judge, word, node)
    if judge.piped:
        options.script(judge, stdin, node)
    return network.judge(judge, command, stdin, node) if network.is_network(command) else None
