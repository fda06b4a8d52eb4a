"""The rules and the command table, read from the files under `rules/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audit.risk.findings import Kind, Tier
    from audit.risk.shell.command import Command

_RULES = Path(__file__).parents[1] / "rules"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a rule file."""

    id: str
    title: str
    kind: Kind
    weight: int
    tier: Tier
    message: str


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A command that starts the command in its own arguments."""

    values: frozenset[str]
    code: frozenset[str]
    skip: int
    takes_assignments: bool
    takes_line: bool


def _load() -> tuple[dict[str, Rule], dict[str, list[tuple[str, tuple[str, ...]]]]]:
    rules: dict[str, Rule] = {}
    commands: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for path in sorted(_RULES.glob("shell-*.json")):
        for entry in json.loads(path.read_bytes()).get("rules", ()):
            rules[entry["id"]] = Rule(*(entry[name] for name in Rule.__slots__))
            for pattern in entry.get("commands", ()):
                name, *tokens = pattern.split(" ")
                commands.setdefault(name, []).append((entry["id"], tuple(tokens)))
    return rules, commands


RULES, _COMMANDS = _load()
_TABLE: dict[str, Any] = json.loads((_RULES / "shell-commands.json").read_bytes())
TEXT = frozenset(_TABLE["text"])
FILTERS = frozenset(_TABLE["filters"])
LISTS = frozenset(_TABLE["lists"])
FIRST_IS_TEXT = frozenset(_TABLE["first_is_text"])
WRITES_ALL = frozenset(_TABLE["writes_all"])
WRITES_LAST = frozenset(_TABLE["writes_last"])
READS_ANY = frozenset(_TABLE["reads"])
_OPTIONS: dict[str, Any] = json.loads((_RULES / "shell-options.json").read_bytes())
STARTS: dict[str, list[str]] = _OPTIONS["starts"]
LOADS: dict[str, list[str]] = _OPTIONS["loads"]
SCRIPTS: dict[str, list[str]] = _OPTIONS["scripts"]
VERBS: dict[str, dict[str, int]] = _OPTIONS["verbs"]
HAVE_OPTIONS = STARTS.keys() | LOADS.keys() | SCRIPTS.keys()
VALUES = {name: frozenset(values) for name, values in _TABLE["values"].items()}
for _flags in (STARTS, LOADS, SCRIPTS):
    VALUES |= {name: VALUES.get(name, frozenset()) | frozenset(flags) for name, flags in _flags.items()}
WRITES_OPTION = {name: frozenset(values) for name, values in _TABLE["writes_option"].items()}
HAVE_VERBS = frozenset(name.partition(" ")[0] for name in VALUES if " " in name)
SAME_AS: dict[str, str] = _TABLE["same_as"]
SHELLS = frozenset(_TABLE["shells"])
INTERPRETERS: dict[str, dict[str, Any]] = _TABLE["interpreters"]
MODULES: dict[str, str] = _TABLE["python_modules"]
LANGUAGE_WORDS: list[dict[str, str]] = _TABLE["language_words"]
GIT_CODE: tuple[str, ...] = tuple(_TABLE["git_code"])
GIT_LOCAL = frozenset(_TABLE["git_local"])
PRELOADS = frozenset(_TABLE["preloads"])
RUNNERS = frozenset(_TABLE["runners"])
VIEWERS = frozenset(_TABLE["viewers"])
SEARCH_PATHS = frozenset(_TABLE["search_paths"])
PROXIES = frozenset(_TABLE["proxies"])
SECRET_WORDS: str = _TABLE["secret_words"]
WRAPPERS = {
    name: Wrapper(
        frozenset(entry.get("values", ())),
        frozenset(entry.get("code", ())),
        entry.get("skip", 0),
        entry.get("assign", False),
        entry.get("line", False),
    )
    for name, entry in _TABLE["wrappers"].items()
}
WATCHED = frozenset(_TABLE["watched"])
ASKS: dict[str, list[str]] = _TABLE["asks"]
NO_ADDRESS = frozenset(_TABLE["no_address"])
FOLLOWED = FILTERS | FIRST_IS_TEXT
KNOWN = (
    frozenset(_COMMANDS)
    | frozenset(SAME_AS)
    | frozenset(WRAPPERS)
    | frozenset(INTERPRETERS)
    | SHELLS
    | TEXT
    | FILTERS
    | LISTS
    | FIRST_IS_TEXT
    | WRITES_ALL
    | WRITES_LAST
    | READS_ANY
)


def rules_of(command: Command) -> list[str]:
    """Return the ids of the rules whose command patterns match."""
    if command.matched is None:
        command.matched = _matching(command)
    return command.matched


def _matching(command: Command) -> list[str]:
    patterns = _COMMANDS.get(command.name)
    if patterns is None or (command.name in _COPIES and _stays_here(command)):
        return []
    if command.name.startswith(_MAKE_FILE_SYSTEMS) and _is_image(command):
        return []
    if command.name == "git":
        # The words behind its verb are names, which may be called like other verbs.
        verb = command.positionals[0].text if command.positionals else ""
        patterns = [(rule, tokens) for rule, tokens in patterns if tokens[0].startswith("-") or tokens[0] == verb]
    found = [rule for rule, tokens in patterns if not tokens or all(map(command.has, tokens))]
    return [_LOOKS] if found and _only_asks(command) else found


def _only_asks(command: Command) -> bool:
    """Whether a command that could change the machine is only asked how things are."""
    if command.name in _SHOWS_WHEN_BARE and not command.positionals and not command.flags - {"-l", "-t"}:
        return True
    if len(command.arguments) == 1 and command.arguments[0].text in _HELPS:
        return True
    asks = ASKS.get(command.name, ())
    verb = command.positionals[0].text if command.positionals else ""
    return any(word == verb or (word.startswith("-") and word in command.flags) for word in asks)


_LOOKS = "sh.sys.info"
_SHOWS_WHEN_BARE = frozenset({"mount", "localectl", "swapon"})
_HELPS = frozenset({"--version", "--help", "-V"})
_COPIES = frozenset({"rsync", "scp"})
_MAKE_FILE_SYSTEMS = ("mkfs", "mke2fs", "mkswap")


def _is_image(command: Command) -> bool:
    """Whether a file system is made in a file that is named, not on a device."""
    words = [word.text for word in command.positionals]
    return bool(words) and all(word and word.isprintable() and not word.startswith("/dev/") for word in words)


def _stays_here(command: Command) -> bool:
    """Whether a copy names no other host: each of its words is known, and none has a colon."""
    words = [word.text for word in command.positionals]
    return len(words) > 1 and all(word and word.isprintable() and ":" not in word for word in words)
