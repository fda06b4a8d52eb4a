"""What the arguments of a call tell: paths, hosts, commands, code, variables."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from audit.risk.findings import higher
from audit.risk.places import is_root, normal_path, path_classes, url_host
from audit.risk.python import hosts, rules, statements
from audit.risk.python.commands import by_shell, is_interactive
from audit.risk.python.pickles import calls_when_loaded
from audit.risk.python.values import HOLE, OWN_FILE, QUOTED, UNKNOWN, Value, merged_taints

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping, Sequence

    from audit.risk.findings import Tier
    from audit.risk.python.correlate import Facts
    from audit.risk.python.evaluate import Evaluator
    from audit.risk.python.report import Report
    from audit.risk.python.values import Constant

_PLACES = {
    "secret": "py.fs.secret",
    "environment": "py.fs.environment",
    "device": "py.fs.device",
    "escape": "py.fs.escape",
    "socket": "py.fs.socket",
    "traffic": "py.net.socket",
    "keys": "py.fs.persist",
    "profile": "py.fs.persist",
    "schedule": "py.fs.persist",
    "service": "py.fs.persist",
    "hook": "py.fs.persist",
    "accounts": "py.fs.persist",
}
_PRELOADS = re.compile(
    r"(?:LD_(?:PRELOAD|LIBRARY_PATH|AUDIT)|PYTHON(?:PATH|STARTUP|HOME|INSPECT|BREAKPOINT)|PATH|BASH_ENV|ENV|IFS|GIT_SSH\w*|NODE_OPTIONS|PERL5OPT|RUBYOPT|PROMPT_COMMAND|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|PYTHON(?:USERBASE|PLATLIBDIR)"
    r"|GCONV_PATH|PERL5LIB|RUBYLIB|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|GLIBC_TUNABLES|DYLD_\w+|GIT_CONFIG_\w+)"
)
# Variables that other programs run, and what is more than the name of a program in them.
_COMMANDS = re.compile(r"\w*(?:PAGER|EDITOR|VISUAL|BROWSER|ASKPASS|EXTERNAL_DIFF|LESSOPEN|LESSCLOSE|SHELL)")
_COMMAND = re.compile(r"[;|&$`<>%]|\b(?:\w*sh|python[\d.]*|perl|ruby|node|curl|wget|nc|ncat)\b")
_DUNDER_FIELD = re.compile(r"\{[^{}]*(?:\.|\[)_{1,2}[a-z]+_*")
_HIDDEN_FIELD = re.compile(rf"\{{[^{{}}]*[.\[][^{{}}]*{HOLE}")
_ALL_OF_IT = re.compile(r"(?:/|/\*|~|~/\*|/home|/home/[^/]*|/home/\*|~/\.\*)")
_OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - looked for
# What a child takes from its environment before it does anything of its own.
_CHILD_PRELOADS = re.compile(
    r"LD_(?:PRELOAD|AUDIT)|BASH_ENV|PYTHONSTARTUP|PYTHONINSPECT|PERL5OPT|RUBYOPT|PROMPT_COMMAND"
)
_EXECUTABLE = 4
# AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP; SOCK_RAW.
_RAW_KINDS = frozenset({16, 17, 38, 40, 44, 3})
_ENORMOUS = 1 << 34
# What is written to these is judged where it is written.
_OWN_PIPES = frozenset({"subprocess.PIPE", "subprocess.DEVNULL", "sys.stdin"})
_WRITE_MODES = re.compile(r"[wax+]")
_MAX_COMMANDS = 8
_MAX_PARTS = 64
_POWERS = frozenset(
    {"privileged", "Privileged", "hostPID", "hostIPC", "hostNetwork", "hostPath", "allowPrivilegeEscalation", "PidMode"}
)
_SWEEPERS = frozenset({"os.walk", "os.fwalk", "pathlib.Path().rglob", "glob.glob", "glob.iglob"})
_MOVES = frozenset({"os.chdir", "contextlib.chdir"})
_DESCRIPTORS = frozenset({"dir_fd", "src_dir_fd", "dst_dir_fd"})
_FILE_ROLES = {"read": False, "list": False, "write": True, "delete": True}


class Sinks:
    """Judges arguments, and keeps for the correlations what they tell about files."""

    def __init__(self, evaluator: Evaluator, report: Report, facts: Facts) -> None:
        self.ev = evaluator
        self.report = report
        self.facts = facts

    def roles(
        self, node: ast.Call, name: str, args: Sequence[Value], keywords: Mapping[str, Value], base: Value
    ) -> Tier | None:
        """Judge each argument by what it means to the function; return the tier of a shell line among them."""
        does: Tier | None = None
        if keywords:
            self._beside(node, name, keywords)
        for role in rules.roles_of(name):
            if role.position is None:
                value = base
            elif role.position < len(args):
                value = args[role.position]
            elif role.keyword in keywords:
                value = keywords[role.keyword]
            else:
                continue
            if name in _MOVES:
                self.facts.folders += [text for text in value.texts() if text.startswith(("/", "~"))][:4]
            if name in _SWEEPERS:
                self.facts.sweeps.add(id(node))
            if role.kind in _FILE_ROLES:
                self.path(node, value, writing=_FILE_ROLES[role.kind], deleting=role.kind == "delete")
            elif role.kind in {"open", "osopen"}:
                self._open(node, name, value, args, keywords)
            elif role.kind == "words":
                self._feed(node, self._words(node, list(args[role.position or 0 :])), None)
            elif role.kind == "shell":
                does = self.shell(node, value)
            elif role.kind == "argv":
                does = self._argv(node, value, keywords)
            else:
                _ROLES[role.kind](self, node, value)
        return does

    def _beside(self, node: ast.Call, name: str, keywords: Mapping[str, Value]) -> None:
        """Judge what keywords change: whether certificates are checked, and where relative paths begin."""
        if False in keywords.get("verify", UNKNOWN).consts and (rules.rule_of(name) or "").startswith("py.net"):
            self.report.add("py.net.unverified", node)
        if True in keywords.get("trust_remote_code", UNKNOWN).consts:
            self.report.add("py.dyn.remote", node, name)
        if not _DESCRIPTORS.isdisjoint(keywords):
            self.facts.folders += [folder for folder in self.facts.opened if folder not in self.facts.folders]
        if "root_dir" in keywords:
            self.facts.folders += [text for text in keywords["root_dir"].texts() if text.startswith(("/", "~"))][:4]

    # Files

    def path(self, node: ast.AST, value: Value, *, writing: bool, deleting: bool = False) -> None:
        """Judge a path that is read, written or deleted."""
        if writing and value.taints and "file" in value.taints:
            self.facts.rewritten = node
        if not writing and not deleting and OWN_FILE in value.consts:
            self.facts.reads_itself = True
        for part in (value, *value.items_values()):
            for text in part.texts():
                self._place(node, text, writing=writing, deleting=deleting)

    def foreign(self, node: ast.AST, values: Sequence[Value]) -> None:
        """Judge what is handed to a library that the rules do not know in detail: only the places that matter."""
        self._powers(node, values)
        for text in (text for value in values for text in value.texts()):
            for name in sorted(path_classes(text.replace(HOLE, "*"))):
                if name in _PLACES and text.startswith(("/", "~")):
                    self.report.add(_PLACES[name], node, text)
            hosts.service(self, node, text)

    def _powers(self, node: ast.AST, values: Sequence[Value]) -> None:
        """Judge tables that describe what others are to run: those that ask for the host itself."""
        waiting, steps = list(values), 0
        while waiting and steps < _MAX_PARTS:
            steps += 1
            for key, part in waiting.pop().items or ():
                if key in _POWERS and False not in part.consts:
                    self.report.add("py.cloud.host", node, str(key))
                if part.items:
                    waiting.append(part)

    def _place(self, node: ast.AST, text: str, *, writing: bool, deleting: bool) -> None:
        known = text.replace(HOLE, "*")
        if not known.startswith(("/", "~")) and not deleting:
            for folder in self.facts.folders:
                self._place(node, f"{folder}/{known}", writing=writing, deleting=False)
        everything = known == "/" or (deleting and known.startswith("/"))
        if (not known.strip("*/") and not everything) or (url_host(known) and not known.startswith("file:")):
            return
        place = normal_path(known)
        classes = path_classes(known, writing=writing)
        if deleting and (is_root(known) or _ALL_OF_IT.fullmatch(place) or "system" in classes or "kernel" in classes):
            self.report.add("py.fs.destroy", node, known)
            return
        if (writing or deleting) and _plain(known) == OWN_FILE:
            self.report.add("py.self.change", node)
        if writing:
            if "workspace" in classes and not deleting:
                self.report.add("py.fs.write", node, known)
            self.facts.written.setdefault(_plain(known), node)
        if id(node) in self.facts.sweeps and _ALL_OF_IT.fullmatch(place.partition("/**")[0] or "/"):
            self.report.add("py.fs.sweep", node, known)
        for name in sorted(classes):
            if name in _PLACES:
                self.report.add(_PLACES[name], node, known)
            elif name in {"system", "kernel"}:
                self._system(node, known, place, name, writing=writing)

    def _system(self, node: ast.AST, text: str, place: str, kind: str, *, writing: bool) -> None:
        if place.startswith(("/etc/passwd", "/etc/group")):
            self.report.add("py.fs.accounts", node, text)
        if writing:
            self.report.add("py.fs.kernel" if kind == "kernel" else "py.fs.write.system", node, text)
        else:
            self.report.add("py.fs.read.system", node, text)

    def _open(
        self, node: ast.AST, name: str, value: Value, args: Sequence[Value], keywords: Mapping[str, Value]
    ) -> None:
        # The path of `Path.open` is what it is called on.
        place = 0 if name.startswith("pathlib.") else 1
        given = keywords.get("mode", keywords.get("flags", args[place] if len(args) > place else None))
        if name == "os.open":
            self.facts.opened += [text for text in value.texts() if text.startswith(("/", "~"))][:4]
            writing = (
                given is None
                or any(flag.rpartition("_")[2] in {"WRONLY", "RDWR", "CREAT"} for flag in given.names)
                or given.open
            )
        elif name in {"sqlite3.connect", "shelve.open", "dbm.open"}:
            writing = True
        else:
            modes = [mode for mode in (given.consts if given is not None else ("r",)) if isinstance(mode, str)]
            writing = any(_WRITE_MODES.search(mode) for mode in modes)
        if writing:
            self.report.add("py.fs.write", node, name)
        self.path(node, value, writing=writing)

    def _tree(self, node: ast.AST, value: Value) -> None:
        """Judge a folder that is read with all in it."""
        self.path(node, value, writing=False)
        for text in value.texts():
            if text.startswith(("/", "~")) and is_root(text):
                self.report.add("py.fs.secret", node, text)

    def _modules(self, node: ast.AST, value: Value) -> None:
        for part in (value, *value.items_values()):
            for text in part.texts():
                self.facts.run.setdefault(_plain(text), node)
                if text.startswith(_OPEN_TO_ALL):
                    self.report.add("py.sys.path.open", node, text)

    def _remote(self, node: ast.AST, value: Value) -> None:
        """Judge what another machine is told to run, as far as it is known."""
        for text in value.texts()[:_MAX_COMMANDS]:
            self.report.nested(text.replace(HOLE, "$UNKNOWN") if text != HOLE else "", "bash", node)

    def _mode(self, node: ast.AST, value: Value) -> None:
        if any(isinstance(mode, str) and _WRITE_MODES.search(mode) for mode in value.consts):
            self.report.add("py.fs.write", node, "open")

    def _bits(self, node: ast.AST, value: Value) -> None:
        for bits in value.consts:
            if isinstance(bits, int) and bits & 0o6000:
                self.report.add("py.privilege.bits", node)
            if isinstance(bits, int) and bits & 0o111:
                self.report.add("py.fs.executable", node)
                self.facts.executable = node
        if any(name.startswith(("stat.S_ISUID", "stat.S_ISGID")) for name in value.names):
            self.report.add("py.privilege.bits", node)

    def _fetched(self, node: ast.AST, value: Value) -> None:
        self.path(node, value, writing=True)
        for text in value.texts():
            self.facts.fetched.setdefault(_plain(text), node)

    def _text(self, node: ast.AST, value: Value) -> None:
        self.facts.texts += [text for text in value.texts() if len(text) > 3]
        if value.taints and "net" in value.taints:
            self.facts.saved = node

    def _program(self, node: ast.AST, value: Value) -> None:
        for text in value.texts():
            self.facts.run.setdefault(_plain(text), node)

    # Programs and code

    def shell(self, node: ast.AST, value: Value) -> Tier:
        """Judge a shell line; return the tier of what it does, as far as that is known."""
        texts = value.texts()
        tier: Tier = "L0"
        for text in texts[:_MAX_COMMANDS]:
            self.facts.commands.append((text, node))
            self._interactive(node, text.split())
            tier = higher(tier, self.report.nested(text.replace(HOLE, "$UNKNOWN"), "bash", node))
        if not 0 < len(texts) <= _MAX_COMMANDS or value.open or any(HOLE in text.replace(QUOTED, "") for text in texts):
            self.report.add("py.proc.unresolved", node)
            return "L3"
        # A line with words that are quoted is put together as it should be.
        return "L3" if value.built and not any(QUOTED in text for text in texts) else tier

    def _argv(self, node: ast.AST, value: Value, keywords: Mapping[str, Value]) -> Tier | None:
        for name, _ in keywords.get("env", UNKNOWN).items or ():
            if isinstance(name, str) and _CHILD_PRELOADS.fullmatch(name):
                self.report.add("py.env.preload", node, name)
        if by_shell(keywords):
            line = value.items_values()[0] if value.items_values() else value
            does = self.shell(node, line)
            self._feed(node, line.texts()[:_MAX_COMMANDS], keywords.get("input"))
            return does
        given = keywords.get("input", keywords.get("stdin"))
        if given is not None and not _OWN_PIPES.isdisjoint(given.names):
            given = None
        self._feed(node, self._words(node, value.items_values() or [value], keywords.get("cwd", UNKNOWN)), given)
        return None

    def _feed(self, node: ast.AST, lines: Sequence[str], given: Value | None) -> None:
        """Judge what a command reads on its standard input: for an interpreter that is code."""
        self.facts.readers += lines
        if given is None:
            return
        texts = given.texts()
        known = bool(texts) and not given.open and not any(HOLE in text for text in texts)
        for line in lines:
            for text in texts[:_MAX_COMMANDS]:
                self.report.nested(f"{line} <<< {shlex.quote(text.replace(HOLE, '$UNKNOWN'))}", "bash", node)
            if not known and self.report.nested(f'{line} <<< "$UNKNOWN"', "bash", node) == "L3":
                self.report.add("py.dyn.text", node)
                self.facts.sink("code", node, merged_taints([given]) or {})

    def _fed(self, node: ast.AST, value: Value) -> None:
        self.facts.fed.append((node, value))

    def settle(self) -> None:
        """Judge what is written to programs, now that all of them are known."""
        readers = list(dict.fromkeys(self.facts.readers))[:_MAX_COMMANDS]
        self.facts.readers = []
        for node, value in self.facts.fed[:_MAX_COMMANDS]:
            self._feed(node, readers, value)

    def _interactive(self, node: ast.AST, words: Sequence[str]) -> None:
        if is_interactive(words):
            self.report.add("py.proc.interactive", node)

    def _words(self, node: ast.AST, words: Sequence[Value], folder: Value = UNKNOWN) -> list[str]:
        """Judge the words of a command; return them as lines, one for each way in which they may come about."""
        heads = words[0].texts() if words else []
        if not 0 < len(heads) <= _MAX_COMMANDS or words[0].open:
            self.report.add("py.proc.unresolved", node)
        # Each possible value of each word stands in at least one of the lines.
        lines = []
        variants = max([len(word.texts()) for word in words], default=0) if heads else 0
        for variant in range(min(variants, _MAX_COMMANDS)):
            head = heads[min(variant, len(heads) - 1)]
            line = [head, *(_nth(word, variant) for word in words[1:])]
            text = " ".join(shlex.quote(word) if word is not None else '"$UNKNOWN"' for word in line)
            for place in folder.texts()[:1]:
                if not path_classes(place) <= {"workspace"}:
                    text = f"cd {shlex.quote(place)}; {text}"
            self._interactive(node, [word or "?" for word in line])
            self.facts.commands.append((text, node))
            self.report.nested(text, "bash", node)
            self.facts.run.setdefault(_plain(head), node)
            lines.append(text)
        return lines

    def _code(self, node: ast.AST, value: Value) -> None:
        texts = [const for const in value.consts if isinstance(const, str | bytes)]
        for text in texts[: 2 * _MAX_COMMANDS]:
            self.report.nested(text, "python", node)
        if value.taints and "decoded" in value.taints and texts:
            self.report.add("py.flow.decoded.known", node, chain=(value.taints["decoded"],))
        holes = any(isinstance(text, str) and HOLE in text for text in texts)
        if not 0 < len(texts) <= 2 * _MAX_COMMANDS or value.open or holes:
            self.report.add("py.dyn.text", node)

    def _formula(self, node: ast.AST, value: Value) -> None:
        """Judge what a library evaluates: a constant formula is harmless, anything else is code."""
        texts = [const for const in value.consts if isinstance(const, str)]
        known = texts and not value.open and not any(HOLE in text for text in texts)
        if value.consts and not texts:
            return
        if not known or any(self.report.nested(text, "python", node) > "L0" for text in texts[:_MAX_COMMANDS]):
            self.report.add("py.dyn.formula", node)

    def _filter(self, node: ast.AST, value: Value) -> None:
        """Judge a filter over a table: values may be filled in, but it may call nothing, and nobody else writes it."""
        texts = [text.replace(HOLE, "0").replace("@", "").replace("`", "") for text in value.texts()[:_MAX_COMMANDS]]
        calls = any("__" in text or self.report.nested(text, "python", node) > "L1" for text in texts)
        foreign = not texts and not (value.taints or {}).keys().isdisjoint({"input", "net"})
        if calls or foreign:
            self.report.add("py.dyn.formula", node)

    def _protection(self, node: ast.AST, value: Value) -> None:
        if any(isinstance(bits, int) and bits & _EXECUTABLE for bits in value.consts):
            self.report.add("py.native.memory", node)

    def _pickled(self, node: ast.AST, value: Value) -> None:
        for const in value.consts:
            if calls_when_loaded(const):
                self.report.add("py.deser.crafted", node)

    def _factories(self, node: ast.AST, value: Value) -> None:
        """Judge a table for `logging`: the key `()` names what is called, and `class` what is made."""
        for key, part in value.items or ():
            if key == "()" or (key == "class" and _is_active(part)):
                self.report.add("py.deser.crafted", node)
            if key == "filename":
                self.report.add("py.fs.write", node)
                self.path(node, part, writing=True)
            self._factories(node, part)

    def template(self, node: ast.AST, consts: Sequence[Constant]) -> None:
        """Judge a format string."""
        if any(isinstance(const, str) and _DUNDER_FIELD.search(const) for const in consts):
            self.report.add("py.reflect.format", node)
        if any(isinstance(const, str) and _HIDDEN_FIELD.search(const) for const in consts):
            self.report.add("py.dyn.unresolved", node)

    def _template(self, node: ast.AST, value: Value) -> None:
        self.template(node, value.consts)

    # Environment and processes

    def variable(self, node: ast.AST, value: Value) -> None:
        """Judge the name of an environment variable that is read."""
        for text in value.texts():
            if rules.looks_secret(text):
                self.report.add("py.env.secret", node, text)

    def set_variable(self, node: ast.AST, name: Value, value: Value = UNKNOWN) -> None:
        """Judge the name of an environment variable that is set, and what it is set to where it is a command."""
        self.report.add("py.env.set", node)
        for text in name.texts():
            command = _COMMANDS.fullmatch(text) and any(map(_COMMAND.search, value.texts()))
            if command or _PRELOADS.fullmatch(text):
                self.report.add("py.env.preload", node, text)

    def _set_variables(self, node: ast.AST, value: Value) -> None:
        for key, part in value.items or ():
            if isinstance(key, str):
                self.set_variable(node, Value(consts=(key,)), part)

    def _pid(self, node: ast.AST, value: Value) -> None:
        listed = bool(value.taints) and "file" in (value.taints or {}) and self.ev.repeats(node)
        if listed or any(pid in {-1, 1} for pid in value.consts):
            self.report.add("py.proc.mass", node)

    def _family(self, node: ast.AST, value: Value) -> None:
        """Judge the kind of a socket where it is given as a number."""
        if any(number in _RAW_KINDS for number in value.consts if isinstance(number, int)):
            self.report.add("py.net.raw", node, "socket.socket")

    def _size(self, node: ast.AST, value: Value) -> None:
        """Judge how much is asked for at once: numbers are multiplied where they are a shape."""
        total = 1
        for part in (value, *value.items_values()):
            numbers = [const for const in part.consts if isinstance(const, int)]
            total *= max(numbers, default=1)
        if total >= _ENORMOUS:
            self.report.add("py.exhaust", node)

    def _nothing(self, node: ast.AST, value: Value) -> None:
        """The rule for the name says all."""


_ROLES: dict[str, Callable[[Sinks, Any, Value], None]] = {
    "endpoint": hosts.endpoint,
    "browser": statements.browser,
    "markup": statements.markup,
    "setvariables": Sinks._set_variables,
    "mode": Sinks._mode,
    "tree": Sinks._tree,
    "modules": Sinks._modules,
    "remote": Sinks._remote,
    "bits": Sinks._bits,
    "fetched": Sinks._fetched,
    "text": Sinks._text,
    "program": Sinks._program,
    "url": hosts.url,
    "fetch": hosts.fetch,
    "host": hosts.host,
    "login": hosts.login,
    "name": hosts.host,
    "bindhost": hosts.bind,
    "socketpath": hosts.address,
    "address": hosts.address,
    "bind": hosts.bind,
    "code": Sinks._code,
    "formula": Sinks._formula,
    "filter": Sinks._filter,
    "protection": Sinks._protection,
    "pickled": Sinks._pickled,
    "template": Sinks._template,
    "variable": Sinks.variable,
    "setvariable": Sinks.set_variable,
    "pid": Sinks._pid,
    "fed": Sinks._fed,
    "factories": Sinks._factories,
    "family": Sinks._family,
    "size": Sinks._size,
    "library": Sinks._nothing,
    "module": Sinks._nothing,
}


def _is_active(factory: Value) -> bool:
    found = [rules.rule_of(rules.canonical(text)) for text in factory.texts()]
    return any(rule is not None and rules.RULES_BY_ID[rule].tier >= "L2" for rule in found)


def _nth(word: Value, number: int) -> str | None:
    texts = word.texts()
    return texts[min(number, len(texts) - 1)].replace(HOLE, "X") if texts else None


def _plain(path: str) -> str:
    return path.removeprefix("./")
