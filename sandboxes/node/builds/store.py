"""Where finished templates live: `templates/<build id>/`, named by what is in them and never changed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sandboxes.node.builds import BuildError
from sandboxes.node.spec import Resources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUILDING = ".building-"


@dataclass(frozen=True)
class Manifest:
    """What is known of a build. Sizes in bytes; `created_at` is RFC 3339 in UTC."""

    build_id: str
    name: str
    recipe: str
    debian_version: str
    architecture: str
    default_user: str
    resources: Resources
    size_bytes: int
    files: int
    packages: tuple[str, ...]
    created_at: str

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest; ValueError, KeyError or TypeError when it is not one of this version."""
        fields = json.loads(text)
        resources = Resources(**fields.pop("resources"))
        return cls(**{**fields, "packages": tuple(fields["packages"]), "resources": resources})

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), indent=1) + "\n"


class TemplateStore:
    """The templates of one home directory."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "templates"

    def prepare(self) -> None:
        """Make the directory: nobody but root may list it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)

    def current(self, name: str) -> Manifest | None:
        """Return the build that new sandboxes of this template start from, or None when there is none."""
        try:
            build_id = (self.directory / f"{name}.current").read_text().strip()
            manifest = Manifest.from_json((self.directory / build_id / "manifest.json").read_text())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return manifest if (self.directory / build_id / "rootfs").is_dir() else None

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """Hold the store's only build; yield an empty directory, which goes away unless it is published."""
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.sweep()
            work = self.directory / f"{_BUILDING}{os.getpid()}"
            work.mkdir(mode=0o700)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an interrupted build left. Only the holder of the lock may call this."""
        for path in self.directory.glob(f"{_BUILDING}*"):
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, work: Path, manifest: Manifest) -> None:
        """Move a finished tree into place and make it the current build of its name; both are atomic."""
        (work / "manifest.json").write_text(manifest.to_json())
        # The name promises the content, also after a power cut: everything is on disk before it is given.
        os.sync()
        target = self.directory / manifest.build_id
        # Setuid programs lie below: no user of the host but root may reach them.
        work.chmod(0o700)
        try:
            work.rename(target)
        except OSError as error:
            if not (target / "rootfs").is_dir():
                raise BuildError(f"The build could not be moved to {target}: {error.strerror}.") from error
        pointer = self.directory / f".{manifest.name}.current"
        pointer.write_text(manifest.build_id + "\n")
        pointer.rename(self.directory / f"{manifest.name}.current")
