"""Header rules and placeholders of a sandbox's document: which one counts for a request, and what can't be one."""

from __future__ import annotations

from typing import Any

import pytest

from corekit.netrules.entries import RuleError
from corekit.netrules.headerrules import Named, Template
from corekit.netrules.hosts import Name, canonical
from corekit.netrules.policy import NOTHING, Policy

RULE: dict[str, Any] = {
    "host": "api.example.com",
    "set": {"Authorization": "Bearer ${secrets.key}"},
    "methods": None,
    "paths": None,
}
PLACEHOLDER: dict[str, Any] = {
    "secret": "openai-key",
    "value": "sbxph_4f2a9c0d1e8b7a65",
    "hosts": ["api.openai.com", "*.openai.example"],
    "slots": ["header", "basic"],
}


def policy(*rules: dict[str, Any], placeholders: tuple[dict[str, Any], ...] = ()) -> Policy:
    return Policy.parse(NOTHING.dump() | {"rules": list(rules), "placeholders": list(placeholders)})


def test_what_is_read_is_written_back() -> None:
    narrow = {"host": "*.example.com", "set": {}, "methods": ["POST", "PUT"], "paths": ["/v1/*", "/files/**"]}
    read = policy(RULE, narrow, placeholders=(PLACEHOLDER,))
    assert read.dump()["rules"] == [RULE, narrow]
    assert read.dump()["placeholders"] == [PLACEHOLDER]
    assert Policy.parse(read.dump()) == read


def test_a_placeholder_is_not_shown() -> None:
    assert PLACEHOLDER["value"] not in repr(policy(placeholders=(PLACEHOLDER,)))


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (b"api.example.com", "exact"),
        (b"API.Example.COM.", "exact"),
        (b"www.example.com", "*.example.com"),
        (b"a.eu.example.com", "*.eu.example.com"),
        (b"eu.example.com", "*.example.com"),
        (b"example.com", None),
        (b"badexample.com", None),
        (b"192.0.2.1", None),
    ],
)
def test_the_narrowest_rule_counts_alone(host: bytes, said: str | None) -> None:
    named = {"*.example.com": "*.example.com", "api.example.com": "exact", "*.eu.example.com": "*.eu.example.com"}
    rules = policy(*({**RULE, "host": name, "set": {"X-Rule": text}} for name, text in named.items()))
    rule = rules.rule_for(canonical(host))
    assert (None if rule is None else rule.headers[0][1].text) == said


def test_hosts_of_rules_and_placeholders_are_bound() -> None:
    bound = policy(RULE, {**RULE, "host": "idle.example.com", "set": {}}, placeholders=(PLACEHOLDER,))
    assert bound.bound == ("*.openai.example", "api.example.com", "api.openai.com")
    assert bound.binds(Name("api.example.com"))
    assert bound.binds(Name("eu.openai.example"))
    assert not bound.binds(Name("openai.example"))
    # A rule that sets nothing changes nothing.
    assert not bound.binds(Name("idle.example.com"))
    assert bound.placeholders_for(Name("api.openai.com"))[0].secret == "openai-key"
    assert bound.placeholders_for(Name("api.example.com")) == ()
    assert (NOTHING.bound, NOTHING.binds(Name("api.example.com"))) == ((), False)


@pytest.mark.parametrize(
    ("paths", "path", "fits"),
    [
        (["/v1/*"], b"/v1/chat", True),
        (["/v1/*"], b"/v1/chat?stream=1", True),
        (["/v1/*"], b"/v1/", False),
        (["/v1/*"], b"/v1/chat/completions", False),
        (["/v1/*"], b"/v2/chat", False),
        (["/v1/**"], b"/v1/chat/completions", True),
        (["/v1/**"], b"/v1", False),
        (["/**"], b"/anything/at/all", True),
        (["/a", "/b"], b"/b", True),
        (["/"], b"/", True),
        (["/v1/**"], b"/v1/../admin", False),
        (["/v1/**"], b"/v1/%2e%2E/admin", False),
        (["/v1/**"], b"/v1/a%2fb", False),
        (["/v1/**"], b"/v1//admin", False),
        (["/v1/**"], b"/v1/a;b", False),
        (["/v1/**"], b"/v1\\admin", False),
        (["/v1/**"], b"*", False),
    ],
)
def test_a_rule_is_for_its_paths(paths: list[str], path: bytes, fits: bool) -> None:  # noqa: FBT001
    rule = policy({**RULE, "paths": paths}).rules[0]
    assert rule.fits("POST", path) is fits


def test_a_rule_is_for_its_methods() -> None:
    rule = policy({**RULE, "methods": ["POST"]}).rules[0]
    assert [rule.fits(method, b"/") for method in ("POST", "GET", "post")] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Bearer ${secrets.Key}", ("Bearer ", Named("secret", "key"))),
        ("${e2b.secrets.a}:${secrets.b}", (Named("secret", "a"), ":", Named("secret", "b"))),
        ("${identity.db}", (Named("identity", "db"),)),
        ("${e2b.identity.tokens.My api}", (Named("identity", "My api"),)),
        ("plain ${HOME} $ {} }", ("plain ${HOME} $ {} }",)),
        ("", ()),
    ],
)
def test_a_template_names_what_it_stands_for(text: str, parts: tuple[object, ...]) -> None:
    template = Template.parse(text)
    assert template.parts == parts
    assert template.render(lambda named: f"<{named.name}>").count("<") == len(template.named)


@pytest.mark.parametrize(
    "text",
    [
        "Bearer ${secrets.key",
        "${secrets.}",
        "${secrets.a b}",
        "${secrets.${secrets.a}}",
        "${e2b.secrets.a/b}",
        "${identity.}",
        "${identity.a{b}",
    ],
)
def test_a_template_that_names_nothing(text: str) -> None:
    with pytest.raises(RuleError, match="It names nothing"):
        Template.parse(text)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"host": 1}, "rules[0].host", "'' is no host name."),
        ({"host": "*.com"}, "rules[0].host", "It is a name like api.example.com, or all below one like *.example.com."),
        (
            {"host": "192.0.2.1"},
            "rules[0].host",
            "It is a name like api.example.com, or all below one like *.example.com.",
        ),
        ({"host": "a.*.example.com"}, "rules[0].host", "'a.*.example.com' is no host name."),
        ({"set": []}, "rules[0].set", "It is an object of at most 20 headers."),
        ({"set": {f"X-{n}": "" for n in range(21)}}, "rules[0].set", "It is an object of at most 20 headers."),
        ({"set": {"X-A": "1", "x-a": "2"}}, "rules[0].set", "It names a header twice."),
        ({"set": {"X A": "1"}}, "rules[0].set", "'X A' is no name of a header."),
        ({"set": {"Host": "evil.example"}}, "rules[0].set", "Host is not a rule's to set."),
        ({"set": {"content-length": "0"}}, "rules[0].set", "content-length is not a rule's to set."),
        ({"set": {"Gatehouse-Sandbox-Id": "x"}}, "rules[0].set", "Gatehouse-Sandbox-Id is not a rule's to set."),
        (
            {"set": {"X-A": "a\r\nHost: b"}},
            "rules[0].set.X-A",
            "It is a text of at most 2048 printable ASCII characters.",
        ),
        ({"set": {"X-A": "a" * 2049}}, "rules[0].set.X-A", "It is a text of at most 2048 printable ASCII characters."),
        (
            {"set": {"X-A": "${secrets."}},
            "rules[0].set.X-A",
            "It names nothing: write ${secrets.NAME} or ${identity.NAME}.",
        ),
        ({"methods": []}, "rules[0].methods", "It is null or a list of 1 to 32."),
        ({"methods": ["post"]}, "rules[0].methods[0]", "It is a method like POST."),
        ({"paths": "/v1"}, "rules[0].paths", "It is null or a list of 1 to 32."),
        ({"more": 1}, "rules[0].more", "There is no such field."),
    ],
)
def test_a_rule_that_cannot_be_obeyed(change: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(RuleError) as error:
        policy(RULE | change)
    assert (error.value.field, str(error.value)) == (field, message)


@pytest.mark.parametrize("path", ["v1", "/v1/**/x", "/v1/a*", "/../a", "/a//b", "/a%2fb", "/a b", "/a?b"])
def test_a_path_that_could_be_read_in_two_ways(path: str) -> None:
    with pytest.raises(RuleError) as error:
        policy({**RULE, "paths": ["/", path]})
    assert error.value.field == "rules[0].paths[1]"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"secret": "a b"}, "placeholders[0].secret", "It is a secret's name."),
        ({"value": "short"}, "placeholders[0].value", "It is 16 to 256 letters, digits, - or _."),
        ({"value": "sbxph_with a space in it"}, "placeholders[0].value", "It is 16 to 256 letters, digits, - or _."),
        ({"hosts": []}, "placeholders[0].hosts", "It is a list of 1 to 32 hosts."),
        ({"hosts": ["api.openai.com:443"]}, "placeholders[0].hosts[0]", "'api.openai.com:443' is no host name."),
        ({"slots": ["body"]}, "placeholders[0].slots", "It is a list of header or basic."),
        ({"slots": []}, "placeholders[0].slots", "It is a list of header or basic."),
    ],
)
def test_a_placeholder_that_cannot_be_obeyed(change: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(RuleError) as error:
        policy(placeholders=(PLACEHOLDER | change,))
    assert (error.value.field, str(error.value)) == (field, message)


def test_two_rules_for_one_host() -> None:
    with pytest.raises(RuleError) as error:
        policy(RULE, {**RULE, "host": "API.example.com."})
    assert error.value.field == "rules[1].host"


@pytest.mark.parametrize("value", [PLACEHOLDER["value"], PLACEHOLDER["value"] + "_more"])
def test_two_placeholders_that_look_alike(value: str) -> None:
    with pytest.raises(RuleError) as error:
        policy(placeholders=(PLACEHOLDER, {**PLACEHOLDER, "value": value}))
    assert error.value.field == "placeholders[0].value"
