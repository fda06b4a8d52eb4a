#!/usr/bin/env python3
"""Every Gatehouse process starts here."""

import os
import sys
from pathlib import Path

# platform/ is a path entry, not a package: see docs/explanation/layout.md.
sys.path.insert(0, str(Path(__file__).resolve().parent / "platform"))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gatehouse.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # A wrong variable is the operator's to mend: one sentence, not our call stack.
        sys.exit(f"manage.py: {error}")


if __name__ == "__main__":
    main()
