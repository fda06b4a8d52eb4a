"""Template builds and blank disks in the node's store."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from typing import TYPE_CHECKING

from sandboxes.node.errors import StartFailed, UnknownBuild

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 1024 * 1024


class Templates:
    """Read-only view of the template builds on this host."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def rootfs(self, build: str) -> Path:
        """Return the root directory of a build; UnknownBuild when it is not here."""
        path = self._root / build / "rootfs"
        if not path.is_dir():
            raise UnknownBuild(
                f"Template build {build} is not on this node. Build it with `make run` or "
                "`python -m sandboxes.node.builds`.",
                build=build,
            )
        return path


class BlankDisks:
    """Empty ext4 images, one golden file per size, copied without their holes.

    No journal: a sandbox does not outlive a crash of its host. No reserved blocks: the quota is what was asked for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "disks"
        # Two threads may want the first disk of a size at once.
        self._making = threading.Lock()

    def prepare(self) -> None:
        """Make the directory of golden images."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def copy(self, size_mib: int, target: Path) -> None:
        """Write a blank disk of the given size to `target`."""
        golden = self._root / f"ext4-{size_mib}.img"
        with self._making:
            if not golden.exists():
                _make_blank(golden, size_mib)
        _copy_sparse(golden, target)


def _make_blank(path: Path, size_mib: int) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.truncate(size_mib * _MIB)
    # Small disks would get blocks of 1 KiB, which a loop device with sectors of 4 KiB can't serve.
    options = ("-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1")
    command = ["mkfs.ext4", "-q", "-F", *options, str(fresh)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        fresh.unlink()
        raise StartFailed(f"mkfs.ext4 failed: {done.stderr.decode(errors='replace').strip()[:300]}")
    fresh.replace(path)


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        offset = 0
        while offset < size:
            try:
                start = os.lseek(reader.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise
            offset = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            _copy_range(reader.fileno(), writer.fileno(), start, offset)


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(reader, writer, end - start, start, start)
        if copied == 0:
            return
        start += copied
