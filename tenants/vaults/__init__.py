"""Where the values of secrets are kept, and the one door to them."""

from __future__ import annotations

from tenants.vaults.revealing import Revealed, reveal

__all__ = ["Revealed", "reveal"]
