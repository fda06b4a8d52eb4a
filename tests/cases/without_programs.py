"""`manage.py up` on a host that lacks some programs: `python without_programs.py NAME...`, seen so by nobody else."""

from __future__ import annotations

import os
import shutil
import sys

from tests.live import ROOT


def main(names: list[str]) -> None:
    """Cover the programs in a mount namespace of this process's own and go on as `manage.py up`."""
    os.environ["PATH"] += ":/usr/sbin:/usr/bin:/sbin:/bin"
    covers = [f"mount --bind /dev/null {path}" for name in names if (path := shutil.which(name))]
    start = f"exec {sys.executable} {ROOT / 'manage.py'} up"
    os.execvp("unshare", ["unshare", "--mount", "sh", "-ec", "; ".join([*covers, start])])


if __name__ == "__main__":
    main(sys.argv[1:])
