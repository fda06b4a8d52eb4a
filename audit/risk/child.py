"""The process that reads hostile code for `audit.risk.pool`: no network, no files, little memory, one second of CPU.

It answers length-prefixed JSON on its standard input and output until the input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

from audit.risk.assessor import assess, assess_argv

MAX_FRAME = 16 << 20
LENGTH = struct.Struct(">I")
_MEMORY_LIMIT = 256 << 20
_NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# What Python needs to compute and to talk over two open pipes. Everything else fails with EPERM.
_ALLOWED_CALLS = (
    *("read", "write", "close", "fstat", "lseek", "poll", "ioctl"),
    *("mmap", "munmap", "mremap", "mprotect", "madvise", "brk"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "setitimer", "futex", "sched_yield"),
    *("clock_gettime", "gettimeofday", "getrandom", "getpid", "gettid", "tgkill", "exit", "exit_group"),
)
# Reading these once loads every module that the analysers load late: afterwards no file can be opened.
_WARM_UP = (
    (b"# coding: latin-1\nimport os\nos.system('echo ' + 'aWQ=')\n", "python"),
    (b"# coding: nowhere\nx = (\n", "python"),
    (b'for x in a b; do python3 -c "print(1)" | base64 -d | sh; done', "bash"),
    (b"require('child_process').exec('id')", "javascript"),
)


def main(cpu_limit_s: float) -> None:
    """Wall the process in, then answer until the other end closes, with so much CPU time for each answer."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    for code, language in _WARM_UP:
        assess(code, language)
    # Collected after each answer instead of in the middle of one.
    gc.disable()
    gc.freeze()
    _wall_in()
    while (request := _receive(requests)) is not None:
        # The default action of SIGPROF ends the process, also in the middle of a parser's C code.
        signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
        answer = json.dumps(_answer(request)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()
        gc.collect()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "argv" in request:
        return assess_argv(request["argv"]).as_dict()
    return assess(request["code"].encode("latin-1"), request["language"]).as_dict()


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = stream.read(LENGTH.unpack(head)[0])
    received: dict[str, Any] = json.loads(body)
    return received


def _wall_in() -> None:
    # Two walls are enough where a third is not to be had: an unprivileged process may have no right to namespaces.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    call_filter = _call_filter()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    if call_filter is not None:
        call_filter.load()


def _call_filter() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError):  # the host has no libseccomp
        return None
    call_filter = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    for name in _ALLOWED_CALLS:
        call_filter.add_rule(pyseccomp.ALLOW, name)
    return call_filter
