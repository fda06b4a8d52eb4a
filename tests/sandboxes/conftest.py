"""Fixtures of this folder; the people come with API keys here."""

from tests.internet.fixtures import one_internet
from tests.sandboxes.fixtures import alice, base, bob, mallory, node, vera

__all__ = ["alice", "base", "bob", "mallory", "node", "one_internet", "vera"]
