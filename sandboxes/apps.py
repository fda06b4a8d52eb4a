"""The app's registration with Django."""

from __future__ import annotations

from django.apps import AppConfig


class SandboxesConfig(AppConfig):
    """Sandboxes: control plane side."""

    name = "sandboxes"
    label = "sandboxes"
    verbose_name = "Sandboxes"

    def ready(self) -> None:
        """Tell the nodes about every API key that is revoked and every tenant that is suspended or activated."""
        from sandboxes import revocation
        from tenants import hooks

        if revocation.revoke_at_node not in hooks.on_key_revoked:
            hooks.on_key_revoked.append(revocation.revoke_at_node)
        if revocation.follow_tenant not in hooks.on_tenant_state_changed:
            hooks.on_tenant_state_changed.append(revocation.follow_tenant)
