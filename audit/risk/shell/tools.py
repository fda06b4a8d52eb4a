"""Tools whose arguments decide how bad they are: what is deleted, made executable, written raw, or installed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import is_root, normal_path, path_classes
from audit.risk.shell import network, programs, table
from audit.risk.shell.filters import DECODED
from audit.risk.shell.values import EMPTY, UNKNOWN, Value, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_SETUID = re.compile(r"^(?:[ugoa,]*[+=][rwxXt]*s[rwxXst]*|0?[2467][0-7]{3})(?:,.*)?$|[ug][+=]\w*s")
_EXECUTES = re.compile(r"^[ugoa]*\+\w*x|^0?[0-7]?[1357][0-7]{2}$")
_VERSIONED = re.compile(r"==|@[\w.^~-]*\d|===|@sha\d+:|=\d")
_BY_ADDRESS = re.compile(
    r"^(?:git\+|https?://|git@|github:|gitlab:|bitbucket:|file:|svn\+|hg\+|[\w.-]+/[\w.-]+#)|@ (?:git\+)?https?://"
)
_POD_RIGHTS = re.compile(r"(?:privileged|hostPID|hostIPC|hostNetwork)[\"']?\s*:\s*true|hostPath\b")
_TELLING = re.compile(r"secret|token|passw?|key|cred|auth|aws|api", re.IGNORECASE)
_DIGESTS = frozenset({"dgst", "md5", "sha1", "sha256", "sha512"})
_INSTALLS = frozenset({"install", "i", "add", "exec", "dlx", "download", "wheel"})
PINNING = frozenset({"pip", "npm", "pnpm", "yarn", "bun", "pipx", "npx", "uvx", "uv", "gem", "cargo", "go", "bunx"})


def mv(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a system folder or a home that is moved away."""
    for word in command.positionals[:-1]:
        if is_root(judge.walker.state.located(word.text)):
            judge.report.add("sh.destroy.root", node, word.text)
    return None


def chmod(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge new permissions."""
    mode = command.positionals[0].text if command.positionals else ""
    flags = " ".join(command.flags)
    if _SETUID.search(mode) or re.search(r"-\w*s\b", flags):
        judge.report.add("sh.priv.setuid", node, mode)
        return EMPTY
    for word in command.positionals[1:]:
        content = judge.walker.state.files.get(normal_path(judge.walker.state.located(word.text)))
        if content is not None and _EXECUTES.match(mode):
            if "network" in content.taints:
                judge.report.add("sh.corr.download-run", node)
            elif content.text.startswith("#!") and "sh" in content.text.split("\n")[0]:
                judge.walker.foresee(content.text, node)
        if is_root(word.text) and "-R" in command.flags:
            judge.report.add("sh.destroy.root", node, word.text)
    return None


def chown(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a file that is given to root."""
    if command.positionals and re.fullmatch(r"(?:root|0)(?:[:.]\w*)?", command.positionals[0].text):
        judge.report.add("sh.priv.setuid", node, command.positionals[0].text)
    if {"-R", "--recursive"} & command.flags:
        for word in command.positionals[1:]:
            if is_root(judge.walker.state.located(word.text)) and normal_path(word.text) != "~":
                judge.report.add("sh.destroy.root", node, word.text)
    return None


def install(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a copy that runs with its owner's rights."""
    for word in command.values("-m", "--mode"):
        if _SETUID.search(word.text):
            judge.report.add("sh.priv.setuid", node, word.text)
    return None


def sysctl(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a setting of the kernel that is changed."""
    if any("=" in word.text for word in command.positionals):
        judge.report.add("sh.priv.kernel", node)
    return None


def packages(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what is installed: pinned, unpinned, or from somewhere else."""
    name = command.name
    words = [word.text for word in command.positionals]
    if words[:2] == ["pkg", "set"]:
        for word in command.positionals[2:]:
            judge.walker.foresee(word.text.partition("=")[2], node)
    own_verb = name in {"npx", "uvx", "bunx"}
    if not own_verb and not _INSTALLS & set(words[:2]):
        return None
    wanted = words if own_verb else words[next((n for n, word in enumerate(words) if word in _INSTALLS), 0) + 1 :]
    wanted = wanted[:1] if own_verb else wanted
    sources = command.values("-i", "--index-url", "--extra-index-url", "--registry", "-f", "--find-links", "--source")
    named = [*(source.text for source in sources), *words]
    if any(network.is_untrusted(text.removeprefix("git+")) for text in named):
        judge.report.add("sh.pkg.untrusted", node)
    if sources or any(_BY_ADDRESS.search(word) for word in wanted):
        judge.report.add("sh.pkg.source", node)
    elif any(not _VERSIONED.search(word) and not word.startswith((".", "/", "-")) for word in wanted) or any(
        word.endswith(("@latest", "@next")) for word in wanted
    ):
        judge.report.add("sh.pkg.unpinned", node)
    for word in command.positionals:
        network.judge_host(judge, word.text.removeprefix("git+"), node)
    local_package(judge, command, node)
    return Value(UNKNOWN)


def local_package(judge: Judge, command: Command, node: Node | None) -> None:
    """Report the installation of a file that came from the network: what it holds runs."""
    state = judge.walker.state
    for word in command.positionals:
        content = state.files.get(normal_path(state.located(word.text)))
        if content is not None and "network" in content.taints:
            judge.report.add("sh.corr.download-run", node)


def apt(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report commands that the packager is told to start before or after its work."""
    local_package(judge, command, node)
    for word in command.values("-o", "--option"):
        if "invoke" in word.text.lower():
            judge.report.add("sh.dyn.hidden-shell", node, word.text)
            programs.run_shell(judge, Value(word.text.partition("=")[2].lstrip("="), word.taints), node, own=False)
    return None


def locate(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a look for credentials in the list of all files."""
    if any(re.search(table.SECRET_WORDS, word.text, re.IGNORECASE) for word in command.positionals):
        judge.report.add("sh.fs.hunt", node)
    return None


def touch(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a file that gets the age of one of the system's, so that it looks as if it had always been there."""
    for word in command.values("-r", "--reference"):
        if path_classes(word.text) - {"workspace"}:
            judge.report.add("sh.destroy.traces", node, word.text)
    return None


def processes(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a list of processes that shows what each was started with."""
    first = command.positionals[0].text if command.positionals else ""
    if first.isalpha() and "e" in first:
        judge.report.add("sh.fs.secret", node)
    return None


def kubectl(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a pod that gets the node itself: its processes, its files, or every right."""
    texts = [word.text for word in command.arguments]
    files = [judge.walker.state.files.get(normal_path(word.text), EMPTY) for word in command.values("-f", "--filename")]
    texts += [stdin.text, *(content.text for content in files)]
    if any(_POD_RIGHTS.search(text) for text in texts):
        judge.report.add("sh.priv.host", node)
    return network.judge(judge, command, stdin, node)


def cipher(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Judge what openssl and gpg read and write, and note when files that were found are encrypted."""
    if network.is_network(command):
        return network.judge(judge, command, stdin, node)
    is_openssl = command.name == "openssl"
    read = command.values("-in", "-key", "-inkey") if is_openssl else command.positionals
    if is_openssl and _DIGESTS & command.near:
        read = [*read, *command.positionals[1:]]
    encrypts: frozenset[str] = frozenset({"-c", "--symmetric", "-e", "--encrypt"}) & command.flags
    if is_openssl:
        encrypts = (
            frozenset({"-e"}) if {"enc", "smime", "cms"} & command.near and "-d" not in command.flags else frozenset()
        )
    # A whole tree stands for the files that were found in it.
    if encrypts and any(not word.known or word.pattern or is_root(word.text) for word in read):
        judge.context.ciphered = True
    if not is_openssl:
        return None
    sources = [judge.read(word, node) for word in read]
    for word in command.values("-out"):
        judge.write([word], joined([stdin, *sources]), node)
    if not sources:
        return None
    return Value(UNKNOWN, joined([stdin, *sources]).taints | (DECODED if "-d" in command.flags else frozenset()))


def mkfifo(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Note files of which nobody knows who will write to them."""
    for word in command.positionals:
        judge.touch(word, node, writing=True)
        path = normal_path(judge.walker.state.located(word.text))
        judge.walker.state.files[path] = Value(UNKNOWN, frozenset({"pipe"}))
    return EMPTY


def mktemp(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Return a path that is known."""
    judge.report.add("sh.fs.write", node)
    return Value("/tmp/tmp.made\n")  # noqa: S108 - the text a script would see


def grep(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value | None:
    """Report a search for credentials."""
    patterns = command.values("-e", "--regexp") or command.positionals[:1]
    places = command.positionals if command.values("-e", "--regexp") else command.positionals[1:]
    wide = any(path_classes(place.text) - {"workspace"} or normal_path(place.text).startswith("~") for place in places)
    hunts = any(re.search(table.SECRET_WORDS, pattern.text, re.IGNORECASE) for pattern in patterns)
    told = bool(stdin.taints & {"environment", "secret"}) and not places
    if (told and any(_TELLING.search(pattern.text) for pattern in patterns)) or (
        hunts and (wide or ("everywhere" in stdin.taints and not places))
    ):
        judge.report.add("sh.fs.hunt", node)
    return None
