"""The last steps on a freshly installed tree: what a sandbox needs comes in, what it must not have goes out.

The tree holds only what Debian put there and nobody but root can reach it, so plain paths are safe here.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node.builds import BuildError, authorities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.node.builds.recipe import Recipe

# The tree's own programs run with it too; the caller's shell may not know /usr/sbin.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_KEYRING = "usr/share/keyrings/debian-archive-keyring.gpg"


def finish(root: Path, recipe: Recipe, public_sources: str) -> None:
    """Turn an installed Debian tree into the template's root file system."""
    add_user(root, recipe)
    remove(root, recipe.removed)
    for name, mode in recipe.directories:
        _directory(root / name, mode)
    for name, mode, text in recipe.files:
        _write(root / name, mode, text)
    trust_authorities(root)
    _write(root / "etc/machine-id", 0o444, "")
    if (root / _KEYRING).exists():
        _write(root / "etc/apt/sources.list.d/debian.sources", 0o644, public_sources)
    strip_privileges(root, recipe.privileged)


def add_user(root: Path, recipe: Recipe) -> None:
    """Make the default user with a home of its own and a locked password."""
    command = [
        "chroot",
        str(root),
        "/usr/sbin/useradd",
        "--create-home",
        "--user-group",
        "--shell",
        "/bin/bash",
    ]
    command += ["--uid", str(recipe.user_id), "--groups", ",".join(recipe.user_groups), recipe.default_user]
    done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"The user {recipe.default_user} could not be made: {done.stderr.strip()}.")
    _write(
        root / f"etc/sudoers.d/{recipe.default_user}",
        0o440,
        f"{recipe.default_user} ALL=(ALL:ALL) NOPASSWD: ALL\n",
    )


def trust_authorities(root: Path) -> None:
    """Take the authorities that the recipe adds into the bundle that the tree's programs trust."""
    if not any((root / authorities.PLACE).glob("*.crt")):
        return
    command = ["chroot", str(root), "/usr/sbin/update-ca-certificates"]
    done = subprocess.run(command, env={"PATH": PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"This host's certificate authorities were not taken in: {done.stderr.strip()[-300:]}.")


def remove(root: Path, patterns: tuple[str, ...]) -> None:
    """Delete what the patterns match; a link is deleted, never followed."""
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def strip_privileges(root: Path, privileged: tuple[str, ...]) -> None:
    """Drop device nodes, file capabilities and every setuid or setgid bit but those of the programs named."""
    kept = {root / name for name in privileged}
    for path in _walk(root):
        mode = path.lstat().st_mode
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            path.unlink()
        elif stat.S_ISREG(mode):
            if mode & (stat.S_ISUID | stat.S_ISGID) and path not in kept:
                path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))
            for name in os.listxattr(path, follow_symlinks=False):
                if name.startswith(("security.capability", "trusted.")):
                    os.removexattr(path, name, follow_symlinks=False)


def measure(root: Path) -> tuple[int, int]:
    """Return how many bytes on disk the tree takes and how many files it holds."""
    seen: set[int] = set()
    blocks = files = 0
    for path in _walk(root):
        info = path.lstat()
        if info.st_ino not in seen:
            seen.add(info.st_ino)
            blocks += info.st_blocks
            files += 1
    return blocks * 512, files


def installed(root: Path) -> list[str]:
    """Return every installed package as `name version`, sorted."""
    packages: list[str] = []
    for stanza in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            packages.append(f"{fields['Package']} {fields['Version']}")
    return sorted(packages)


def _walk(root: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(root):
        yield from (Path(parent, name) for name in names)
        yield from (Path(parent, name) for name in directories)


def _directory(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)


def _write(path: Path, mode: int, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The packages' own file may be a link to another place, such as /etc/resolv.conf.
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)
