"""What a shell script has set so far: variables, functions, aliases, and the files it wrote itself."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from audit.risk.shell.values import MAX_TEXT, MYSTERY, UNSET, Value

if TYPE_CHECKING:
    from tree_sitter import Node

# What every shell has set. Home is written `~`, as paths are compared.
USUAL = {
    "HOME": "~",
    "PWD": ".",
    "OLDPWD": ".",
    "TMPDIR": "/tmp",  # noqa: S108 - the text a script would see
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "SHELL": "/bin/bash",
    "BASH": "/bin/bash",
    "IFS": " \t\n",
    "?": "0",
    "#": "0",
    "0": "bash",
    "-": "hB",
    "LANG": "C.UTF-8",
    "TERM": "xterm",
    "OSTYPE": "linux-gnu",
    "PS1": "$ ",
    "PS2": "> ",
    "PS4": "+ ",
    "BASH_VERSION": "5.2.15",
}
# Slices of these are how `/` is spelled without writing it.
_IN_FULL = {"HOME": "/home/user", "PWD": "/home/user", "OLDPWD": "/home/user"}
_MAX_ALTERNATIVES = 4
_SENSITIVE_WORDS = ("SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE", "API_KEY", "APIKEY", "ACCESS_KEY")
_TOKEN = frozenset({"token"})
# Nobody who calls a service says these: they sign with them.
_SIGNING = ("AWS_SECRET", "AWS_SESSION")
_KEY = frozenset({"token", "key"})
_NEVER_SET = frozenset({"RANDOM", "SECONDS", "LINENO", "EPOCHSECONDS", "$", "!", "_", "BASHPID", "PPID", "UID", "EUID"})


@functools.lru_cache(maxsize=4096)
def _is_sensitive(name: str) -> bool:
    upper = name.upper()
    return any(word in upper for word in _SENSITIVE_WORDS)


@dataclass(slots=True)
class Function:
    """A function's body, how often it was followed, and the variables that it sets once somebody asked."""

    body: Node
    called: int = 0
    active: int = 0
    """How many of its calls are being followed at the moment: more than one when it calls itself."""
    assigned: frozenset[str] | None = None


@dataclass(slots=True)
class State:
    """One shell's memory. A subshell gets a copy, except of files: those stay."""

    variables: dict[str, list[Value]] = field(default_factory=dict)
    arrays: dict[str, list[Value]] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    aliases: dict[str, Value] = field(default_factory=dict)
    files: dict[str, Value] = field(default_factory=dict)
    positional: list[Value] | None = None
    folder: str = ""
    """Where `cd` went, when that is outside the workspace or the home."""
    fetched: bool = False
    """Whether something from the network was unpacked: what lies here may be of others."""
    entered: str = ""
    """The folder of the workspace that `cd` went to last."""
    cloned: frozenset[str] = frozenset()
    """The folders that hold clones of others' repositories."""
    carried: frozenset[str] = frozenset()
    """The origins of what was handed to the version control, which may push it."""
    unsure: int = 0
    """Above zero where nobody knows whether the code runs: what is set there may or may not be."""

    def copy(self) -> State:
        """Return the memory of a subshell."""
        return replace(
            self,
            variables=dict(self.variables),
            arrays=dict(self.arrays),
            functions=dict(self.functions),
            aliases=dict(self.aliases),
        )

    def set(self, name: str, value: Value) -> None:
        """Assign. Where it is not sure to happen, the earlier value stays possible."""
        if self.unsure and name in self.variables:
            known = [old for old in self.variables[name] if old != value]
            self.variables[name] = [value, *known][:_MAX_ALTERNATIVES]
        else:
            self.variables[name] = [value]
        self.arrays.pop(name, None)

    def set_array(self, name: str, values: list[Value]) -> None:
        """Assign an array; its name alone means its first element."""
        self.set(name, values[0] if values else Value())
        self.arrays[name] = values

    def get(self, name: str, pick: int = 0, *, in_full: bool = False) -> Value | None:
        """Return a variable, or None when nothing here has set it. `pick` chooses among possible values."""
        if name in self.variables:
            values = self.variables[name]
            return values[pick % len(values)]
        if name.isdigit() and name != "0" and self.positional is not None:
            place = int(name) - 1 if len(name) < 4 else len(self.positional)
            # Without any argument, whoever starts the script may still give it some.
            missing = Value() if self.positional else UNSET
            return self.positional[place] if place < len(self.positional) else missing
        if name in {"@", "*"} and self.positional is not None:
            return Value(" ".join(value.text for value in self.positional)[:MAX_TEXT])
        if in_full and name in _IN_FULL:
            return Value(_IN_FULL[name])
        if name in USUAL:
            return Value(USUAL[name])
        if name in _NEVER_SET:
            return MYSTERY
        if _is_sensitive(name):
            return Value(MYSTERY.text, _KEY if name.startswith(_SIGNING) or "PRIVATE_KEY" in name else _TOKEN)
        if name.startswith("AWS_CONTAINER_CREDENTIALS"):
            return MYSTERY
        return None

    def located(self, path: str) -> str:
        """Return a path as it is meant from where `cd` went."""
        if not self.folder or path.startswith(("/", "~", "-")) or "://" in path:
            return path
        return f"{self.folder.rstrip('/')}/{path}"

    def alternatives(self, name: str) -> int:
        """Return how many values a variable may have."""
        return len(self.variables.get(name, ()))
