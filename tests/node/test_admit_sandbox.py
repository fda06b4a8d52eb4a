"""The host's own ceilings count, whatever the control plane believes; a refusal names the resource."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import admission
from sandboxes.node.admission import Admission
from sandboxes.node.errors import NoRoom
from sandboxes.node.slots import MAX_SLOTS, Slots, uid_base
from sandboxes.node.spec import Resources

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Resources(cpu_milli=1000, memory_mib=512, disk_mib=1024, pids=256)
HOST_MEMORY_MIB = 8_192
HOST_DISK_MIB = 50_000


@dataclasses.dataclass
class Host:
    """What the made-up host has at the moment. Sizes in MiB."""

    available_mib: int = 4_000
    free_disk_mib: int = 20_000
    threads: int = 300


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host whose state the test sets."""
    host = Host()
    mib = 1024 * 1024

    def statvfs(_path: object) -> os.statvfs_result:
        block = 4096
        blocks, free = HOST_DISK_MIB * mib // block, host.free_disk_mib * mib // block
        return os.statvfs_result((block, block, blocks, free, free, 0, 0, 0, 0, 255))

    def meminfo() -> dict[str, int]:
        return {"MemTotal": HOST_MEMORY_MIB, "MemAvailable": host.available_mib}

    monkeypatch.setattr(admission, "_meminfo", meminfo)
    monkeypatch.setattr(admission, "_thread_count", lambda: host.threads)
    monkeypatch.setattr(os, "statvfs", statvfs)
    return host


@pytest.fixture
def doorkeeper(host: Host, tmp_path: Path) -> Admission:
    """Return admission that promises memory twice and disk three times."""
    doorkeeper = Admission(tmp_path, memory_overcommit=2, disk_overcommit=3)
    doorkeeper._pid_max = 10_000
    return doorkeeper


def refusal(doorkeeper: Admission, wanted: Resources, running: list[Resources]) -> dict[str, Any]:
    """Return what a refusal says."""
    with pytest.raises(NoRoom) as refused:
        doorkeeper.require_room(wanted, running)
    assert (refused.value.status, refused.value.code) == (503, "no_room")
    assert refused.value.details["resource"] in refused.value.message
    return refused.value.details


def test_there_is_room_on_an_empty_host(doorkeeper: Admission) -> None:
    doorkeeper.require_room(SMALL, [])


def test_its_capacity_is_what_may_be_promised(doorkeeper: Admission) -> None:
    assert doorkeeper.capacity() == {
        "cpu_milli": (os.cpu_count() or 1) * 1_000,
        "memory_mib": 2 * HOST_MEMORY_MIB,
        "disk_mib": 3 * HOST_DISK_MIB,
        "sandboxes": 4_032,
    }


def test_memory_is_promised_up_to_its_ratio(doorkeeper: Admission) -> None:
    running = [dataclasses.replace(SMALL, disk_mib=16)] * 31
    doorkeeper.require_room(dataclasses.replace(SMALL, memory_mib=512), running)
    assert refusal(doorkeeper, dataclasses.replace(SMALL, memory_mib=513), running) == {
        "resource": "memory_mib",
        "needed": 513,
        "free": 512,
    }


def test_disk_is_promised_up_to_its_ratio(doorkeeper: Admission) -> None:
    running = [dataclasses.replace(SMALL, memory_mib=16, disk_mib=50_000)] * 2
    doorkeeper.require_room(dataclasses.replace(SMALL, disk_mib=50_000), running)
    assert refusal(doorkeeper, dataclasses.replace(SMALL, disk_mib=50_001), running) == {
        "resource": "disk_mib",
        "needed": 50_001,
        "free": 50_000,
    }


def test_more_was_promised_than_there_is(doorkeeper: Admission) -> None:
    running = [dataclasses.replace(SMALL, memory_mib=20_000)]
    assert refusal(doorkeeper, SMALL, running) == {"resource": "memory_mib", "needed": 512, "free": 0}


def test_memory_that_is_really_free_is_a_floor(doorkeeper: Admission, host: Host) -> None:
    host.available_mib = 513
    doorkeeper.require_room(SMALL, [])
    host.available_mib = 512
    assert refusal(doorkeeper, SMALL, []) == {"resource": "free_memory_mib", "needed": 1, "free": 0}


def test_disk_that_is_really_free_is_a_floor(doorkeeper: Admission, host: Host) -> None:
    host.free_disk_mib = 1_025
    doorkeeper.require_room(SMALL, [])
    host.free_disk_mib = 900
    assert refusal(doorkeeper, SMALL, []) == {"resource": "free_disk_mib", "needed": 1, "free": 0}


def test_process_numbers_of_the_host_are_a_floor(doorkeeper: Admission, host: Host) -> None:
    host.threads = 7_744
    doorkeeper.require_room(SMALL, [])
    host.threads = 7_745
    assert refusal(doorkeeper, SMALL, []) == {"resource": "pids", "needed": 256, "free": 255}


def test_each_sandbox_takes_a_range_of_uids(doorkeeper: Admission) -> None:
    nothing = Resources(0, 0, 0, 0)
    doorkeeper.require_room(nothing, [nothing] * 4_031)
    assert refusal(doorkeeper, nothing, [nothing] * 4_032) == {"resource": "uid_ranges", "needed": 1, "free": 0}


def test_this_host_is_read(tmp_path: Path) -> None:
    doorkeeper = Admission(tmp_path, memory_overcommit=1, disk_overcommit=1)
    assert 0 < doorkeeper.memory_mib < 1 << 24
    assert 0 < doorkeeper.disk_mib < 1 << 34
    assert 0 < admission._thread_count() < doorkeeper._pid_max


# --- Ranges of uids


def test_ranges_never_overlap_and_stay_below_the_kernel_s_last_uid() -> None:
    assert uid_base(1) - uid_base(0) == 65_536
    assert uid_base(0) >= 1 << 16
    assert uid_base(MAX_SLOTS - 1) + 65_536 <= 2**31


def test_a_range_rests_as_long_as_possible() -> None:
    slots = Slots(3)
    assert (slots.take(), slots.take()) == (0, 1)
    slots.release(0)
    assert (slots.take(), slots.take()) == (2, 0)


def test_a_range_that_is_in_use_is_never_given_twice() -> None:
    slots = Slots(3)
    slots.claim(1)
    assert [slots.take(), slots.take()] == [2, 0]
    with pytest.raises(NoRoom) as refused:
        slots.take()
    assert refused.value.details == {"resource": "uid_ranges", "needed": 1, "free": 0}
    assert slots.used == 3
    slots.release(2)
    assert slots.take() == 2


def test_giving_back_twice_does_no_harm() -> None:
    slots = Slots(2)
    slots.release(slots.take())
    slots.release(0)
    assert (slots.used, slots.take(), slots.take()) == (0, 1, 0)
