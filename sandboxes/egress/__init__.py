"""Egress: the only way out of a sandbox. It decides by the sandbox's network policy, connects and records."""
