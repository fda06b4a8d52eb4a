"""Variables whose setting makes programs run, load or trust something else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import normal_path
from audit.risk.shell import network, options, programs, repositories, table
from audit.risk.shell.command import canonical
from audit.risk.shell.values import EMPTY, UNKNOWN, Word

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.judge import Judge
    from audit.risk.shell.values import Value

_HISTORY = frozenset({"HISTFILE", "HISTSIZE", "HISTFILESIZE", "HISTCONTROL"})
_HIDES = re.compile(r"ignore(?:space|both).*|\*")
# Variables that hold more options for one tool.
_OPTIONS_OF = {
    "TAR_OPTIONS": "tar",
    "ZIPOPT": "zip",
    "MAKEFLAGS": "make",
    "GNUMAKEFLAGS": "make",
    "LESS": "less",
    "MANOPT": "man",
    "CURL_OPTIONS": "curl",
    "FZF_DEFAULT_OPTS": "fzf",
}
_SCRIPTS = frozenset({"VIMINIT", "EXINIT", "GVIMINIT", "NVIM_APPNAME", "LUA_INIT"})
_ENGINE = re.compile(r"(?:unix|tcp|ssh|npipe|https?)://|/")
_INDEXES = re.compile(
    r"(?:PIP_(?:EXTRA_)?INDEX_URL|PIP_TRUSTED_HOST|PIP_FIND_LINKS|UV_(?:DEFAULT_|EXTRA_)?INDEX(?:_URL)?|GOPROXY"
    r"|npm_config_registry|NPM_CONFIG_REGISTRY|YARN_REGISTRY)"
)
# Everybody may put files there.
_OPEN_TO_ALL = re.compile(r"(?:/var)?/tmp(?:/.*)?|/dev/shm(?:/.*)?", re.DOTALL)
_PROMPTS = frozenset({"PS0", "PS1", "PS2", "PS4"})
# Where only some values make programs load something else.
_LOADS = {
    "NODE_OPTIONS": re.compile(r"(?:^|\s)(?:-r|--require|--import|--loader|--experimental-loader)\b"),
    "PYTHONBREAKPOINT": re.compile(r"[^0]"),
    "ENV": re.compile(r"[./~]"),
    "GOFLAGS": re.compile(r"-toolexec"),
}


def assigned(judge: Judge, name: str, value: Value, node: Node | None) -> None:
    """Report a variable whose setting runs something, takes the proxy away, or hides what was done."""
    if name in table.PRELOADS:
        judge.report.add("sh.dyn.preload", node, name)
        if value.known and value.text and not name.startswith("LD_"):
            programs.run_shell(judge, value, node, own=False)
    elif name in table.RUNNERS:
        _runner(judge, value, node)
    elif name in _PROMPTS and ("$(" in value.text or "`" in value.text):
        programs.run_shell(judge, value, node, own=False, quoted=True)
    elif name in _OPTIONS_OF:
        _more_options(judge, _OPTIONS_OF[name], value, node)
    elif name in _SCRIPTS:
        options.script(judge, value, node)
    elif name.startswith("GIT_CONFIG_"):
        _git_setting(judge, name, value, node)
    elif (rule := _rule_of(judge, name, value)) is not None:
        judge.report.add(rule, node, name)


def _rule_of(judge: Judge, name: str, value: Value) -> str | None:
    """Return the rule that a setting matches by its name and its text alone."""
    text = value.text
    if name in table.SEARCH_PATHS and (_leads_astray(name, text) or _holds_own(judge, text)):
        return "sh.dyn.preload"
    if name in _LOADS and _LOADS[name].search(text):
        return "sh.dyn.preload"
    if name in table.PROXIES and not text:
        return "sh.net.no-proxy"
    if name in _HISTORY and (text in {"", "0", "/dev/null"} or _HIDES.fullmatch(text)):
        return "sh.destroy.traces"
    if name == "HISTIGNORE" and text:
        return "sh.destroy.traces"
    if name == "DOCKER_HOST" and _ENGINE.search(text):
        return "sh.priv.socket"
    if name == "SSH_AUTH_SOCK" and ("output" in value.taints or text.startswith("/")):
        return "sh.fs.secret"
    return "sh.pkg.untrusted" if _INDEXES.fullmatch(name) and network.is_untrusted(text) else None


def _more_options(judge: Judge, tool: str, value: Value, node: Node | None) -> None:
    words = value.text.replace("'", "").replace('"', "").split()
    if any(word.startswith(("-", "+")) for word in words):
        judge.run([Word(tool, node=node), *(Word(word, value.taints) for word in words)], EMPTY, [], node)


def _git_setting(judge: Judge, name: str, value: Value, node: Node | None) -> None:
    if name.startswith("GIT_CONFIG_VALUE_"):
        key = judge.walker.state.get(name.replace("VALUE", "KEY"))
        repositories.setting(judge, key.text if key else "", value.text, Word(value.text, value.taints), node)
    elif name == "GIT_CONFIG_PARAMETERS":
        setting = value.text.strip("'")
        repositories.setting(judge, *setting.partition("=")[::2], Word(setting, value.taints), node)


def _runner(judge: Judge, value: Value, node: Node | None) -> None:
    """Judge a variable that holds a command for other programs to run."""
    words = value.text.split()
    if not words or UNKNOWN in words[0] or (canonical(words[0]) in table.VIEWERS and "/" not in words[0]):
        return
    if words[0] in {"ssh", "/usr/bin/ssh"} and not any("command" in word.lower() for word in words):
        return
    judge.report.add("sh.dyn.hidden-shell", node, value.text)
    programs.run_shell(judge, value, node, own=False)


def _holds_own(judge: Judge, text: str) -> bool:
    """Whether this script put programs with the names of commands where it now makes the shell look first."""
    folders = {normal_path(entry) for entry in text.split(":")}
    paths = (path.rpartition("/") for path in judge.walker.state.files)
    return any(folder in folders and canonical(name) in table.KNOWN for folder, _, name in paths)


def _leads_astray(name: str, text: str) -> bool:
    """Whether a search path begins where anybody may have put something."""
    first = text.split(":", 1)[0]
    if name == "PATH" and ":" in text and first in {"", "."}:
        return True
    return _OPEN_TO_ALL.fullmatch(normal_path(first)) is not None
