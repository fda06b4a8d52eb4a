"""What a path means to a shell script beyond its class: logs, caches, the ways out of a container."""

from __future__ import annotations

import re

from audit.risk.places import normal_path, path_classes

_CACHES = re.compile(r"/var/(?:cache|lib/apt/lists)(?:/.*)?|/usr/share/(?:doc|man|locale|info)/.*", re.DOTALL)
_LOGS = re.compile(r"/var/log(?:/.*)?|/(?:var/)?run/[uw]tmp", re.DOTALL)
_OWN_ENVIRONMENT = re.compile(r"/proc/(?:self|thread-self)/environ")
# The root of another process's file system, which in a container may be the host's.
_OTHERS_ROOT = re.compile(r"/proc/(?!self/|thread-self/)[^/]+/(?:root|cwd)(?:/.*)?", re.DOTALL)
# What another process holds open or has mapped.
_OTHERS_FILES = re.compile(
    r"/proc/(?!self/|thread-self/)[^/]+/(?:fd|fdinfo|map_files|maps|stack|syscall|task)/?.*", re.DOTALL
)
_WAYS_OUT = re.compile(r".*/release_agent|/sys/kernel/uevent_helper|/proc/sysrq-trigger", re.DOTALL)


def spot_classes(path: str, *, writing: bool = False) -> frozenset[str]:
    """Return the classes of a path, told apart more finely where only a shell script's use of it matters."""
    classes = path_classes(path, writing=writing)
    if path.startswith("/proc/") and _OTHERS_ROOT.fullmatch(path):
        return classes | {"way out"}
    if path.startswith("/proc/") and not writing and _OTHERS_FILES.fullmatch(path):
        return classes | {"secret"}
    if "workspace" in classes and len(classes) == 1:
        return classes
    place = normal_path(path)
    if "environment" in classes and not _OWN_ENVIRONMENT.fullmatch(place):
        # What another process was started with is not this one's to read.
        return classes - {"environment"} | {"secret"}
    if not writing:
        return classes
    if _WAYS_OUT.fullmatch(place):
        return frozenset({"way out"})
    if "system" in classes:
        if _CACHES.fullmatch(place):
            return frozenset({"cache"})
        if _LOGS.fullmatch(place):
            return frozenset({"log"})
    # A key that is written is left behind, not read.
    return classes - {"secret"} if classes & {"accounts", "keys"} else classes
