"""Which commands are judged in their own way, beyond what the tables say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.risk.shell import builtins, databases, destruction, network, programs, repositories, starters, table, tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from tree_sitter import Node

    from audit.risk.shell.command import Command
    from audit.risk.shell.judge import Judge
    from audit.risk.shell.values import Value

    Special = Callable[[Judge, Command, Value, Node | None], Value | None]


def of(command: Command) -> Special | None:
    """Return what judges a command in its own way, or None."""
    name = command.name
    if name in table.SHELLS:
        return _as_shell
    if name in table.INTERPRETERS:
        return _as_interpreter
    if name in _SPECIALS:
        return _SPECIALS[name]
    if name in table.WRAPPERS:
        return starters.wrapper
    return network.judge if network.is_network(command) else None


def _as_shell(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value:
    return programs.shell(judge, command, stdin, node)


def _as_interpreter(judge: Judge, command: Command, stdin: Value, node: Node | None) -> Value:
    return programs.interpreter(judge, command, stdin, node)


_SPECIALS: dict[str, Special] = {
    **dict.fromkeys(("echo", "printf"), builtins.echo),
    **dict.fromkeys(("read", "mapfile", "readarray"), builtins.read_words),
    **dict.fromkeys(("export", "declare", "typeset", "set", "printenv", "readonly"), builtins.list_variables),
    **dict.fromkeys(("crontab", "at", "batch"), starters.crontab),
    **dict.fromkeys(sorted(tools.PINNING), tools.packages),
    **dict.fromkeys(
        ("vim", "vi", "ed", "ex", "emacs", "gdb", "ex", "lldb", "nano", "less", "more", "ftp", "mutt"), starters.editor
    ),
    **dict.fromkeys(
        ("sqlite3", "duckdb", "psql", "mysql", "mariadb", "mongo", "mongosh", "redis-cli", "sqlcmd"), databases.judge
    ),
    "alias": builtins.set_alias,
    **dict.fromkeys(("apt", "apt-get", "aptitude", "dpkg", "rpm", "dnf", "yum", "apk", "snap"), tools.apt),
    "awk": starters.awk,
    **dict.fromkeys(("which", "type"), builtins.find_program),
    **dict.fromkeys(("dirname", "pwd"), builtins.find_folder),
    "bind": builtins.bind_key,
    "complete": builtins.set_completion,
    "hash": builtins.set_place,
    "let": builtins.compute,
    **dict.fromkeys(("test", "["), builtins.compute),
    **dict.fromkeys(("cd", "pushd"), builtins.change_folder),
    "chmod": tools.chmod,
    **dict.fromkeys(("chown", "chgrp"), tools.chown),
    "install": tools.install,
    "sysctl": tools.sysctl,
    "dd": destruction.copy_raw,
    **dict.fromkeys(("zip", "7z", "rar"), destruction.archive),
    **dict.fromkeys(("fallocate", "truncate"), destruction.reserve),
    **dict.fromkeys(("pkill", "killall", "skill"), destruction.end_named),
    "docker": starters.docker,
    "podman": starters.docker,
    "enable": builtins.load_builtin,
    "eval": builtins.run_text,
    "find": starters.find,
    "getopt": builtins.parse_options,
    "git": repositories.git,
    "hg": repositories.mercurial,
    **dict.fromkeys(("jq", "yq"), starters.query),
    "grep": tools.grep,
    "kubectl": tools.kubectl,
    **dict.fromkeys(("locate", "plocate", "mlocate"), tools.locate),
    "ps": tools.processes,
    **dict.fromkeys(("history", "fc", "compgen"), builtins.list_lines),
    "touch": tools.touch,
    "kill": destruction.end_processes,
    "make": starters.make,
    "mkfifo": tools.mkfifo,
    "mktemp": tools.mktemp,
    "mv": tools.mv,
    "gpg": tools.cipher,
    "openssl": tools.cipher,
    "parallel": starters.parallel,
    "rename": starters.rename,
    "prename": starters.rename,
    "rg": tools.grep,
    "rm": destruction.rm,
    "rsync": destruction.synchronise,
    "sed": starters.sed,
    "socat": starters.socat,
    "source": builtins.run_source,
    "tar": starters.tar,
    "trap": builtins.set_trap,
    "unset": builtins.unset,
    "shred": destruction.rm,
    "unlink": destruction.rm,
    "xargs": starters.xargs,
}
