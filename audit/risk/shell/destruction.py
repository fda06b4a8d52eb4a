"""Commands that delete, fill up or end things: how much of what is there is gone afterwards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import is_root, normal_path, path_classes
from audit.risk.shell import network
from audit.risk.shell.values import EMPTY, UNKNOWN, Value, Word

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_TRACES = re.compile(r"_history$|/var/log(?:/|$)")
_OWN_SCRIPT = re.compile(rb"\$(?:0|\{0\}|BASH_SOURCE|\{BASH_SOURCE(?:\[0\])?\})\W*$")
_SIZE = re.compile(r"(\d+)\s*([kKmMgGtTpPeE]?)(?:i?[bB])?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}
_HUGE = 100 << 30
_WATCHMEN = re.compile(
    r"\b(?:r?syslogd?(?:-ng)?|auditd|osqueryd?|falco|sysmon|clamd|clamav|crowdstrike|falcon-sensor|wazuh\S*|ossec\S*|"
    r"systemd(?:-\w+)?|sshd|dockerd|containerd|cron|fail2ban\S*|envd|init|dbus-daemon|journald)\b"
)
# With one of these, a tool removes what it packed.
_MOVES = {
    "tar": ("--remove-files",),
    "zip": ("-m", "--move"),
    "7z": ("-sdel",),
    "rsync": ("--remove-source-files",),
    "rar": ("-df",),
}
_LOCKS = {"zip": ("-P", "-e", "--password", "--encrypt"), "7z": ("-p",), "rar": ("-p", "-hp")}


def everywhere(word: Value) -> bool:
    """Whether a word stands for each thing in the root, a system folder or somebody's home."""
    return "everywhere" in word.taints and word.text.rstrip("/")[-1:] in {UNKNOWN, "*", ""}


def rm(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a deletion by what is deleted."""
    recursive = bool({"-r", "-R", "--recursive"} & command.flags)
    for word in command.positionals:
        place = judge.walker.state.located(word.text)
        classes = path_classes(place, writing=True)
        if judge.context.ciphered and (not word.known or is_root(place)):
            judge.report.add("sh.corr.encrypt-delete", node)
        if everywhere(word):
            judge.report.add("sh.destroy.root", node)
        elif is_root(place) and (recursive or "*" in word.text):
            judge.report.add("sh.destroy.root", node, place)
        elif _TRACES.search(normal_path(place)) or (
            word.node is not None and _OWN_SCRIPT.search(word.node.text or b"")
        ):
            judge.report.add("sh.destroy.traces", node, word.text)
        elif classes - {"workspace"}:
            judge.touch(word, node, writing=True)
    return EMPTY


def packed(judge: Judge, command: Command, words: Iterable[Word], node: Node | None) -> None:
    """Report the removal of what goes into an archive, above all when nobody can open that without a password."""
    texts = [word.text for word in command.arguments]
    if not any(flag in command.flags or flag in texts for flag in _MOVES.get(command.name, ())):
        return
    judge.report.add("sh.fs.delete.tree", node)
    places = [normal_path(judge.walker.state.located(word.text)) for word in words]
    if any(is_root(place) for place in places):
        judge.report.add("sh.destroy.root", node)
    locks = _LOCKS.get(command.name, ())
    if any(text.startswith(locks) for text in texts if locks) and any(place.startswith(("~", "/")) for place in places):
        judge.report.add("sh.corr.encrypt-delete", node)


def archive(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge an archiver that may remove what it packs."""
    packed(judge, command, command.positionals[1:], node)
    return None


def synchronise(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a copy that first deletes what only its target has: a folder, or a home, or everything."""
    if any(flag.startswith("--del") for flag in command.flags) and command.positionals:
        judge.report.add("sh.fs.delete.tree", node)
        if is_root(judge.walker.state.located(command.positionals[-1].text)):
            judge.report.add("sh.destroy.root", node)
    return network.judge(judge, command, stdin, node) if network.is_network(command) else None


def size_of(text: str) -> int:
    """Return a size as tools write it, or 0."""
    found = _SIZE.fullmatch(text.lstrip("+<>"))
    return int(found[1][:20]) * _UNITS[found[2].lower()] if found else 0


def reserve(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a file that is made larger than any disk is likely to be."""
    for word in command.values("-l", "-s", "--length", "--size"):
        if size_of(word.text) >= _HUGE:
            judge.report.add("sh.destroy.fill", node, word.text)
    return None


def copy_raw(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge a raw copy."""
    given = dict(word.text.partition("=")[::2] for word in command.arguments)
    source = judge.read(Word(given["if"], command.taints, node), node) if "if" in given else stdin
    blocks = size_of(given.get("bs", "512")) or 512
    taints = source.taints
    if "count" in given:
        taints -= {"endless"}
        if size_of(given["count"]) * blocks >= _HUGE:
            taints |= {"endless"}
    source = Value(source.text, taints)
    if "of" in given:
        return judge.write([Word(given["of"], command.taints, node)], source, node)
    return Value(UNKNOWN, source.taints)


def end_named(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report the end of everything of a user, or of what watches over the machine."""
    if command.values("-u", "-U", "--user", "--euid") or any(
        word.text in {".", ".*", ""} for word in command.positionals
    ):
        judge.report.add("sh.destroy.kill-all", node)
    for word in command.positionals:
        if _WATCHMEN.search(word.text):
            judge.report.add("sh.destroy.kill-all", node, word.text)
    return EMPTY


def end_processes(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report the end of every process."""
    last = command.arguments[-1] if command.arguments else Word()
    if (
        (len(command.arguments) > 1 and last.text == "-1")
        or any(word.text == "1" for word in command.positionals)
        or "all processes" in command.taints
    ):
        judge.report.add("sh.destroy.kill-all", node)
    return EMPTY
