"""Workload identity: short tokens that say which sandbox asks, signed here and checked by anybody."""

from __future__ import annotations

from tenants.identity.minting import Minted, Workload, mint

__all__ = ["Minted", "Workload", "mint"]
