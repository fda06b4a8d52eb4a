"""Our seccomp allow-list as a compiled program, for what reads no OCI configuration."""

from __future__ import annotations

import functools
import os
import tempfile
from typing import TYPE_CHECKING, Any

from sandboxes.node.runtimes import oci

if TYPE_CHECKING:
    import pyseccomp

# Calls that nobody but root can use; a tier that gives nobody root has no need of them.
ROOT_ONLY = frozenset({"chroot", "setfsgid", "setfsuid", "setgroups"})

# As a tree a call is found in a few steps instead of some hundred.
_BINARY_TREE = 2


@functools.cache
def compile_filter() -> bytes:
    """Return the filter as the kernel takes it; OSError when libseccomp is missing or refuses it."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise OSError(f"libseccomp can't be loaded: {error}") from error
    rules = oci.seccomp()
    program = pyseccomp.SyscallFilter(pyseccomp.ERRNO(rules["defaultErrnoRet"]))
    # Calls of another architecture, which numbers them differently, are no mistake of an honest program.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    for rule in rules["syscalls"]:
        _add_rule(program, pyseccomp, rule)
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        return os.pread(file.fileno(), 1 << 20, 0)


def _add_rule(program: pyseccomp.SyscallFilter, library: Any, rule: dict[str, Any]) -> None:
    action = library.ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else library.ERRNO(rule["errnoRet"])
    arguments = [
        library.Arg(
            given["index"],
            getattr(library, given["op"].removeprefix("SCMP_CMP_")),
            given["value"],
            given.get("valueTwo", 0),
        )
        for given in rule.get("args", ())
    ]
    for name in rule["names"]:
        # Negative for a call that this library or this processor does not know: it stays refused.
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        if name not in ROOT_ONLY and number >= 0:
            program.add_rule(action, number, *arguments)
