"""Why a flow was refused: fixed codes, each with a sentence for who reads it."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A code that events, answers of the proxy and the ledger share. It never changes its meaning."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> Reason:
        """Make a member that equals its code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    NO_RULE = "no_rule", "No rule of the sandbox's policy allows this host."
    PORT = "port", "The policy allows this host, but not on this port."
    LITERAL_IP = "literal_ip", "The policy allows names; no rule of it allows this address."
    SNI_MISSING = "sni_missing", "The TLS client did not say which host it wants."
    SNI_MISMATCH = "sni_mismatch", "The TLS client asked for another host than the one that was judged."
    ECH = "ech", "The TLS client encrypts the name of the host that it wants."
    HOST_MISMATCH = "host_mismatch", "The HTTP request names another host than the one that was judged."
    RESOLVED_PRIVATE = "resolved_private", "The host's address is not one of the public internet."
    METADATA = "metadata", "The host is a cloud provider's metadata service."
    RESOLVE_FAILED = "resolve_failed", "The host's name could not be resolved."
    CONNECT_FAILED = "connect_failed", "The host could not be reached."
    TLS_FAILED = "tls_failed", "The TLS connection to the host could not be made."
    NOT_TLS = "not_tls", "The rule allows TLS only, and this is something else."
    NOT_HTTP = "not_http", "The rule allows plain HTTP only, and this is something else."
    BAD_HOST = "bad_host", "This is no host name or address in its usual form, or no port."
    SMUGGLING = "smuggling", "The HTTP request could be read in more than one way."
    UPGRADE = "upgrade", "The rule does not allow to leave HTTP for another protocol."
    LIMIT = "limit", "A limit of the sandbox's policy is reached."
    DNS_DENIED = "dns_denied", "The policy does not let this name be resolved."
    POLICY_CLOSED = "policy_closed", "A new version of the policy no longer allows this flow."
    OPERATOR_DENY = "operator_deny", "The platform's operator denies this host to every sandbox."
    IDENTITY = "identity", "The proxy credentials name another sandbox."
    LOOP = "loop", "The proxy is no destination."
    CANNOT_REWRITE = "cannot_rewrite", "Requests to this host are changed on their way, and this one can't be."
    SECRET_ELSEWHERE = "secret_elsewhere", "A secret's placeholder was sent where that secret is not for."
    SECRET_MISSING = "secret_missing", "A secret that this request needs does not exist, or is disabled."
    SECRETS_UNAVAILABLE = "secrets_unavailable", "The secret that this request needs can't be had at the moment."
    ANSWER_CODED = "answer_coded", "The answer is encoded, so that it can't be searched for the secret that was sent."
    SECRET_REFLECTED = "secret_reflected", "The answer held the secret that was sent."
    EVENTS_FULL = "events_full", "What sandboxes do could not be recorded any more, so nothing new may pass."
