"""Fixtures of this folder; the node double's module says what it can do."""

from tests.sandboxes.fixtures import acme, alice, base, bob, evil, installation, mallory, node, vera

__all__ = ["acme", "alice", "base", "bob", "evil", "installation", "mallory", "node", "vera"]
