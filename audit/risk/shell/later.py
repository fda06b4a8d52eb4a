"""Files that something else runs later: what their lines would do counts as soon as they are written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from audit.risk.shell import network
from audit.risk.shell.values import UNKNOWN

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.judge import Judge
    from audit.risk.shell.values import Value

_RECIPE = re.compile(r"^\t[@+\-\s]*")
_MAKE_RUNS = re.compile(r"\$\(shell ([^()]*)\)|!=\s*(.*)")
_STEP = re.compile(
    r"^\s*(?:-\s+)?(?:run|script|before_script|after_script|command|entry|cmd|postCreateCommand)\s*:\s*[|>]?-?\s*(.*)$"
    r"|^\s*-\s+([\w./$].*)$|^\s{6,}([\w./$].*)$",
    re.MULTILINE,
)
_LAYER = re.compile(r"^\s*(?:RUN|CMD|ENTRYPOINT)\s+(.*?)(?<!\\)$", re.MULTILINE | re.DOTALL | re.IGNORECASE)
_QUOTED = re.compile(r"\"(?:command|onCreateCommand|postCreateCommand|postStartCommand|runOn)\"\s*:\s*\"([^\"]*)\"")
_SOURCE = re.compile(
    r"^\s*(?:\w+:)?(?:registry|npmRegistryServer|(?:extra-)?index-url|find-links|trusted-host)"
    r"\s*[=: ]\s*[\"']?(\S+?)[\"']?\s*$",
    re.MULTILINE,
)
_SHELL = re.compile(
    r"^\s*(?:script-shell|yarnPath|yarn-path|node-options|rustc-wrapper|runner)\s*[=: ]\s*[\"']?([^\s\"']+)",
    re.MULTILINE,
)
_PYTHON = re.compile(r"(?:.*/)?(?:setup|conftest|sitecustomize|usercustomize|manage|noxfile|tasks|fabfile)\.py|.*\.pth")
_STEPS = re.compile(
    r".*\.github/workflows/[^/]+\.ya?ml|(?:.*/)?(?:\.gitlab-ci\.yml|\.travis\.yml|\.pre-commit-config\.yaml|action\.ya?ml"
    r"|docker-compose\.ya?ml|compose\.ya?ml|azure-pipelines\.yml|Procfile|\.drone\.yml|bitbucket-pipelines\.yml)"
)
_SETTINGS = re.compile(
    r"(?:.*/)?(?:\.npmrc|npmrc|pip\.conf|pip\.ini|\.yarnrc(?:\.yml)?|\.pypirc|\.cargo/config(?:\.toml)?)"
)
_LAYERS = re.compile(r"(?:.*/)?(?:Docker|Container)file(?:\.\w+)?|.*\.[Dd]ockerfile")
_MAKEFILE = re.compile(r"(?:.*/)?(?:GNUm|M|m)akefile|.*\.mk")
_HOOKS = frozenset(
    {"pre-commit", "post-commit", "pre-push", "post-checkout", "post-merge", "commit-msg", "prepare-commit-msg"}
    | {"pre-rebase", "post-rewrite", "pre-receive", "post-receive", "update", "applypatch-msg"}
)
_MAX = 100


def written(judge: Judge, path: str, content: Value, node: Node | None) -> None:
    """Judge a file by its name and its text, when its name says that a tool will run what is in it."""
    text = content.text
    if not text.strip(UNKNOWN + " \n"):
        return
    if _SETTINGS.fullmatch(path):
        _settings(judge, text, node)
    elif _PYTHON.fullmatch(path):
        found = judge.context.judged(text.replace(UNKNOWN, "unknown"), "python")
        judge.report.take([finding for finding in found if finding.tier == "L3"], node)
    elif lines := _lines(path, text):
        judge.walker.foresee("\n".join(lines[:_MAX]), node)


def _settings(judge: Judge, text: str, node: Node | None) -> None:
    for found in _SHELL.finditer(text):
        judge.report.add("sh.dyn.hidden-shell", node, found[0])
    for found in _SOURCE.finditer(text):
        judge.report.add("sh.pkg.untrusted" if network.is_untrusted(found[1]) else "sh.pkg.source", node, found[1])


def _lines(path: str, text: str) -> list[str]:
    """Return the lines of shell in a file."""
    if _MAKEFILE.fullmatch(path):
        return [line.replace("$$", "$") for line in recipes(text)]
    if path.endswith("package.json"):
        return _scripts(text)
    if _LAYERS.fullmatch(path):
        return [found[1] for found in _LAYER.finditer(text)]
    if _STEPS.fullmatch(path):
        return [part for found in _STEP.finditer(text) for part in found.groups() if part and not part.endswith(":")]
    if path.endswith((".vscode/tasks.json", "devcontainer.json")):
        return [found[1] for found in _QUOTED.finditer(text)]
    return [text] if path.endswith(".envrc") or path.rpartition("/")[2] in _HOOKS else []


def recipes(text: str) -> list[str]:
    """Return the lines that a makefile runs."""
    lines = [_RECIPE.sub("", line) for line in text.splitlines() if line.startswith("\t")]
    lines += [line.partition(";")[2] for line in text.splitlines() if re.match(r"[^\t#=]+:[^=]*;", line)]
    return lines + [found[1] or found[2] for found in _MAKE_RUNS.finditer(text)]


def _scripts(text: str) -> list[str]:
    try:
        scripts = json.loads(text).get("scripts", {})
        return [line for line in scripts.values() if isinstance(line, str)]
    except (ValueError, AttributeError, RecursionError):
        return []
