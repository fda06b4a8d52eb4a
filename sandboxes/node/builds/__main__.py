"""`python -m sandboxes.node.builds base --home DIR` builds the template unless its recipe is known."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sandboxes.node.builds import BuildError, authorities, debian
from sandboxes.node.builds.recipe import RECIPES
from sandboxes.node.builds.store import TemplateStore


def _say(text: str) -> None:
    sys.stderr.write(f"template: {text}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Build what the arguments name, print its build id and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandboxes.node.builds", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES), help="the template to build")
    parser.add_argument("--home", type=Path, required=True, help="GATEHOUSE_HOME; the build lands in its templates/")
    parser.add_argument("--sources", type=Path, help="package sources to use in place of the host's own")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        _say("building a template needs root: run the command with sudo.")
        return 1
    try:
        recipe = authorities.with_authorities(RECIPES[options.name])
        manifest = debian.ensure(TemplateStore(options.home), recipe, sources=options.sources, progress=_say)
    except BuildError as error:
        _say(str(error))
        return 1
    except OSError as error:
        _say(f"the build stopped ({error.strerror}: {error.filename}): mend that and run it again.")
        return 1
    _say(f"{manifest.name} is ready: build {manifest.build_id}")
    sys.stdout.write(manifest.build_id + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
