"""The policies and bundles that every installation has. Rows of the platform hold them, made after each migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ISOLATED, RESTRICTED, PROXIED = "isolated", "restricted", "proxied"
BUNDLES = ("python", "npm", "debian", "git")
"""Bundles that every policy may name, also before anybody filled them."""
PROXY = "proxy.internal:8080"
"""The alias of the explicit proxy inside every sandbox that has a network."""
PROXY_URL = f"http://{PROXY}"

CLOSED: Mapping[str, Any] = {
    "description": "",
    "mode": "deny",
    "egress": [],
    "written": [],
    "ingress": [],
    "dns": False,
    "http_proxy": None,
    "https_proxy": None,
    "via": None,
    "limits": {},
    "tls": {"sni": "require", "ech": "deny"},
}
"""A policy that lets nothing through, and what a spec holds in which form."""

_MODELS = ("api.openai.com:443", "api.anthropic.com:443", "@python")

PRESETS: Mapping[str, Mapping[str, Any]] = {
    ISOLATED: {**CLOSED, "description": "No network at all, for the whole life of a sandbox."},
    RESTRICTED: {
        **CLOSED,
        "description": "Two hosts of model vendors and the Python package index.",
        "egress": list(_MODELS),
        "written": list(_MODELS),
        "dns": True,
    },
    PROXIED: {
        **CLOSED,
        "description": "The explicit proxy only; it lets through what the tenant's ceiling allows.",
        "egress": [PROXY],
        "written": [PROXY],
        "dns": True,
        "http_proxy": PROXY_URL,
        "https_proxy": PROXY_URL,
    },
}


def make_missing(**_: object) -> None:
    """Add the presets and the bundles that have no row. What an operator made of one stays."""
    from tenants.models import Bundle, NetworkPolicy, NetworkPolicyVersion

    Bundle.objects.bulk_create([Bundle(name=name) for name in BUNDLES], ignore_conflicts=True)

    known = set(NetworkPolicy.objects.filter(tenant=None, deleted_at=None).values_list("name", flat=True))
    for name, spec in PRESETS.items():
        if name not in known:
            policy = NetworkPolicy.objects.create(name=name, spec=spec)
            NetworkPolicyVersion.objects.create(policy=policy, version=policy.version, spec=spec)
