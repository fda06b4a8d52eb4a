"""What other engines would take as a lever, in any field of a tenant: without effect, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.sdk.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

pytestmark = pytest.mark.stack

LEVERS: dict[str, Any] = {
    "kernel_params": "init=/bin/sh",
    "privileged": True,
    "cap_add": ["SYS_ADMIN"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "pid": "host",
    "ipc": "host",
    "network_mode": "host",
    "devices": ["/dev/kvm"],
    "sysctls": {"kernel.core_pattern": "|/tmp/x"},
    "cgroup_parent": "/",
    "runtime": "runc",
    "user": "0:0",
    "binds": ["/:/host"],
    "mounts": [{"type": "bind", "source": "/", "target": "/host"}],
    "HostConfig": {"Privileged": True, "Binds": ["/:/host"]},
    "annotations": {"io.katacontainers.config.hypervisor.virtio_fs_extra_args": "[]"},
}
LABELS = {f"io.katacontainers.{name}": "x" for name in ("config.hypervisor.path", "config.agent.kernel_modules")}


@pytest.fixture(scope="module")
def wire(stack: Stack) -> Iterator[Wire]:
    """Return a client of the stack."""
    with Wire(stack.url, stack.key) as wire:
        yield wire


def facts(wire: Wire, template: str, **body: Any) -> str:
    """Return what shows inside how a sandbox is confined."""
    agent = wire.create(template, **body)
    try:
        look = "grep -E 'Cap(Eff|Bnd)|Seccomp:|NoNewPrivs' /proc/self/status; ls -d /host /dev/kvm 2>&1"
        return agent.run(f"{look}; cut -d: -f1 /proc/net/dev")[0]
    finally:
        agent.kill()


@pytest.mark.parametrize("template", ["base", "base-hardened", "base-process"])
def test_all_of_them_change_nothing(wire: Wire, template: str) -> None:
    plain = facts(wire, template)
    assert "Seccomp:\t2" in plain
    assert facts(wire, template, **LEVERS, metadata=LABELS) == plain


@pytest.mark.parametrize("lever", LEVERS)
def test_each_alone_is_ignored_or_refused(wire: Wire, lever: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    answer = wire.api("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 60, lever: LEVERS[lever]})
    assert answer.status_code in (201, 400), answer.text
    if answer.status_code == 201:
        wire.api("DELETE", f"/sandboxes/{answer.json()['sandboxID']}")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.parametrize("path", ["/", "/etc", "/var/run", "/proc", "/data-evil", "/data/../etc", "relative"])
def test_no_directory_of_the_host_can_be_asked_for(wire: Wire, path: str) -> None:
    for mount in ({"name": path, "path": "/mnt"}, {"name": "data", "path": path}):
        answer = wire.api("POST", "/v2/sandboxes", {"templateID": "base", "volumeMounts": [mount]})
        assert answer.status_code in (400, 404, 501), answer.text
        assert answer.json()["code"] == answer.status_code


@pytest.mark.parametrize(
    "environment",
    [{"LD_PRELOAD": "/tmp/x.so"}, {"GATEHOUSE_HOME": "/"}, {"PATH": "/tmp"}, {"NVIDIA_VISIBLE_DEVICES": "all"}],
    ids=lambda environment: next(iter(environment)),
)
def test_variables_reach_programs_inside_and_nothing_else(wire: Wire, environment: dict[str, str]) -> None:
    agent = wire.create("base", envVars=environment)
    name, value = next(iter(environment.items()))
    said = agent.run(f"/usr/bin/printenv {name}")
    assert (said[0].strip() == value or name == "PATH", said[1]["exited"]) == (True, True)
    assert agent.call("GET", "/envs").json()[name] == value
    agent.kill()
