"""The certificate authorities that the operator added to this host: company mirrors and proxies are signed by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.node.builds import BuildError

if TYPE_CHECKING:
    from sandboxes.node.builds.recipe import Recipe

# Where an administrator puts them: Debian's place, and that of Red Hat's family.
_PLACES = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
PLACE = "usr/local/share/ca-certificates"
_MAX_BYTES = 256 * 1024
_BEGIN = "-----BEGIN CERTIFICATE-----"


def with_authorities(recipe: Recipe, places: tuple[Path, ...] = _PLACES) -> Recipe:
    """Return the recipe of a template that trusts what this host trusts besides its distribution's authorities.

    Raises BuildError for a file that is no certificate, for nothing of it must get into a template unseen.
    """
    files = []
    for place in places:
        for path in sorted(place.rglob("*.crt")) if place.is_dir() else ():
            name = "-".join(path.relative_to(place).parts)
            files.append((f"{PLACE}/{name}", 0o644, _certificates(path)))
    return replace(recipe, files=recipe.files + tuple({file[0]: file for file in files}.values()))


def _certificates(path: Path) -> str:
    """Return the certificates of a file, without anything else that may stand in it."""
    if path.stat().st_size > _MAX_BYTES:
        raise BuildError(f"{path} is too large for a certificate.")
    text = path.read_text(errors="replace")
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = inside or line.strip() == _BEGIN
        if inside:
            kept.append(line.strip())
        inside = inside and not line.startswith("-----END")
    if not kept:
        raise BuildError(f"{path} holds no certificate in PEM: mend or remove it, and run the same command again.")
    return "\n".join(kept) + "\n"
