"""What sandboxes may reach: policies, bundles of hosts, ceilings, and the documents that are made of them."""

from tenants.networks.compiling import Compiled, E2BNetwork, compile_network

__all__ = ["Compiled", "E2BNetwork", "compile_network"]
