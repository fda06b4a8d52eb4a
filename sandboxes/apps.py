"""The app's registration with Django."""

from __future__ import annotations

from django.apps import AppConfig


class SandboxesConfig(AppConfig):
    """Sandboxes: control plane side."""

    name = "sandboxes"
    label = "sandboxes"
    verbose_name = "Sandboxes"

    def ready(self) -> None:
        """Tell the nodes about every API key that is revoked, every tenant that is suspended and every new policy."""
        from sandboxes import networks, revocation
        from tenants import hooks

        if revocation.revoke_at_node not in hooks.on_key_revoked:
            hooks.on_key_revoked.append(revocation.revoke_at_node)
        # The way out is shut before the sandboxes are paused, which takes longer.
        for follow in (networks.follow_tenant, revocation.follow_tenant):
            if follow not in hooks.on_tenant_state_changed:
                hooks.on_tenant_state_changed.append(follow)
        if networks.follow_policies not in hooks.on_network_changed:
            hooks.on_network_changed.append(networks.follow_policies)
