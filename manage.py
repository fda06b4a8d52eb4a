#!/usr/bin/env python3
"""Every Gatehouse process starts here."""

import os
import sys
from pathlib import Path

# platform/ is a path entry, not a package: see docs/explanation/layout.md.
sys.path.insert(0, str(Path(__file__).resolve().parent / "platform"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gatehouse.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
