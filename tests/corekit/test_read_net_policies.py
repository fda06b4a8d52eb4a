"""The document of a sandbox's network: read strictly, with the place of what is wrong, and written back the same."""

from __future__ import annotations

from typing import Any

import pytest

from corekit.netrules.entries import RuleError
from corekit.netrules.hosts import Name
from corekit.netrules.policy import NOTHING, Policy

DOCUMENT: dict[str, Any] = {
    "version": 7,
    "layers": [
        {"name": "sandbox", "mode": "deny", "first": "deny", "egress": ["api.openai.com:443", "!x.example:443"]},
        {"name": "tenant", "mode": "allow", "first": "allow", "egress": []},
    ],
    "deny": ["evil.example:1-65535"],
    "private": ["10.20.0.0/16", "fd00:1::/32"],
    "dns": True,
    "via": "proxy.corp.example:3128",
    "egress_proxy": {
        "address": "socks.example:1080",
        "username": "alice",
        "password": "hunter2",
        "tls": {"enabled": True, "serverName": "socks.example", "caCert": None},
    },
    "limits": {"flows": 256, "new_per_s": 50, "bytes_out": None, "idle_s": 300},
    "tls": {"sni": "require", "ech": "deny"},
    "rules": [],
    "placeholders": [],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    import copy

    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def test_what_is_read_is_written_back() -> None:
    policy = Policy.parse(DOCUMENT)
    assert policy.dump() == DOCUMENT
    assert Policy.parse(policy.dump()) == policy
    assert policy.via == (Name("proxy.corp.example"), 3128)
    assert policy.limits.bytes_out is None
    assert [one.name for one in policy.layers] == ["sandbox", "tenant"]


def test_without_a_proxy_there_is_none() -> None:
    policy = Policy.parse(DOCUMENT | {"via": None, "egress_proxy": None})
    assert (policy.via, policy.egress_proxy) == (None, None)
    assert NOTHING.dump()["layers"] == []
    assert Policy.parse(NOTHING.dump()) == NOTHING


def test_e2bs_proxy_needs_only_an_address() -> None:
    policy = Policy.parse(changed("egress_proxy", {"address": "[2606:4700::1]:1080"}))
    assert policy.egress_proxy is not None
    assert (policy.egress_proxy.port, policy.egress_proxy.username, policy.egress_proxy.tls) == (1080, None, False)


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Policy.parse(DOCUMENT))


def test_two_forms_of_one_entry_are_one() -> None:
    policy = Policy.parse(changed("layers.0.egress", ["A.test:443", "a.test.:443", "a.test:443/tls"]))
    assert policy.dump()["layers"][0]["egress"] == ["a.test:443"]


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("version", ..., "version", "It is missing."),
        ("version", "7", "version", "It is a whole number, 0 or more."),
        ("version", True, "version", "It is a whole number, 0 or more."),
        ("surprise", 1, "surprise", "There is no such field."),
        ("layers", {}, "layers", "It is a list of at most 4096."),
        ("layers.0", "deny", "layers[0]", "It is an object."),
        ("layers.0.mode", "open", "layers[0].mode", "It is deny or allow."),
        ("layers.1.first", None, "layers[1].first", "It is deny or allow."),
        ("layers.1.name", 1, "layers[1].name", "It is a text."),
        ("layers.1.egress", ..., "layers[1].egress", "It is missing."),
        ("layers.0.egress.1", 443, "layers[0].egress[1]", "It is a text."),
        (
            "layers.0.egress.1",
            "a.test",
            "layers[0].egress[1]",
            "'a.test' names no port: write it like api.example.com:443.",
        ),
        ("layers.0.egress", ["a.test:1"] * 4097, "layers[0].egress", "It is a list of at most 4096."),
        (
            "deny.0",
            "*:1",
            "deny[0]",
            "A wildcard stands for whole labels at the beginning: write it like *.example.com.",
        ),
        ("private.0", "10.20.0.1/16", "private[0]", "It is a network like 10.20.0.0/16."),
        ("dns", 1, "dns", "It is true or false."),
        ("via", "proxy.corp.example", "via", "'proxy.corp.example' names no port."),
        ("via", ["x"], "via", "It is a text."),
        ("egress_proxy.address", ..., "egress_proxy.address", "It is a text."),
        ("egress_proxy.username", 1, "egress_proxy.username", "It is a text."),
        ("egress_proxy.tls.enabled", "yes", "egress_proxy.tls.enabled", "It is true or false."),
        ("egress_proxy.socks", 4, "egress_proxy.socks", "There is no such field."),
        ("limits.flows", -1, "limits.flows", "It is a whole number, 0 or more."),
        ("limits.more", 1, "limits.more", "There is no such field."),
        ("limits.idle_s", ..., "limits.idle_s", "It is missing."),
        ("tls.sni", "off", "tls.sni", "It is require or log."),
        ("tls.ech", [], "tls.ech", "It is deny or allow."),
    ],
)
def test_a_document_that_cannot_be_obeyed(path: str, value: Any, field: str, message: str) -> None:
    with pytest.raises(RuleError) as error:
        Policy.parse(changed(path, value))
    assert (error.value.field, str(error.value)) == (field, message)


@pytest.mark.parametrize("document", [None, [], "deny", 1, {}])
def test_no_document(document: object) -> None:
    with pytest.raises(RuleError):
        Policy.parse(document)
