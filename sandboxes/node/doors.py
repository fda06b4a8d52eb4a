"""The directories in which sandboxes find their way out: the socket that egress serves, and whom to trust behind it.

They are on a file system of their own in memory, so that a sandbox's mount table names none of the host's directories.
The directory is what is mounted in a sandbox: a socket that is bound anew appears in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sandboxes.node import linux

if TYPE_CHECKING:
    from pathlib import Path

SOCKET = "egress.sock"
BUNDLE = "ca-bundle.pem"
TEMPLATE_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""The authorities that a template trusts, which are a sandbox's own as long as nothing is added to them."""
_KEY = ".key"
_BACKLOG = 512
# Without limits, which a sandbox could read: how much is used would tell it of its neighbours.
_OPTIONS = "mode=755,size=0,nr_inodes=0"


class Doors:
    """All of these directories of one node, below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # A thread with a working directory of its own: the sandbox can read the name that was bound.
        self._binder = ThreadPoolExecutor(1, "doors", lambda: linux.unshare(linux.CLONE_FS))

    def open(self) -> None:
        """Mount the file system unless an earlier node did: sandboxes that still run see its directories."""
        self._root.mkdir(mode=0o755, exist_ok=True)
        self._root.chmod(0o755)
        if not os.path.ismount(self._root):
            flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
            linux.mount("tmpfs", str(self._root), "tmpfs", flags, _OPTIONS)

    def directory(self, slot: int) -> Path:
        """Return the directory of a slot."""
        return self._root / str(slot)

    def make(self, slot: int) -> Path:
        """Make the directory of a slot, empty."""
        directory = self.directory(slot)
        self.remove(slot)
        directory.mkdir()
        directory.chmod(0o755)
        self.link_bundle(slot)
        return directory

    def key(self, slot: int) -> Path:
        """Return where the key of a slot's authority is: beside what the sandbox sees, for root alone."""
        return self._root / f"{slot}{_KEY}"

    def link_bundle(self, slot: int) -> None:
        """Let the slot's bundle be the template's own, wherever the sandbox's root is."""
        fresh = self._fresh_bundle(slot)
        fresh.symlink_to(TEMPLATE_BUNDLE)
        fresh.replace(self.directory(slot) / BUNDLE)

    def replace_bundle(self, slot: int, data: bytes) -> None:
        """Let the slot's bundle hold this. A program that reads it meanwhile sees the old or the new one."""
        fresh = self._fresh_bundle(slot)
        fresh.write_bytes(data)
        fresh.chmod(0o644)
        fresh.replace(self.directory(slot) / BUNDLE)

    def _fresh_bundle(self, slot: int) -> Path:
        fresh = self.directory(slot) / f"{BUNDLE}.new"
        fresh.unlink(missing_ok=True)
        return fresh

    def remove(self, slot: int) -> None:
        """Remove a slot's directory and its key. Safe to repeat."""
        shutil.rmtree(self.directory(slot), ignore_errors=True)
        self.key(slot).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the names of all slots that have something here."""
        return [entry.name.removesuffix(_KEY) for entry in self._root.iterdir()]

    async def bind(self, slot: int) -> socket.socket:
        """Return a new listener in the slot's directory, in place of an earlier one. OSError without the directory."""
        return await asyncio.get_running_loop().run_in_executor(self._binder, self._bind, slot)

    def _bind(self, slot: int) -> socket.socket:
        os.chdir(self.directory(slot))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)  # noqa: PTH108 - relative, here and below
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(SOCKET)
            os.chmod(SOCKET, 0o666)  # noqa: PTH101, S103 - whoever sees the directory is the sandbox
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        finally:
            # Nothing may keep the file system from being unmounted.
            os.chdir("/")
        return listener

    def close(self) -> None:
        """Unmount the file system when no sandbox has a directory on it any more; let go of the thread."""
        self._binder.shutdown()
        with contextlib.suppress(OSError):
            if not self.names():
                linux.unmount(str(self._root))
