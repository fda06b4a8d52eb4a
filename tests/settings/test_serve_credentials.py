"""What egress asks web for, for one request of a sandbox: a real server, a real vault, callers by their uid."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from audit.models import Event
from gatehouse import listeners
from sandboxes import credentials
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tenants.broker import flooding
from tenants.secrets import actions as secret_actions
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import alice, base, mallory, node
from tests.webserver import Web

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.secretmodels import Secret
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

__all__ = ["alice", "base", "mallory", "node"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("base", "node")]

HOST = "api.example.com"
VALUE = "sk-alices-own-value-0001"
AWS = {"audience": "sts.amazonaws.com", "tokenType": "JWT-SVID"}
RULES = {HOST: [{"transform": {"headers": {"Authorization": "Bearer ${e2b.secrets.key}", "X-Team": "red"}}}]}


@pytest.fixture
def web(node: NodeDouble, settings: Any) -> Iterator[Web]:
    """Web as `manage.py serve` runs it."""
    running = Web(settings.GATEHOUSE)
    yield running
    running.stop()


@pytest.fixture
def key(alice: Caller) -> Secret:
    """Alice's secret `key`."""
    return secret_actions.create_secret(actor=alice.actor, tenant=alice.tenant, name="key", value=VALUE)


def ask(web: Web, sandbox_id: str, **body: object) -> tuple[int, Any]:
    asked = {"generation": 1, "host": HOST, "method": "POST", "path": "/v1/x?q=1", "rule_host": HOST, "scheme": "https"}
    return web.ask(f"/internal/v1/sandboxes/{sandbox_id}/credentials", asked | body)


def made(who: Caller, rules: Any = RULES, **more: object) -> str:
    return str(who.create(network={"rules": rules}, **more)["sandboxID"])


def placeholder(sandbox_id: str) -> str:
    return str(Sandbox.everywhere().get(pk=sandbox_id).placeholders[0]["value"])


def with_placeholder(who: Caller, **more: object) -> str:
    body = {"secrets": {"API_KEY": {"secret": "key", "hosts": [HOST]}}} | more
    answer = who.call("POST", "/api/v1/sandboxes", body)
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


# --- what is given


@pytest.mark.usefixtures("key")
def test_a_rule_is_filled_in(web: Web, alice: Caller) -> None:
    sandbox_id = made(alice)

    assert ask(web, sandbox_id) == (
        200,
        {"set": [["Authorization", f"Bearer {VALUE}"], ["X-Team", "red"]], "swap": [], "needles": [VALUE]},
    )
    event = Event.objects.get(code="secret.injected")
    assert (event.tenant_id, event.sandbox_id, event.generation) == (alice.tenant.pk, sandbox_id, 1)
    assert (event.actor_id, event.host, event.outcome) == ("egress", HOST, "ok")
    assert event.details == {"host": HOST, "method": "POST", "path": "/v1/x", "rule": HOST, "names": ["key"]}


@pytest.mark.usefixtures("key")
def test_a_placeholder_is_swapped_for_its_host(web: Web, alice: Caller) -> None:
    sandbox_id = with_placeholder(alice)

    status, granted = ask(web, sandbox_id, rule_host=None)

    assert (status, granted) == (200, {"set": [], "swap": [[placeholder(sandbox_id), VALUE]], "needles": [VALUE]})
    assert Event.objects.get(code="secret.injected").details["names"] == ["key"]


def test_a_new_value_counts_at_once(web: Web, alice: Caller, key: Secret) -> None:
    sandbox_id = made(alice)
    assert ask(web, sandbox_id)[1]["needles"] == [VALUE]

    secret_actions.add_version(actor=alice.actor, secret=key, value="sk-the-next-value-0002")

    assert ask(web, sandbox_id)[1]["needles"] == ["sk-the-next-value-0002"]


def test_an_identity_is_minted_for_each_request(web: Web, alice: Caller) -> None:
    rules = {HOST: [{"transform": {"headers": {"Authorization": "Bearer ${e2b.identity.tokens.aws}"}}}]}
    sandbox_id = made(alice, rules, iam={"tokens": {"aws": AWS}})

    first, second = (ask(web, sandbox_id)[1] for _ in range(2))

    (token,) = first["needles"]
    assert first["set"] == [["Authorization", f"Bearer {token}"]]
    assert second["needles"] != [token]
    claims = jwt.decode(token, options={"verify_signature": False})
    template = Sandbox.everywhere().get(pk=sandbox_id).template_id
    assert claims["sub"] == f"tenant:{alice.tenant.pk.hex}:template:{template}:sandbox:{sandbox_id}"
    assert claims["aud"] == "sts.amazonaws.com"
    events = list(Event.objects.filter(code="identity.minted").order_by("at"))
    assert (events[0].details["jti"], events[0].details["audience"]) == (claims["jti"], "sts.amazonaws.com")
    assert (len(events), events[0].host, events[0].details["name"]) == (2, HOST, "aws")
    assert token not in json.dumps([*Event.objects.values()], default=str)
    assert not Event.objects.filter(code="secret.injected").exists()


@pytest.mark.usefixtures("key")
def test_the_narrowest_rule_counts(web: Web, alice: Caller) -> None:
    rules = {
        "*.example.com": [{"transform": {"headers": {"A": "wide"}}}],
        HOST: [{"transform": {"headers": {"A": "narrow"}}}],
    }
    sandbox_id = made(alice, rules)

    assert ask(web, sandbox_id)[1]["set"] == [["A", "narrow"]]
    assert ask(web, sandbox_id, host="b.example.com", rule_host="*.example.com")[1]["set"] == [["A", "wide"]]
    assert ask(web, sandbox_id, rule_host="*.example.com")[0] == 403


# --- what is not given


def nothing_was_given(web: Web, sandbox_id: str, status: int, **body: object) -> str:
    """Return the error's code; nothing of a value is in the answer, and no event says that it was given."""
    got, answer = ask(web, sandbox_id, **body)
    assert got == status, answer
    assert VALUE not in json.dumps(answer)
    assert not Event.objects.filter(code__in=("secret.injected", "identity.minted")).exists()
    return str(answer["error_code"])


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "body",
    [
        {"rule_host": "b.example.com"},
        {"rule_host": None},
        {"host": "evil.test"},
        {"host": "evil.test", "rule_host": None},
        {"host": "10.0.0.1"},
        {"host": "a b"},
        {"host": "sub.api.example.com"},
    ],
    ids=str,
)
def test_no_rule_is_for_another_host(web: Web, alice: Caller, body: dict[str, Any]) -> None:
    sandbox_id = made(alice)

    assert nothing_was_given(web, sandbox_id, 403, **body) == "forbidden"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "body",
    [{"method": "GET"}, {"path": "/v1/y"}, {"path": "/v1/x/../x"}, {"path": "/v1%2fx"}, {"path": "/v1//x"}],
    ids=str,
)
def test_a_rule_is_for_its_methods_and_paths(web: Web, alice: Caller, body: dict[str, Any]) -> None:
    (rule,) = RULES[HOST]
    sandbox_id = made(alice, {HOST: [rule | {"match": {"methods": ["POST"], "paths": ["/v1/x"]}}]})

    assert nothing_was_given(web, sandbox_id, 403, **body) == "forbidden"
    assert ask(web, sandbox_id)[0] == 200


@pytest.mark.usefixtures("key")
def test_a_placeholder_is_for_its_hosts_only(web: Web, alice: Caller) -> None:
    sandbox_id = with_placeholder(alice)

    assert nothing_was_given(web, sandbox_id, 403, host="b.example.com", rule_host=None) == "forbidden"


@pytest.mark.usefixtures("key")
def test_a_placeholder_is_for_what_its_hosts_rule_is_for(web: Web, alice: Caller) -> None:
    sandbox_id = with_placeholder(alice, rules={HOST: [{"match": {"methods": ["POST"], "paths": ["/v1/*"]}}]})

    assert ask(web, sandbox_id, rule_host=None)[1]["swap"] == [[placeholder(sandbox_id), VALUE]]
    for other in ({"method": "DELETE"}, {"path": "/v2/x"}, {"path": "/v1/%252e%252e"}):
        status, said = ask(web, sandbox_id, rule_host=None, **other)
        assert (status, VALUE in str(said)) == (403, False)


def test_an_unknown_secret_is_409_and_an_event(web: Web, alice: Caller) -> None:
    sandbox_id = made(alice)

    assert nothing_was_given(web, sandbox_id, 409) == "secret_missing"

    event = Event.objects.get(code="secret.inject_refused")
    assert (event.outcome, event.reason, event.host) == ("refused", "secret_missing", HOST)
    assert event.details["names"] == ["key"]


def test_refusals_in_a_loop_are_counted_and_not_written_one_by_one(
    web: Web, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flooding, "MOST", 3)
    now = [0.0]
    monkeypatch.setattr(credentials, "_refusals", flooding.Refusals(lambda: now[0]))
    sandbox_id, other = made(alice), made(alice)

    assert {ask(web, sandbox_id)[0] for _ in range(8)} == {409}
    assert ask(web, other)[0] == 409
    assert Event.objects.filter(code="secret.inject_refused", sandbox_id=sandbox_id).count() == 3
    assert Event.objects.filter(code="secret.inject_refused", sandbox_id=other).count() == 1

    now[0] = flooding.WINDOW_S
    assert ask(web, sandbox_id)[0] == 409
    last = Event.objects.filter(code="secret.inject_refused", sandbox_id=sandbox_id).order_by("at").last()
    assert last is not None
    assert last.details["unwritten"] == 5


def test_a_disabled_secret_is_409(web: Web, alice: Caller, key: Secret) -> None:
    sandbox_id = made(alice)
    secret_actions.disable_secret(actor=alice.actor, secret=key)

    assert nothing_was_given(web, sandbox_id, 409) == "secret_missing"


def test_a_secret_of_another_tenant_is_none(web: Web, alice: Caller, mallory: Caller, key: Secret) -> None:
    assert nothing_was_given(web, made(mallory), 409) == "secret_missing"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("generation", [2, 99])
def test_another_generation_is_404(web: Web, alice: Caller, generation: int) -> None:
    assert nothing_was_given(web, made(alice), 404, generation=generation) == "not_found"


@pytest.mark.usefixtures("key")
def test_what_does_not_run_gets_nothing(web: Web, alice: Caller) -> None:
    sandbox_id = made(alice)

    alice.call("POST", f"/sandboxes/{sandbox_id}/pause")
    nothing_was_given(web, sandbox_id, 404)

    alice.call("DELETE", f"/sandboxes/{sandbox_id}")
    nothing_was_given(web, sandbox_id, 404)
    nothing_was_given(web, "i" * 20, 404)


@pytest.mark.usefixtures("key")
def test_what_was_cut_gets_nothing(web: Web, alice: Caller) -> None:
    sandbox_id = made(alice)
    Sandbox.everywhere().filter(pk=sandbox_id).update(network_cut=True)

    nothing_was_given(web, sandbox_id, 404)


@pytest.mark.usefixtures("key")
def test_a_suspended_tenants_sandboxes_get_nothing(web: Web, alice: Caller) -> None:
    sandbox_id = made(alice)
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="suspended")

    nothing_was_given(web, sandbox_id, 404)


@pytest.mark.parametrize(
    "body",
    [
        {"generation": "1"},
        {"host": None},
        {"host": 1},
        {"host": "a" * 256},
        {"method": ""},
        {"method": "X" * 33},
        {"path": None},
        {"rule_host": 1},
    ],
    ids=lambda one: str(one)[:40],
)
def test_it_takes_what_egress_says_and_nothing_else(web: Web, alice: Caller, body: dict[str, Any]) -> None:
    assert nothing_was_given(web, made(alice), 400, **body) == "invalid_input"


# --- who may ask

ASK = """
import http.client, json, os, socket, sys
os.setuid(int(sys.argv[2]))
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
connection = Connection("x")
connection.request("POST", sys.argv[3], json.dumps({"generation": 1, "host": "api.example.com", "method": "POST",
    "path": "/", "rule_host": "api.example.com"}))
print(connection.getresponse().status)
"""


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(("what", "status"), [("credentials", 200), ("resume", 403)])
def test_egress_gets_credentials_and_nothing_else(
    web: Web, alice: Caller, monkeypatch: pytest.MonkeyPatch, what: str, status: int
) -> None:
    assert asked_as(web, made(alice), 41_001, what, monkeypatch, egress=41_001) == status


@pytest.mark.usefixtures("key")
def test_the_gateway_gets_no_credentials(web: Web, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_as(web, made(alice), 41_002, "credentials", monkeypatch, gateway=41_002) == 403
    assert not Event.objects.filter(code="secret.injected").exists()


def asked_as(web: Web, sandbox_id: str, uid: int, what: str, monkeypatch: pytest.MonkeyPatch, **users: int) -> int:
    """Return the status that a process of a uid gets, where the users of our processes have these uids."""
    known = {listeners.EGRESS_USER: users.get("egress"), listeners.GATEWAY_USER: users.get("gateway")}
    monkeypatch.setattr(
        listeners, "welcome_uids", lambda names: {0, *(known[name] for name in names if known.get(name))}
    )
    for path in (web.internal.parent.parent, web.internal.parent):
        path.chmod(0o755)
    web.internal.chmod(0o666)
    target = f"/internal/v1/sandboxes/{sandbox_id}/{what}"
    command = [sys.executable, "-c", ASK, str(web.internal), str(uid), target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return int(done.stdout)
