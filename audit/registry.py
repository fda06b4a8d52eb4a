"""Every code that an event may have: one sentence, a severity, and the names its details may hold.

A code that isn't here can't be recorded by our own calls, so that the browser, exports and webhooks know them all.
Sentences are filled with actor, object, and the details.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "notice", "warning", "critical"]
_NAME = re.compile(r"\{(actor|object)\}")


class UnknownCodeError(LookupError):
    """Our own code tried to record something that the registry does not know."""


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of event."""

    code: str
    sentence: str
    severity: Severity = "info"
    fields: frozenset[str] = frozenset()


def _code(code: str, sentence: str, severity: Severity = "info", fields: str = "") -> Code:
    return Code(code, sentence, severity, frozenset(fields.split()))


_FLOW = (
    "host port protocol address sni rule layer policy_version bytes_in bytes_out count many via method closed "
    "secrets_sent detail"
)
_CALL = "service method path secret_name"
_SERVICE = "name kind base_url slot headers private version"
_INJECTED = "host method path names rule"
_MINTED = "host name audience jti kid expires_at"
_GRAVE = {("egress.denied", "metadata"), ("egress.dns_denied", "metadata")}

_CODES = {
    entry.code: entry
    for entry in (
        # tenants
        _code("tenant.created", "{actor} created the tenant {object}.", "notice", "name slug"),
        _code("tenant.suspended", "{actor} suspended the tenant {object}.", "warning", "name"),
        _code("tenant.activated", "{actor} activated the tenant {object} again.", "notice", "name"),
        _code("tenant.offboarding", "{actor} began to erase the tenant {object}.", "critical", "name slug operation"),
        _code("tenant.offboarded", "The tenant {object} is erased.", "critical", "operation erased"),
        _code("tenant.denied", "{actor} asked for the tenant {object}, which is not its own.", "warning"),
        _code("member.added", "{actor} made {object} a member.", "notice", "role"),
        _code("member.role_changed", "{actor} changed the role of {object}.", "notice", "before after"),
        _code("member.removed", "{actor} removed the member {object}.", "notice", "role"),
        _code("apikey.created", "{actor} created the API key {object}.", "notice", "name scopes expires_at"),
        _code("apikey.revoked", "{actor} revoked the API key {object}.", "notice", "name"),
        _code("quota.set", "{actor} changed the quota.", "notice", "before after"),
        _code("limit_range.set", "{actor} changed the limits of one sandbox.", "notice", "before after"),
        _code("quota.refused", "A quota refused {actor}.", "warning", "limit allowed used requested used_by"),
        _code("quota.leak_released", "A reservation without a sandbox was released.", "warning", "state"),
        _code(
            "network_policy.created",
            "{actor} created the network policy {object}.",
            "notice",
            "name version mode egress",
        ),
        _code(
            "network_policy.replaced",
            "{actor} changed the network policy {object}.",
            "notice",
            "name version added removed changed",
        ),
        _code("network_policy.deleted", "{actor} deleted the network policy {object}.", "notice", "name version"),
        _code("network.default_set", "{actor} set the default network policy.", "notice", "before after"),
        _code("network.ceiling_set", "{actor} set the ceiling of a tenant's network.", "warning", "before after"),
        _code("network.private_set", "{actor} granted private addresses.", "warning", "added removed"),
        _code("network.deny_set", "{actor} changed what no sandbox may reach.", "warning", "added removed"),
        _code(
            "network.bundle_set",
            "{actor} changed the bundle {object}.",
            "warning",
            "added removed private source",
        ),
        # secrets
        _code("secret.created", "{actor} created the secret {object}.", "notice", "name vault version entry"),
        _code("secret.updated", "{actor} gave the secret {object} a new value.", "notice", "name version"),
        _code("secret.disabled", "{actor} disabled the secret {object}.", "notice", "name"),
        _code("secret.enabled", "{actor} enabled the secret {object} again.", "notice", "name"),
        _code("secret.deleted", "{actor} deleted the secret {object}.", "notice", "name vault"),
        _code(
            "secret.unreadable",
            "The vault keeps something else than was written for the secret {object}.",
            "critical",
            "name vault version",
        ),
        _code("vault.rotated", "{actor} put a new master key into use.", "warning", "before after"),
        _code(
            "vault.rewrapped",
            "{actor} sealed the tenants' keys under the newest master key.",
            "notice",
            "after tenants",
        ),
        _code("vault.retired", "{actor} took the master key {object} away.", "warning"),
        _code("audit.read", "{actor} read the audit.", "notice", "filters"),
        _code("audit.exported", "{actor} exported events.", "notice", "format filters events"),
        _code("audit.heartbeat", "The audit is alive.", fields="producers"),
        _code("audit.event_lost", "The event {object} was taken away before it got its number.", "critical"),
        _code("audit.gap", "Events of {object} are missing.", "critical", "expected got"),
        _code("audit.producer_silent", "{object} was not heard for some minutes.", "critical", "heard_at"),
        _code("audit.producer_back", "{object} is heard again.", "notice", "silent_since"),
        _code("audit.anchor_failed", "Checkpoints do not reach the anchor {object}.", "critical", "error"),
        _code(
            "audit.verification_failed",
            "The chain {object} is not what was signed.",
            "critical",
            "verdict seq event checkpoint",
        ),
        _code("audit.pruned", "Old events of {object} were dropped.", "notice", "first last events rule"),
        _code("audit.hold_set", "{actor} put the events of {object} under legal hold.", "warning", "note"),
        _code("audit.hold_lifted", "{actor} lifted the legal hold of {object}.", "warning"),
        _code("audit.policy_changed", "{actor} changed how long events are kept.", "notice", "before after"),
        # risk
        _code("risk.flagged", "An act in {object} met the threshold.", "warning", "score threshold event rules"),
        _code(
            "risk.paused", "The sandbox {object} was paused for its risk.", "critical", "score threshold event rules"
        ),
        _code(
            "risk.pause_failed",
            "The sandbox {object} could not be paused for its risk.",
            "critical",
            "score threshold event rules error",
        ),
        _code(
            "risk.network_cut",
            "The network of the sandbox {object} was cut for its risk.",
            "critical",
            "score threshold event rules",
        ),
        _code(
            "risk.network_cut_failed",
            "The network of the sandbox {object} could not be cut for its risk.",
            "critical",
            "score threshold event rules error",
        ),
        _code(
            "risk.tokens_voided",
            "The scoped tokens of the sandbox {object} were voided for its risk.",
            "critical",
            "score threshold event rules",
        ),
        _code(
            "risk.tokens_void_failed",
            "The scoped tokens of the sandbox {object} could not be voided for its risk.",
            "critical",
            "score threshold event rules error",
        ),
        _code(
            "risk.overridden", "{actor} overrode the verdict {object}.", "warning", "action state note event sandbox"
        ),
        _code("risk.policy_changed", "{actor} changed the risk thresholds.", "warning", "before after"),
        _code("risk.suppressed", "{actor} muted the rule {object}.", "warning", "until note"),
        _code("risk.unsuppressed", "{actor} let the rule {object} count again.", "notice", "until note"),
        _code("audit.arguments_opened", "{actor} opened the arguments of the event {object}.", "warning", "reason"),
        _code(
            "audit.arguments_policy_changed",
            "{actor} changed whether copies of arguments are kept.",
            "warning",
            "before after",
        ),
        # webhooks
        _code("webhook.created", "{actor} created the webhook {object}.", "notice", "url codes"),
        _code("webhook.changed", "{actor} changed the webhook {object}.", "notice", "changed"),
        _code("webhook.deleted", "{actor} removed the webhook {object}.", "notice", "url"),
        _code("webhook.secret_rotated", "{actor} gave the webhook {object} a new secret.", "notice"),
        _code("webhook.test", "{actor} sent a test event to the webhook {object}."),
        _code("webhook.disabled", "The webhook {object} was switched off.", "warning", "reason"),
        # sandboxes, control plane
        _code(
            "sandbox.created",
            "{actor} created the sandbox {object}.",
            fields="template build tier profile runtime cpu_milli memory_mib disk_mib timeout_ms on_timeout"
            " auto_resume public_traffic network node metadata injects",
        ),
        _code(
            "sandbox.create_failed",
            "The sandbox {object} did not start.",
            "warning",
            "template build reason error_code message",
        ),
        _code("sandbox.connected", "{actor} connected to the sandbox {object}.", fields="timeout_ms end_at"),
        _code("sandbox.timeout_set", "{actor} set the end of the sandbox {object}.", fields="timeout_ms end_at"),
        _code("sandbox.refreshed", "{actor} extended the sandbox {object}.", fields="timeout_ms end_at"),
        _code("sandbox.pausing", "{actor} paused the sandbox {object}.", fields="reason"),
        _code("sandbox.resuming", "{actor} resumed the sandbox {object}.", fields="timeout_ms reason"),
        _code(
            "sandbox.network_changed",
            "{actor} changed what the sandbox {object} may reach.",
            "notice",
            "policy version reason injects",
        ),
        _code("sandbox.killed", "{actor} killed the sandbox {object}.", fields="reason"),
        _code(
            "sandbox.denied",
            "{actor} asked for the sandbox {object}, which never was its tenant's.",
            "warning",
        ),
        _code("sandbox.lost", "The sandbox {object} is gone from its node.", "warning", "reason node"),
        _code(
            "execution.started",
            "{actor} began the execution {object}.",
            fields="language template tier requested_tier floor score timeout_ms",
        ),
        _code(
            "execution.ended",
            "The execution {object} ended.",
            fields="state sandbox exit_code duration_ms truncated reason",
        ),
        _code(
            "execution.refused",
            "{actor} asked for code that was not run.",
            "warning",
            "language rules threshold tier",
        ),
        _code("template.registered", "{actor} registered a build of the template {object}.", "notice", "build"),
        _code("node.registered", "The node {object} registered.", "notice", "boot_id version capacity"),
        _code("node.lost", "The node {object} does not answer.", "critical", "reason"),
        _code("node.returned", "The node {object} answers again.", "notice"),
        # sandboxes, as their node saw it
        _code("sandbox.started", "The sandbox {object} started.", fields="duration_ms tier"),
        _code("sandbox.paused", "The sandbox {object} is paused.", fields="reason"),
        _code("sandbox.resumed", "The sandbox {object} goes on."),
        _code("sandbox.ended", "The sandbox {object} ended.", fields="reason"),
        _code(
            "sandbox.quarantined",
            "The sandbox {object} was not what its tier promises.",
            "critical",
            "mismatches",
        ),
        _code("limit.memory", "The sandbox {object} met its memory limit.", "warning", "oom_kills memory_mib"),
        _code("limit.pids", "The sandbox {object} met its process limit.", "warning", "pids pids_refused"),
        _code("spool.overflow", "Acts of {object} were refused: its event spool is full.", "critical", "dropped"),
        _code("spool.malformed", "A node sent an event that could not be read.", "critical", "event"),
        # the way out
        _code("egress.denied", "{object} was refused a way out.", "warning", _FLOW),
        _code("egress.dns_denied", "{object} was refused a name.", "warning", _FLOW),
        _code("egress.opened", "{object} keeps a connection open.", fields=_FLOW),
        _code("egress.closed", "A connection of {object} ended.", fields=_FLOW),
        # scoped tokens
        _code(
            "token.issued",
            "{actor} issued the scoped token {object}.",
            "notice",
            "service secret_name calls params max_uses starts_at expires_at purpose",
        ),
        _code(
            "token.redeemed",
            "The scoped token {object} was used.",
            fields=f"{_CALL} bytes_in bytes_out usage microusd duration_ms",
        ),
        _code("token.refused", "A use of {object} was refused.", "warning", f"{_CALL} issued_for unwritten"),
        _code(
            "token.reused", "The one-time token {object} was used again.", "critical", f"{_CALL} issued_for unwritten"
        ),
        _code("token.revoked", "{actor} revoked the scoped token {object}.", "notice", "service secret_name"),
        _code("token.voided", "Scoped tokens of {object} ended with it.", "notice", "count"),
        _code("secret.reflected", "A service sent back the secret that {object} is for.", "critical", _CALL),
        # what is put into requests on their way out
        _code("secret.injected", "A request of {object} got a secret on its way out.", fields=_INJECTED),
        _code("secret.inject_refused", "{object} asked for a secret in vain.", "warning", f"{_INJECTED} unwritten"),
        _code(
            "secret.exfil_attempt",
            "{object} sent a secret's placeholder where that secret is not for.",
            "critical",
            f"{_FLOW} secret_name place",
        ),
        _code("identity.minted", "A request of {object} got a workload identity token.", fields=_MINTED),
        _code("identity.rotated", "{actor} made the key {object} for identities.", "warning", "signs_from withdrawn"),
        _code("service.created", "{actor} created the service {object}.", "warning", _SERVICE),
        _code("service.changed", "{actor} changed the service {object}.", "warning", "before after"),
        _code("service.deleted", "{actor} deleted the service {object}.", "warning", _SERVICE),
        # the data plane
        _code("command.start", "{actor} started a command in {object}.", fields="pty pid exit_code signal error"),
        _code("command.connect", "{actor} attached to a command in {object}.", fields="pid exit_code error"),
        _code("command.input", "{actor} sent input to a command in {object}.", fields="pid error"),
        _code("command.signal", "{actor} sent a signal in {object}.", fields="pid signal error"),
        _code("command.list", "{actor} listed the commands of {object}.", fields="error"),
        _code("command.update", "{actor} resized a terminal in {object}.", fields="pid error"),
        _code("file.read", "{actor} read a file in {object}.", fields="size error"),
        _code("file.write", "{actor} wrote a file in {object}.", fields="size error"),
        _code("file.list", "{actor} listed a folder in {object}.", fields="error"),
        _code("file.stat", "{actor} looked at a file in {object}.", fields="error"),
        _code("file.mkdir", "{actor} made a folder in {object}.", fields="error"),
        _code("file.move", "{actor} moved a file in {object}.", fields="error"),
        _code("file.remove", "{actor} removed a file in {object}.", fields="error"),
        _code("file.watch", "{actor} watched a folder in {object}.", fields="error"),
        _code("port.connect", "{actor} reached a port of {object}.", fields="port method status error"),
    )
}


def get(code: str) -> Code:
    """Return a code. Raises UnknownCodeError."""
    try:
        return _CODES[code]
    except KeyError:
        raise UnknownCodeError(f"the event code {code!r} is not registered") from None


def severity_of(code: str, reason: str = "") -> Severity:
    """Return how grave an event is: some are by why they happened."""
    if (code, reason) in _GRAVE:
        return "critical"
    return get(code).severity if known(code) else "info"


def sentence(code: str, *, actor: str, target: str) -> str:
    """Return what happened as one sentence; of a code that nobody knows, the code."""
    if not known(code):
        return code
    named = {"actor": actor, "object": target}
    return _NAME.sub(lambda match: named[match[1]], get(code).sentence)


def known(code: str) -> bool:
    """Say whether a code is registered."""
    return code in _CODES


def all_codes() -> list[Code]:
    """Return all codes, sorted."""
    return [_CODES[code] for code in sorted(_CODES)]


def check_details(code: str, details: dict[str, object]) -> None:
    """Raise UnknownCodeError when details hold a name that the code does not declare."""
    if extra := set(details) - get(code).fields:
        raise UnknownCodeError(f"the event code {code!r} has no detail {sorted(extra)[0]!r}")
