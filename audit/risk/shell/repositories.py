"""Version control: its settings, hooks and verbs may start commands, and what it was handed may leave."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import is_private, is_root, normal_path
from audit.risk.shell import network, programs, table
from audit.risk.shell.values import EMPTY, UNKNOWN, Value, Word, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_ORDINARY = re.compile(r"(?:cat|less(?: -\w+)*|more|vim?|nvim|nano|true|false|code --wait|emacs|delta|:)?")
_EDITORS = ("core.pager", "core.editor", "sequence.editor", "pager.")
_OWN_HELPERS = re.compile(r"|store|cache(?: --timeout[= ]\d+)?|manager|osxkeychain|libsecret|wincred")
# Verbs whose options hold a line of shell.
_LINES = {
    "rebase": ("-x", "--exec"),
    "difftool": ("-x", "--extcmd"),
    "grep": ("-O", "--open-files-in-pager"),
    "push": ("--receive-pack", "--exec"),
    "clone": ("-u", "--upload-pack"),
    "fetch": ("--upload-pack",),
    "pull": ("--upload-pack",),
    "ls-remote": ("--upload-pack", "--exec"),
    "archive": ("--exec",),
    "send-email": ("--sendmail-cmd", "--smtp-server", "--to-cmd", "--cc-cmd"),
    "filter-branch": (
        "--tree-filter",
        "--index-filter",
        "--msg-filter",
        "--env-filter",
        "--commit-filter",
        "--parent-filter",
        "--tag-name-filter",
        "--setup",
    ),
}
# Verbs that hand the rest of their words to a shell or start them as a command.
_PASSES = {"bisect": "run", "submodule": "foreach"}


def git(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge git: its settings may name commands."""
    for word in command.values("-c", "--config", "--config-env"):
        setting(judge, *word.text.partition("=")[::2], word, node)
    verbs = [word for word in command.positionals if word.text]
    verb = verbs[0].text if verbs else ""
    words = [word for word in command.arguments if word.text]
    if verb == "config" and len(verbs) > 2:
        setting(judge, verbs[1].text, verbs[2].text, verbs[2], node)
    for line in _lines(verb, words):
        judge.report.add("sh.dyn.hidden-shell", node, line.text)
        programs.run_shell(judge, line, node, own=False)
    for word in verbs:
        if word.text.startswith("ext::"):
            judge.report.add("sh.dyn.hidden-shell", node)
            programs.run_shell(judge, Value(word.text[5:].replace("%S", "").rstrip("% "), word.taints), node, own=False)
    _carry(judge, command, verb, verbs)
    if verb == "remote" or verb == "push":
        _addressed(judge, verb, verbs, node)
    if verb == "clean" and any(is_root(word.text) for word in command.values("-C", "--work-tree")):
        judge.report.add("sh.destroy.root", node)
    if network.is_network(command):
        if verb == "push":
            judge.sink(judge.walker.state.carried, node)
        if verb == "clone":
            _cloned(judge, verbs)
        return network.judge(judge, command, stdin, node)
    if verb in _PASSES and (passed := _passed(list(command.arguments), _PASSES[verb])):
        if verb == "submodule":
            return programs.run_shell(judge, joined(passed, " "), node, own=False, quoted=True)
        return judge.run(passed, EMPTY, [], node)
    judge.report.add("sh.fs.read" if verb in table.GIT_LOCAL or not verb else "sh.code.unknown", node)
    # What an object of the repository holds is not what lies in the folder.
    return Value(UNKNOWN, frozenset({"file", "place"} if verb == "rev-parse" else {"file", "made"}))


def _lines(verb: str, words: list[Word]) -> list[Value]:
    """Return the lines of shell in a verb's options, with their value in the same word or the next."""
    found = []
    for flag in _LINES.get(verb, ()):
        for place, word in enumerate(words):
            if word.text == flag and place + 1 < len(words):
                found.append(Value(words[place + 1].text, words[place + 1].taints))
            elif flag.startswith("--") and word.text.startswith(f"{flag}="):
                found.append(Value(word.text.partition("=")[2], word.taints))
            elif len(flag) == 2 and flag != "-u" and word.text.startswith(flag) and len(word.text) > 2:
                found.append(Value(word.text[2:], word.taints))
    return found


def _passed(words: list[Word], mark: str) -> list[Word]:
    place = next((place for place, word in enumerate(words) if word.text == mark), len(words))
    rest = words[place + 1 :]
    while rest and rest[0].text.startswith("-"):
        rest.pop(0)
    return rest


def _carry(judge: Judge, command: Command, verb: str, verbs: list[Word]) -> None:
    """Remember the origins of what is handed to the version control."""
    state = judge.walker.state
    if verb in {"add", "commit"}:
        known = [state.files.get(normal_path(state.located(word.text)), EMPTY) for word in verbs[1:]]
        private = [word.text for word in verbs[1:] if verb == "add" and is_private(state.located(word.text))]
        if private:
            state.carried |= {"secret"}
        everything = {"-A", "--all", "-a"} & command.flags or any(word.text == "." for word in verbs[1:])
        state.carried |= joined([*known, *state.files.values()] if everything else known).taints & {
            "secret",
            "environment",
        }


def _addressed(judge: Judge, verb: str, verbs: list[Word], node: Node | None) -> None:
    """Report a repository that is sent to a host without a name."""
    state = judge.walker.state
    hosts = frozenset(name for word in verbs[1:] for name in network.judge_host(judge, word.text, node))
    if hosts & {"address", "drop"} and "private" not in hosts:
        state.carried |= {"nobody"}
    if verb == "push" and "nobody" in state.carried:
        judge.report.add("sh.corr.file-drop", node)


def _cloned(judge: Judge, verbs: list[Word]) -> None:
    """Remember the folder of others' code that a clone makes."""
    if len(verbs) > 1:
        name = verbs[2].text if len(verbs) > 2 else verbs[1].text.rstrip("/").rpartition("/")[2].removesuffix(".git")
        judge.walker.state.cloned |= {normal_path(judge.walker.state.located(name))}


def setting(judge: Judge, name: str, value: str, word: Word, node: Node | None) -> None:
    """Judge one setting of git's."""
    lowered = name.lower()
    if lowered.startswith("url.") and "insteadof" in lowered and "@" not in name:
        judge.report.add("sh.persist.hook", node, f"{name}={value}")
    if not lowered.startswith(table.GIT_CODE) or (lowered.startswith("alias.") and not value.startswith("!")):
        return
    if lowered.startswith(_EDITORS) and _ORDINARY.fullmatch(value):
        return
    if lowered.startswith("credential.helper") and _OWN_HELPERS.fullmatch(value):
        return
    judge.report.add("sh.dyn.hidden-shell", node, f"{name}={value}")
    programs.run_shell(judge, Value(value.removeprefix("!"), word.taints), node, own=False)


def mercurial(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge hg: hooks, aliases and extensions may be given for one call."""
    for word in command.values("--config"):
        name, _, value = word.text.partition("=")
        if name.startswith(("hooks.", "alias.", "extensions.", "ui.ssh", "ui.editor", "merge-tools.", "extdiff.")):
            judge.report.add("sh.dyn.hidden-shell", node, word.text)
            programs.run_shell(judge, Value(value.removeprefix("!"), word.taints), node, own=False)
    return network.judge(judge, command, stdin, node) if network.is_network(command) else None
