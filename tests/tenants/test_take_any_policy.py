"""Whatever is sent as a policy, or as a host to try, is answered with what is wrong with it, never with a failure."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corekit.errors import InvalidInput
from corekit.netrules.policy import Policy
from tenants.networks import checking, specs
from tenants.networks.presets import CLOSED

# How long a machine takes to think something up says nothing of us.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = sorted({*CLOSED, "egres"} - {"written"})
TEXTS = st.text(alphabet=st.characters(codec=None)) | st.sampled_from(
    ["a.example:443", "!*.a.example:1-9/tcp", "[::1]:80", "@python", "proxy.internal:8080", "\ud800.example:1", "\x00"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ODD = st.sampled_from(["\ud800:1", "a\ud800.example:3128", "ä:1", "[::1]:1", "x", "a.example:3128"])
LIMITS = st.dictionaries(st.sampled_from(["flows", "idle_s", "sni", "ech"]), JSON, max_size=3)
BODIES = st.dictionaries(st.sampled_from(NAMES), JSON | st.lists(TEXTS, max_size=6) | LIMITS | ODD, max_size=5)
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "layers": [{"name": "sandbox", "mode": "allow", "first": "deny", "egress": []}],
    "deny": [],
    "private": [],
    "dns": True,
    "via": None,
    "egress_proxy": None,
    "limits": {"flows": None, "new_per_s": None, "bytes_out": None, "idle_s": None},
    "tls": {"sni": "require", "ech": "deny"},
    "rules": [],
    "placeholders": [],
}


@PATIENT
@given(BODIES, st.booleans())
def test_any_body_is_a_spec_or_named_problems(body: dict[str, Any], operator: bool) -> None:  # noqa: FBT001
    checked = specs.check_spec(body, bundles={"python"}, filled=(), operator=operator)

    assert set(checked.spec) == set(CLOSED)
    for problem in checked.problems:
        assert problem.field.partition("[")[0].partition(".")[0] in {*NAMES}
        assert problem.message
    if not checked.problems:
        egress = [entry for entry in checked.spec["egress"] if not entry.startswith("@")]
        layer = {"name": "sandbox", "mode": checked.spec["mode"], "first": "deny", "egress": egress}
        assert Policy.parse({**DOCUMENT, "layers": [layer], "via": checked.spec["via"]}).layers[0].mode in specs.MODES


@PATIENT
@given(TEXTS, st.integers(1, 65_535))
def test_any_host_gets_an_answer(host: str, port: int) -> None:
    answer = checking.try_host(DOCUMENT, host, port)

    assert answer.allowed or answer.reason


@PATIENT
@given(st.lists(JSON, max_size=4), st.booleans())
def test_any_list_of_an_operator_is_taken_or_refused(entries: list[Any], deny: bool) -> None:  # noqa: FBT001
    field: str | None = "deny"
    try:
        found = specs.parse_entries(entries, field="deny", deny=deny)
    except InvalidInput as error:
        found, field = [], error.field
    assert field is not None
    assert all(isinstance(entry, str) for entry in found)
