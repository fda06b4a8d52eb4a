"""Judges one command at a time: what it is, what it touches, what it starts, and what comes out of it."""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from audit.risk.places import host_classes, is_private, is_root, normal_path, path_classes
from audit.risk.shell import destruction, later, options, programs, settings, specials, table
from audit.risk.shell.command import Command, canonical
from audit.risk.shell.filters import DECODED, apply
from audit.risk.shell.spots import spot_classes
from audit.risk.shell.values import EMPTY, NOTHING, UNKNOWN, Value, Word, joined, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tree_sitter import Node

    from audit.risk.shell.context import Context
    from audit.risk.shell.walk import Walker

_READ_RULES = {
    "secret": "sh.fs.secret",
    "way out": "sh.priv.host",
    "environment": "sh.env.all",
    "socket": "sh.priv.socket",
    "device": "sh.fs.device",
    "kernel": "sh.fs.read.system",
    "traffic": "sh.net.socket",
    "system": "sh.fs.read.system",
    "workspace": "sh.fs.read",
}
_WRITE_RULES = {
    "secret": "sh.fs.secret",
    "environment": "sh.fs.write.system",
    "socket": "sh.priv.socket",
    "device": "sh.destroy.device",
    "kernel": "sh.priv.kernel",
    "traffic": "sh.net.socket",
    "keys": "sh.persist.keys",
    "profile": "sh.persist.profile",
    "schedule": "sh.persist.schedule",
    "service": "sh.persist.service",
    "hook": "sh.persist.hook",
    "accounts": "sh.priv.accounts",
    "way out": "sh.priv.host",
    "cache": "sh.fs.write.cache",
    "log": "sh.fs.write.system",
    "system": "sh.fs.write.system",
    "workspace": "sh.fs.write",
}
_TAINT_OF = {"secret": "secret", "environment": "environment", "traffic": "network"}
_RUN_LATER = frozenset({"profile", "schedule", "service", "hook"})
_SILENT = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/tty", "/dev/zero", "-"})
_SILENT_COMMANDS = frozenset({":", "true", "false", "exit", "return", "shift", "wait", "sleep", "break", "continue"})
_TIMES = re.compile(r"^\s*(?:@\w+|(?:[\d*/,\-A-Za-z]+\s+){5})(?:root\s+)?", re.MULTILINE)
_UNIT = re.compile(r"^\s*Exec\w*=[-@:+!]*", re.MULTILINE)
# Their arguments are no files to read: letters, verbs, devices that another rule stands for.
_NO_FILES = frozenset({"tr", "openssl", "mount", "umount", "losetup"})
# Whoever takes one of these as a whole takes the credentials in it.
_HOLDS_SECRETS = frozenset({"/", "~", "~/", "/home", "/home/", "/etc", "/etc/", "/root", "/root/"})
# What comes out of all others was not in their input as it is.
_PASSES_ON = frozenset({"cat", "tee", "pv", "sponge", "dos2unix"})
_COPIES = frozenset({"cp", "mv", "install"})
# It asks somebody else, keeps what was typed, or leaves out what it should show.
_STANDS_IN = re.compile(
    rb"\b(?:curl|wget|nc|ncat|tee -a|read -[a-z]*s)\b|/dev/tcp|>>|grep -v|\bbase64\b|^\{\s*(?::|true)\s*;?\s*\}$"
)
_IN_QUOTES = re.compile(rb"\"[^\"]*\"|'[^']*'")
_OWN_PROGRAMS = frozenset({"~/bin", "~/.local/bin", "~/.cargo/bin", "~/go/bin", "~/.npm-global/bin"})
# A name that was printed is a disguise, unless a command was asked where the program lies.
_PRINTED = frozenset({"output"})
_FOUND_OUT = frozenset({"output", "place"})
_TELLS_ACCOUNTS = frozenset({"/etc/passwd", "/etc/group"})
_ENDLESS_SOURCES = frozenset({"/dev/zero", "/dev/urandom", "/dev/random", "/dev/full"})
_NUMBERS = frozenset({"/proc/sys/kernel/random/uuid", "/proc/sys/kernel/random/boot_id"})
_NO_END = frozenset({"endless"})
# They stop after so much, or at once.
_ENDS = frozenset({"head", "timeout", "cmp", "file", "stat", "ls", "od", "xxd", "hexdump", "test"})
# They hold all of their input before they write any of it.
_KEEPS_ALL = frozenset({"tail", "sort", "tac", "shuf", "rev", "tsort", "sponge", "column", "awk", "mapfile", "uniq"})
_STANDARD_INPUT = frozenset({"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
_STICKS = frozenset({"secret", "environment", "network", "decoded"})
_UNPACKERS = frozenset(
    {"unzip", "7z", "unrar", "cpio", "gunzip", "bunzip2", "unxz", "unzstd", "zcat", "bzcat", "xzcat", "zstdcat"}
)
_DECODERS = frozenset({"base64", "base32", "xxd", "openssl", "gpg", "uudecode", "gzip", "bzip2", "xz", "zstd", "rev"})
_DECODES = frozenset({"-d", "-D", "--decode", "-r", "--decrypt", "--decompress"})
# What a command prints that matches one of these rules.
_PRINTS_WHAT = {"sh.fs.secret": "secret", "sh.sys.info": "machine"}
_PRINTS = frozenset(_PRINTS_WHAT)
# They leave less of a file than there was.
_WIPES = frozenset({"truncate", "shred", "sed", "rm", "unlink"})
_POOL = re.compile(r"\bstratum\d?(?:\+\w+)?://")
_DIGS = frozenset({"--donate-level", "--coin", "--nicehash", "--rig-id", "--randomx-mode", "--cpu-max-threads-hint"})
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*\+?=")


class Judge:
    """The judge of one shell's commands."""

    def __init__(self, context: Context, walker: Walker) -> None:
        self.context = context
        self.report = context.report
        self.walker = walker
        self.piped = False
        self.role = ""
        self.input: Value = EMPTY
        """What the command at hand reads."""
        self.lost = False
        """Whether words of the command at hand are variables that nothing here has set."""

    def run(self, argv: Sequence[Word], stdin: Value, targets: Sequence[Word], node: Node | None) -> Value:
        """Judge one command with its redirections and return what it writes."""
        self.context.spend()
        if not argv:
            return self.write(targets, EMPTY, node)
        output = self._run(argv, stdin, node)
        if self.role == "shell" and any("traffic" in path_classes(word.text) for word in targets):
            self.report.add("sh.corr.network-shell", node)
        return self.write(targets, output, node)

    def _run(self, argv: Sequence[Word], stdin: Value, node: Node | None) -> Value:
        head, arguments = argv[0], list(argv[1:])
        state = self.walker.state
        if head.text in state.functions:
            return self.walker.call(head.text, arguments, stdin, node)
        if head.text in state.aliases and not head.assembled:
            alias = state.aliases.pop(head.text)
            try:
                if canonical(alias.text.split(" ")[0]) in table.SHELLS:
                    self.report.add("sh.dyn.eval", node)
                text = " ".join([alias.text, *(quoted(word.text) for word in arguments)])
                return programs.run_shell(self, Value(text, alias.taints), node, own=True)
            finally:
                state.aliases[head.text] = alias
        if _ASSIGNMENT.match(head.text) and not head.assembled and head.known:
            return EMPTY
        path = self._name(head, node)
        if path is None:
            return Value(UNKNOWN, joined(argv).taints)
        command = Command(path, arguments)
        return self.judge(command, stdin, node)

    def missing(self, head: Value, node: Node) -> None:
        """Report a command whose name is a variable that nothing here has set: its caller chooses."""
        if "unset" in head.taints:
            self.report.add("sh.dyn.unresolved", node)

    def judge(self, command: Command, stdin: Value, node: Node | None) -> Value:
        """Judge a command whose name is known."""
        self.input = stdin
        matching = table.rules_of(command)
        is_file = command.is_local and command.name not in table.WRAPPERS
        if is_file or command.name not in table.KNOWN:
            self._watch_pool(command, node)
        if is_file:
            if "sh.net.mining" in matching:
                self.report.add("sh.net.mining", node)
            return programs.run_file(self, Word(command.path), stdin, node)
        for rule in matching:
            self.report.add(rule, node)
        if command.name in table.HAVE_OPTIONS:
            options.judge(self, command, node)
        passed = options.passed_on(command)
        if passed:
            return self.run(passed, stdin, [], node)
        special = specials.of(command)
        output = special(self, command, stdin, node) if special is not None else None
        if output is None:
            output = self._plain(command, stdin, node)
        added = _PRINTS.intersection(matching)
        return (
            Value(output.text or UNKNOWN, output.taints | {_PRINTS_WHAT[rule] for rule in added}) if added else output
        )

    def _watch_pool(self, command: Command, node: Node | None) -> None:
        """Report a program that talks to a mining pool, whatever it is called."""
        if not _DIGS.isdisjoint(command.flags) or any(
            "stratum" in word.text and _POOL.search(word.text) for word in command.arguments
        ):
            self.report.add("sh.net.mining", node)

    def _name(self, head: Word, node: Node | None) -> str | None:
        """Return the name of the program, or None after reporting that nobody can know it."""
        text = head.text
        if head.pattern and any(mark in text for mark in "*?[") and text not in {"[", "[["}:
            self.report.add("sh.evade.pattern", node, text)
            return _worst_of(text.rpartition("/")[2])
        if not head.known and "place" in head.taints and UNKNOWN not in (file := text.rpartition("/")[2]) and file:
            # Only where it lies is not known.
            return f"./{file}"
        if not head.known or not text.strip():
            self._unresolved(head, node)
            return None
        if "unset" in head.taints and "/" not in text:
            # Part of the name is whatever the caller set.
            self._unresolved(head, node)
        if "decoded" in head.taints and not head.escaped:
            self.report.add("sh.dyn.decoded", node)
        if "network" in head.taints:
            self.report.add("sh.corr.download-run", node)
        if head.escaped:
            self.report.add("sh.evade.escape", node)
        elif head.shredded or "reshaped" in head.taints or head.taints & _FOUND_OUT == _PRINTED:
            self.report.add("sh.evade.shreds", node)
        elif head.assembled and canonical(text) not in table.TEXT - {"eval", "source", "exec"}:
            self.report.add("sh.evade.split", node)
        return text

    def _unresolved(self, head: Word, node: Node | None) -> None:
        self.report.add("sh.corr.download-run" if "network" in head.taints else "sh.dyn.unresolved", node)

    def _plain(self, command: Command, stdin: Value, node: Node | None) -> Value:
        """Judge by the command table: which arguments it reads and which it writes."""
        name = command.name
        if name not in table.KNOWN:
            self.report.add("sh.code.unknown", node, name)
        words = [] if name in _NO_FILES else list(command.positionals)
        if name in _SILENT_COMMANDS:
            return EMPTY
        if name in table.TEXT:
            return Value(UNKNOWN, command.taints | (_NO_END if name == "yes" else NOTHING))
        if name in table.FIRST_IS_TEXT and not any(
            flag in command.flags for flag in ("-e", "-f", "--regexp", "--file")
        ):
            words = words[1:]
        written, read = _roles(command, words)
        sources = [stdin if word.text in _STANDARD_INPUT else self.read(word, node) for word in read]
        if name == "cp" and any(word.text == "/dev/null" for word in read):
            self.write(written, EMPTY, node)
            return EMPTY
        if name in _COPIES and (copied := _copied(sources)) is not None:
            self.write([_placed(word, read) for word in written if word not in read], copied, node)
            return EMPTY
        for word in written:
            placed = _placed(word, read) if name in table.WRITES_LAST and word not in read else word
            self.touch(placed, node, writing=True, wiping=name in _WIPES)
        if name in table.LISTS or (name in table.FIRST_IS_TEXT and {"-r", "-R"} & command.flags and not read):
            self.report.add("sh.fs.read", node)
        given = joined(sources) if sources else stdin
        if name in _ENDS:
            given = Value(given.text, given.taints - _NO_END)
        elif name in _KEEPS_ALL and "endless" in given.taints:
            self.report.add("sh.destroy.fill", node)
        if name in table.FOLLOWED:
            flags = [word.text for word in command.arguments if all(word is not other for other in read)]
            followed = apply(name, flags, given) if name != "xargs" else None
            if followed is not None:
                if name == "tee":
                    self.write(written, followed, node)
                return followed
        if name == "tee":
            self.write(written, stdin, node)
        if name == "split" and given.taints & _STICKS:
            # It writes any number of files whose names begin so.
            self.write([Word((words[1].text if len(words) > 1 else "x") + "*")], Value(UNKNOWN, given.taints), node)
        if name in _UNPACKERS:
            self.unpacked(given.taints, node)
        decodes = name in _UNPACKERS or (name in _DECODERS and _DECODES & command.flags)
        decoded = DECODED if decodes else NOTHING if name in _PASSES_ON else _MADE
        taints = given.taints | (stdin.taints - _NO_END) | command.taints | decoded
        if name in table.LISTS and any(is_root(word.text) for word in read):
            taints |= {"everywhere"}
        return Value(UNKNOWN, taints)

    def read(self, word: Word | Value, node: Node | None) -> Value:
        """Judge the reading of a file and return what is known of its text."""
        state = self.walker.state
        path = normal_path(state.located(word.text))
        if path in state.files:
            return state.files[path]
        if word.text in _ENDLESS_SOURCES:
            return Value(UNKNOWN, _NO_END)
        if word.text in _NUMBERS:
            return Value(UNKNOWN)
        if word.text in _SILENT:
            return EMPTY
        classes = self.touch(word, node)
        taints = frozenset(_TAINT_OF[name] for name in classes if name in _TAINT_OF) or frozenset({"file"})
        if path.rstrip("*") in _HOLDS_SECRETS:
            taints |= {"secret"}
        elif path in _TELLS_ACCOUNTS or ("file" in taints and is_private(path)):
            taints |= {"private"}
        if UNKNOWN in path or "*" in path:
            taints |= self._matching(path)
        return Value(UNKNOWN, taints | word.taints)

    def _matching(self, path: str) -> frozenset[str]:
        """Return the origins of the files that this script wrote and that a pattern may mean."""
        mask = path.replace(UNKNOWN, "*")
        found = NOTHING
        if mask.strip("*./"):
            for name, content in self.walker.state.files.items():
                if content.taints & _STICKS and fnmatchcase(name, mask):
                    found |= content.taints & _STICKS
        return found

    def touch(
        self, word: Word | Value, node: Node | None, *, writing: bool = False, wiping: bool = False
    ) -> frozenset[str]:
        """Report what a path means when it is read or written, and return its classes."""
        if word.text in _SILENT or word.text.startswith("/dev/fd/") or "://" in word.text:
            return NOTHING
        classes = spot_classes(self.walker.state.located(word.text), writing=writing)
        if "traffic" in classes and "metadata" in host_classes(word.text.split("/")[3]):
            self.report.add("sh.net.metadata", node, word.text)
        if writing and self.takes_the_place(normal_path(self.walker.state.located(word.text))):
            self.report.add("sh.persist.hook", node, word.text)
        rules = _WRITE_RULES if writing else _READ_RULES
        for name in sorted(classes):
            rewrites = name == "secret" and writing and normal_path(word.text).endswith("_history")
            if rewrites or (wiping and name == "log"):
                self.report.add("sh.destroy.traces", node, word.text)
            elif name in rules:
                self.report.add(rules[name], node, word.text if name not in {"workspace"} else "")
        if isinstance(word, Word) and word.pattern and classes & {"secret", "accounts"}:
            self.report.add("sh.evade.pattern", node, word.text)
        return classes

    def write(self, targets: Sequence[Word], value: Value, node: Node | None) -> Value:
        """Judge what a command's output goes to; without a target it goes on."""
        for word in targets:
            if word.text in _SILENT:
                continue
            classes = self.touch(word, node, writing=True, wiping=not value.text.strip() and not value.taints)
            if "traffic" in classes:
                self.sink(value.taints, node)
            if not value.text.strip() and not value.taints and destruction.everywhere(word):
                self.report.add("sh.destroy.root", node)
            if "endless" in value.taints and "device" not in classes:
                self.report.add("sh.destroy.fill", node, word.text)
            path = normal_path(self.walker.state.located(word.text))
            earlier = self.walker.state.files.get(path, EMPTY)
            content = joined([earlier, value]) if earlier.text else value
            self.walker.state.files[path] = Value(content.text, content.taints | {"written"})
            if classes & _RUN_LATER and not path.endswith((".py", ".pth")):
                self.later(value, node)
            else:
                later.written(self, path, value, node)
        return EMPTY if targets else value

    def unpacked(self, taints: frozenset[str], node: Node | None) -> None:
        """Note what an archive is unpacked of: from then on files here may be of others."""
        if "network" in taints:
            self.walker.state.fetched = True
            self.report.add("sh.corr.download-unpack", node)

    def later(self, value: Value, node: Node | None) -> None:
        """Judge text that will be run at another time: a profile, a cron table, a unit."""
        if "network" in value.taints:
            self.report.add("sh.corr.download-run", node)
        text = value.text.replace(UNKNOWN, "x") if value.text != UNKNOWN else ""
        units = [text[found.end() :].split("\n", 1)[0] for found in _UNIT.finditer(text)]
        source = "\n".join(units) if units else _TIMES.sub("", text)
        if source.strip():
            programs.run_shell(self, Value(source, value.taints - {"written"}), node, own=False)

    def sink(self, taints: frozenset[str], node: Node | None) -> None:
        """Report what leaves through the network, by its origins."""
        if "secret" in taints:
            self.report.add("sh.corr.secret-network", node)
        elif "environment" in taints:
            self.report.add("sh.corr.environment-network", node)
        elif "file" in taints:
            self.report.add("sh.corr.file-network", node)
        elif "token" in taints:
            self.report.add("sh.corr.token-network", node)

    def shadowed(self, name: str, body: bytes, node: Node | None) -> None:
        """Report a function that stands in for a command and hides or passes on what that is told."""
        if _STANDS_IN.search(_IN_QUOTES.sub(b"", body)):
            self.report.add("sh.evade.mask", node, name)

    def takes_the_place(self, path: str) -> bool:
        """Whether a file would be found where a command of this name is looked for first."""
        folder, _, name = path.rpartition("/")
        if not folder or canonical(name) not in table.KNOWN:
            return False
        searched = (self.walker.state.get("PATH") or EMPTY).text.split(":")
        return folder in _OWN_PROGRAMS or any(folder == normal_path(entry) for entry in searched)

    def assigned(self, name: str, value: Value, node: Node | None) -> None:
        """Judge the setting of a variable."""
        settings.assigned(self, name, value, node)


_MADE = frozenset({"made"})


@functools.lru_cache(maxsize=1024)
def _worst_of(pattern: str) -> str | None:
    """Return the command that can do most harm of those that a pattern may mean."""
    candidates = [known for known in sorted(table.KNOWN) if fnmatchcase(known, pattern)]
    return max(candidates, key=lambda known: (known in table.SHELLS, known in {"rm", "curl", "cat"}), default=None)


def _copied(sources: list[Value]) -> Value | None:
    """Return what a copy holds, when that matters: where its text came from, or the text that the script wrote."""
    given = joined(sources)
    if given.taints & _STICKS or (given.known and given.text):
        return given
    return None


_FOLDERS = ("/", "/hooks", "/bin", "/init.d", "/user", "/plugin", "/autostart", "/system", "/profile.d", "/startup")


def _placed(target: Word, sources: list[Word]) -> Word:
    """Return the file that a copy becomes: a folder takes it under its own name."""
    if sources and (target.text in {".", "..", "~"} or target.text.endswith(_FOLDERS)):
        return Word(f"{target.text.rstrip('/')}/{sources[0].text.rpartition('/')[2]}", target.taints, target.node)
    return target


def _roles(command: Command, words: list[Word]) -> tuple[list[Word], list[Word]]:
    """Return the words that name files it writes and files it reads."""
    name = command.name
    written: list[Word] = []
    for flag in table.WRITES_OPTION.get(name, ()):
        written += command.values(flag)
    if name in table.WRITES_ALL:
        return written + words[1 if name in {"chmod", "chown", "chgrp"} else 0 :], []
    if name in table.WRITES_LAST:
        target = command.value("-t", "--target-directory")
        if target is not None:
            return [*written, target], words
        # What is moved away is written to as well.
        moved = words[:-1] if name == "mv" else []
        return written + words[-1:] + moved, words[:-1]
    if name == "sed" and any(flag.startswith("-i") or flag == "--in-place" for flag in command.flags):
        return written + words, []
    return written, [word for word in words if word.text]
