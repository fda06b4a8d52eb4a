"""Commands that talk to other hosts: whom they ask, what they send, and where the answer goes."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from audit.risk.places import bare_host, host_classes, normal_path, numeric_address, path_classes, url_host
from audit.risk.shell import table
from audit.risk.shell.values import EMPTY, NOTHING, UNKNOWN, Value, Word, joined

if TYPE_CHECKING:
    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge

_RULES = frozenset({"sh.net.client", "sh.net.dns", "sh.net.listen", "sh.net.tunnel", "sh.net.scan"})
_NAMES = frozenset({"dig", "nslookup", "host", "drill", "kdig", "delv", "resolvectl", "getent", "ping"})
_KEYS = ("-i", "--cacert", "--cert", "-E", "--key", "-F")
# One address after the other, one port after the other.
_NEIGHBOURS = re.compile(rf"(?:https?://)?\d+\.\d+\.(?:\d+\.)?{UNKNOWN}(?:[:/.]|$)")
_PORTS = re.compile(r"\d{1,5}-\d{1,5}")
_MAILERS = frozenset({"mutt", "mail", "mailx", "s-nail", "swaks", "neomutt"})
_FORMS = frozenset({"http", "https", "httpie", "xh", "curlie"})
_BODIES = ("-d", "--data", "--data-binary", "--data-raw", "--data-urlencode", "--json", "-T", "--upload-file")
_FILES = ("--post-file", "--body-file", "-T", "--upload-file")
_URL_SETTINGS = re.compile(r"^\s*(?:url|proxy|resolve)\s*[=: ]\s*\"?([^\"\s]+)", re.MULTILINE)
# What comes out of these is whatever the other end writes, for as long as it likes.
_RAW = frozenset({"nc", "ncat", "netcat", "telnet", "socat", "openssl"})
_RUNS = re.compile(r"\s*(?:proxy|local|knownhosts)command[\s=]+(.*)", re.IGNORECASE | re.DOTALL)
_HEADERS = ("-H", "--header", "-u", "--user", "--oauth2-bearer", "--password")
_ENGINE_PORT = re.compile(r"^(?:https?|tcp)://[^/]*:(?:2375|2376|10250|10255)(?:/|$)")
# Where clients of file servers take orders from, and the order that sends a file.
_ORDERS = {
    "sftp": ("-b",),
    "ftp": (),
    "lftp": ("-e", "-c", "-f"),
    "smbclient": ("-c",),
    "tftp": ("-c",),
    "ncftp": (),
    "curl": ("-K", "--config"),
}
_PUTS = re.compile(
    r"\b(?:m?put|send|reput|mirror\s+-R)\s+(?:-\S+\s+)*([^\s;]+)"
    r"|^\s*(?:data(?:-binary|-raw)?|form|upload-file)\s*[=: ]\s*[\"']?(?:\w+=)?@?([^\s\"']+)",
    re.MULTILINE,
)
_COPIES = frozenset({"scp", "rsync"})
_SSH = frozenset({"ssh", "scp", "sftp", "autossh", "sshfs"})
_GETS_PAGES = frozenset(
    {"curl", "wget", "lwp-download", "fetch", "curlie", "xh", "aria2c", "axel", "lynx", "links", "w3m", "http", "https"}
)


def is_network(command: Command) -> bool:
    """Whether a command is one of the network's clients or servers."""
    return any(rule in _RULES for rule in table.rules_of(command))


def judge(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value:
    """Judge a command that talks to other hosts."""
    judge.role = "network"
    taints = stdin.taints if judge.piped else NOTHING
    hosts = NOTHING
    for word in command.positionals:
        hosts |= _target(judge, command, word, node)
    for word in command.values("--url", "-x", "--proxy", "--resolve", "--connect-to"):
        hosts |= judge_host(judge, word.text, node)
    for word in command.arguments:
        _watch_engine(judge, word, node)
    for word in (value for values in command.options.values() for value in values):
        _watch_metadata(judge, word, node)
    for word in command.values("--unix-socket"):
        judge.touch(word, node)
    configured = [*command.values("-K", "--config")] if command.name == "curl" else []
    if command.name == "curl" and "-K" in command.flags and not configured:
        # The grammar loses a dash that stands before a here-document.
        configured = [Word("-", node=node)]
    for word in configured:
        settings = stdin if word.text == "-" else judge.read(word, node)
        for found in _URL_SETTINGS.finditer(settings.text):
            hosts |= judge_host(judge, found[1], node, bare=True)
    taints |= _sent(judge, command, node)
    _report_leaks(judge, command, _said(command, taints), hosts, node)
    if command.name in _SSH:
        _remote(judge, command, node)
    return _answer(judge, command, node)


def _said(command: Command, taints: frozenset[str]) -> frozenset[str]:
    """Return the origins of all that a command says. What it says in a header is how callers say who they are."""
    headers = {id(word) for word in command.values(*_HEADERS)}
    for word in command.arguments:
        found = word.taints
        if id(word) in headers and found & {"private", "key"}:
            found = found - {"private", "key", "file"} | {"token"}
        taints |= found
    return taints | {"secret"} if taints & {"private", "key"} else taints


def _watch_engine(judge: Judge, word: Word, node: Node | None) -> None:
    if _ENGINE_PORT.search(word.text):
        judge.report.add("sh.priv.socket", node, word.text)


def _watch_metadata(judge: Judge, word: Word, node: Node | None) -> None:
    """Report the metadata service also where an option names it, or where the rest of an address is not known."""
    host = bare_host(word.text.split(UNKNOWN)[0])
    if host is not None and "metadata" in host_classes(host):
        judge.report.add("sh.net.metadata", node, host)


def _target(judge: Judge, command: Command, word: Word, node: Node | None) -> frozenset[str]:
    text = word.text
    if "socket" in path_classes(text):
        judge.touch(word, node)
        return NOTHING
    if _NEIGHBOURS.match(text) or (command.name in {"nc", "ncat"} and _PORTS.fullmatch(text)):
        judge.report.add("sh.net.scan", node, text)
    if command.name in table.NO_ADDRESS and "://" not in text:
        return NOTHING
    if text.startswith("file:"):
        judge.touch(Value(text.removeprefix("file://")), node)
        return NOTHING
    if (
        command.name in {"nc", "ncat", "telnet", "ssh", "scp", "ftp", "ping", *_NAMES}
        and text.isdigit()
        and len(text) < 6
    ):
        return NOTHING
    _watch_metadata(judge, word, node)
    return judge_host(judge, text, node, bare=command.name in _GETS_PAGES or "." in text or ":" in text)


def is_untrusted(text: str) -> bool:
    """Whether what comes from an address may be of anybody: it has no name, or the way to it is open."""
    host = url_host(text.strip())
    if host is None:
        return False
    classes = host_classes(host)
    return "loopback" not in classes and ("address" in classes or text.strip().startswith("http://"))


def judge_host(judge: Judge, text: str, node: Node | None, *, bare: bool = False) -> frozenset[str]:
    """Report what the host in a URL means, and return its classes; `bare` also takes a host without a scheme."""
    host = bare_host(text) if bare else url_host(text)
    if host is None or UNKNOWN in host:
        return NOTHING
    classes = host_classes(host)
    if "metadata" in classes:
        judge.report.add("sh.net.metadata", node, host)
    if "address" in classes and (numeric_address(host) is not None):
        judge.report.add("sh.net.address", node, host)
    if "drop" in classes:
        judge.report.add("sh.net.drop", node, host)
    return classes


def _sent(judge: Judge, command: Command, node: Node | None) -> frozenset[str]:
    """Return the origins of what a command sends from files."""
    taints = NOTHING
    candidates = [word.text for word in command.values(*_FILES)]
    candidates += [word.text for word in command.values("-a", "-A") if command.name in _MAILERS]
    candidates += [
        word.text.rpartition("@")[2] for word in command.positionals if command.name in _FORMS and "@" in word.text
    ]
    for word in command.values(*_BODIES, "--form", *(("-F",) if command.name == "curl" else ())):
        _, at, path = word.text.partition("@")
        if at and path != "-":
            candidates.append(path.split(";")[0])
    keys = {id(word) for word in command.values(*_KEYS)} if command.name in {"ssh", "scp"} else set()
    candidates += [
        word.text
        for word in command.positionals
        if id(word) not in keys and "://" not in word.text and path_classes(word.text) & {"secret", "environment"}
    ]
    if command.name in {"scp", "rsync", "sftp", "rclone", "s3cmd", "aws"}:
        candidates += [word.text for word in command.positionals[:-1] if ":" not in word.text]
    candidates += [found for text in _orders(judge, command) for pair in _PUTS.findall(text) for found in pair if found]
    for path in candidates:
        if path and path != "-":
            taints |= judge.read(Word(path, node=node), node).taints
    return taints


def _orders(judge: Judge, command: Command) -> list[str]:
    """Return what a client is told to do in its own words: on its input, in a file, or in an option."""
    flags = _ORDERS.get(command.name)
    if flags is None:
        return []
    state = judge.walker.state
    words = command.values(*flags)
    files = [state.files[path].text for word in words if (path := normal_path(state.located(word.text))) in state.files]
    return [judge.input.text, *files, *(word.text for word in words)]


def _report_leaks(
    judge: Judge, command: Command, taints: frozenset[str], hosts: frozenset[str], node: Node | None
) -> None:
    if command.name in _NAMES:
        named = any("machine" in word.taints and UNKNOWN + "." in word.text for word in command.positionals)
        if taints & {"secret", "environment", "file"} or named:
            judge.report.add("sh.corr.data-names", node)
        taints -= {"file", "token"}
    elif hosts & {"address", "drop"} and "private" not in hosts and "secret" not in taints:
        if "file" in taints:
            judge.report.add("sh.corr.file-drop", node)
        if "token" in taints:
            taints |= {"secret"}
    judge.sink(taints, node)


def _remote(judge: Judge, command: Command, node: Node | None) -> None:
    for word in command.values("-o"):
        if found := _RUNS.match(word.text):
            judge.report.add("sh.dyn.hidden-shell", node, word.text)
            judge.run(
                [Word("sh", node=node), Word("-c", node=node), Word(found[1], word.taints, node)], EMPTY, [], node
            )
    if len(command.positionals) > 1 and command.name == "ssh":
        code = joined(command.positionals[1:], " ")
        asked = Word(code.text, code.taints & {"unset"}, node)
        judge.run([Word("sh", node=node), Word("-c", node=node), asked], EMPTY, [], node)
        judge.role = "network"


def _fetched(judge: Judge, command: Command) -> None:
    """Note the files that a copy from another host leaves here."""
    *sources, target = command.positionals or [Word()]
    state = judge.walker.state
    for source in sources:
        if ":" in source.text and ":" not in target.text:
            name = posixpath.basename(source.text.rpartition(":")[2])
            folder = target.text in {".", "..", "~"} or target.text.endswith("/")
            path = posixpath.join(target.text, name) if folder else target.text
            state.files[normal_path(state.located(path))] = Value(UNKNOWN, frozenset({"network"}))


def _answer(judge: Judge, command: Command, node: Node | None) -> Value:
    """Return what comes back, or note the file that it goes to."""
    answer = Value(UNKNOWN, frozenset({"network", "socket"} if command.name in _RAW else {"network"}))
    names = [word for word in command.values("-o", "--output", "-O", "--output-document", "--out") if word.text]
    urls = [word.text for word in command.positionals]
    if command.name == "curl" and {"-O", "--remote-name"} & command.flags:
        names = [Word(posixpath.basename(url.split("?")[0]), node=node) for url in urls]
    elif (
        command.name in {"wget", "aria2c", "axel", "lwp-download", "fetch"}
        and not names
        and not {"--spider"} & command.flags
    ):
        folder = command.value("-P", "--directory-prefix")
        names = [
            Word(posixpath.join(folder.text if folder else "", posixpath.basename(url.split("?")[0])), node=node)
            for url in urls
        ]
    if command.name in _COPIES:
        _fetched(judge, command)
    if command.name not in _GETS_PAGES or not names or names[0].text == "-":
        return answer
    for name in names:
        judge.touch(name, node, writing=True)
        state = judge.walker.state
        state.files[normal_path(state.located(name.text))] = answer
    return EMPTY
