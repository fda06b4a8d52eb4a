"""Where upper layers hang in what they must do when something changes here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Each is called with the key's id after the revocation is committed. A failing one stops nobody: what it did not
# reach is for its owner's reconcile pass.
on_key_revoked: list[Callable[[str], None]] = []

# Each is called with the tenant's id after it was suspended or activated; which of the two, its row says.
on_tenant_state_changed: list[Callable[[str], None]] = []

# Each is called after a change of what sandboxes may reach is committed: with the id of the tenant and the name of the
# policy that it is about. Without a name it is about all sandboxes of the tenant, without both about all there are. A
# change is told again until all of them have heard of it.
on_network_changed: list[Callable[[str | None, str | None], None]] = []
