"""Builds a template from Debian packages with mmdebstrap: no image registry, no daemon."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandboxes.node.builds import BuildError, aptsources, rootfs
from sandboxes.node.builds.store import Manifest, TemplateStore

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.builds.recipe import Recipe

Progress = Callable[[str], None]

_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_STEPS = {
    "running apt-get update": "fetching the package lists",
    "downloading packages with apt": "downloading the essential packages",
    "extracting archives": "unpacking the essential packages",
    "installing essential packages": "setting up the essential packages",
    "installing remaining packages": "downloading and installing the other packages",
    "cleaning package lists": "cleaning up",
}
_UNREACHABLE = (
    "Could not resolve",
    "Could not connect",
    "Failed to fetch",
    "Unable to connect",
    "Connection failed",
)


def ensure(store: TemplateStore, recipe: Recipe, *, sources: Path | None, progress: Progress) -> Manifest:
    """Return the current build of the recipe and make it first when there is none. Raises BuildError."""
    store.prepare()
    digest = recipe.digest()
    current = store.current(recipe.name)
    if current is not None and current.recipe == digest:
        return current
    with store.building() as work:
        # Another process may have built it while this one waited for the lock.
        current = store.current(recipe.name)
        if current is not None and current.recipe == digest:
            return current
        return _build(store, recipe, digest, work, sources, progress)


def _build(
    store: TemplateStore, recipe: Recipe, digest: str, work: Path, sources: Path | None, progress: Progress
) -> Manifest:
    if shutil.which("mmdebstrap") is None:
        raise BuildError("mmdebstrap is missing: install it with `apt-get install mmdebstrap`.")
    entries = [] if sources is not None else aptsources.host_sources(recipe.suite)
    source_text = sources.read_text() if sources is not None else aptsources.render(entries)
    public = aptsources.render(source.public() for source in entries)
    root = work / "rootfs"
    progress(f"building template {recipe.name} from Debian {recipe.suite} ({len(recipe.packages)} packages named)")
    _install(root, recipe, source_text, progress)
    progress("adding the user and taking out what a sandbox must not have")
    rootfs.finish(root, recipe, public)
    packages = rootfs.installed(root)
    size_bytes, files = rootfs.measure(root)
    manifest = Manifest(
        build_id=_build_id(digest, packages),
        name=recipe.name,
        recipe=digest,
        debian_version=(root / "etc/debian_version").read_text().strip(),
        architecture=platform.machine(),
        default_user=recipe.default_user,
        resources=recipe.resources,
        size_bytes=size_bytes,
        files=files,
        packages=tuple(packages),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
    progress(f"{len(packages)} packages, {size_bytes // 1_000_000} MB, {files} files: writing to disk")
    store.publish(work, manifest)
    return manifest


def _build_id(digest: str, packages: list[str]) -> str:
    """Return 32 hex digits (a UUID's length) that name recipe and package versions together."""
    text = "\n".join([digest, platform.machine(), *packages])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _install(root: Path, recipe: Recipe, sources: str, progress: Progress) -> None:
    command = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase"]
    command += [f"--include={','.join(recipe.packages)}"]
    command += [f"--aptopt={option}" for option in aptsources.fetch_options()]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    command += [recipe.suite, str(root), "-"]
    tail: deque[str] = deque(maxlen=60)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={
            "PATH": rootfs.PATH,
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        | _proxies(),
    ) as process:
        assert process.stdin is not None  # noqa: S101 - both are pipes, asked for above
        assert process.stderr is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and says why on stderr
            process.stdin.write(sources)
            process.stdin.close()
        started = time.monotonic()
        for line in process.stderr:
            tail.append(line.strip())
            for word, step in _STEPS.items():
                if line.startswith("I: ") and word in line:
                    progress(f"{step} ({time.monotonic() - started:.0f} s)")
    if process.returncode != 0:
        raise BuildError(_explain(list(tail)))


def _proxies() -> dict[str, str]:
    """Return the environment's proxy settings, which apt honours as well."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}


def _explain(lines: list[str]) -> str:
    cause = next((line for line in reversed(lines) if line.startswith(("E: ", "W: "))), "no reason given")
    for line in lines:
        if any(word in line for word in _UNREACHABLE):
            return (
                f"The Debian mirror cannot be reached ({line.removeprefix('E: ').removeprefix('W: ')}): "
                "check the network, the proxy and /etc/apt/sources.list, then run the same command again."
            )
    return f"mmdebstrap failed ({cause.removeprefix('E: ')}): mend that and run the same command again."
