"""What the node tells its zygote: one order, one sandbox to prepare."""

from __future__ import annotations

import json
from dataclasses import dataclass

# Where the guest agent finds its listener.
GUEST_FD = 3
# Where a jail's first process says that it is enclosed, and what bubblewrap reads: a user namespace and a filter.
READY_FD = 4
NAMESPACE_FD = 5
FILTER_FD = 6
# The account that everything in a hardened sandbox runs as.
USER_ID = 1000
USER_HOME = "home/user"
# Where the directory of the way out is seen, and which ports of 127.0.0.1 lead to it.
DOOR_PLACE = "opt/gatehouse/egress"
PROXY_PORT = 3128
TRANSPARENT_PORT = 15001
DNS_PORT = 15053


@dataclass(frozen=True)
class Order:
    """What one member is made of. Paths are the host's; ids come from the node's own store, never from a request.

    `kind` says who starts the first process: `oci` (a runtime that reads config.json in `directory`) or `jail`
    (bubblewrap, which reads the compiled filter at `syscall_filter`). `command` starts with the program's path.
    `limits` are resource limits by their names, in the units of setrlimit(2). `network` is the recipe's; `door` is the
    directory of the way out, or empty.
    """

    kind: str
    profile: str
    directory: str
    stage: str
    template_root: str
    guest_layer: str
    socket_path: str
    socket_gid: int
    uid_base: int
    uid_count: int
    hostname: str
    machine_id: str
    hidden_mounts: tuple[str, ...]
    cgroup_files: tuple[str, ...]
    limits: dict[str, int]
    command: tuple[str, ...]
    syscall_filter: str
    network: str = "none"
    door: str = ""

    def pack(self) -> bytes:
        """Return the order as it travels to the zygote."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Order:
        """Read what `pack` wrote."""
        fields = json.loads(data)
        for name in ("hidden_mounts", "cgroup_files", "command"):
            fields[name] = tuple(fields[name])
        return cls(**fields)
