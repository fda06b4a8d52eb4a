"""Host, headers and path decide where a request goes, exactly as the E2B clients expect."""

from __future__ import annotations

import pytest

from sandboxes.gateway.routing import (
    CONTROL_PLANE,
    SIGNED_FILE,
    Destination,
    Refused,
    ToSandbox,
    destination,
)

Headers = dict[str, str]


def go(host: str, target: str = "/", method: str = "GET", **headers: str) -> Destination:
    """Route one request."""
    fields = [(b"Host", host.encode())]
    fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return destination(method=method, target=target, headers=fields, domain="gate.example")


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "sandbox.gate.example", "gate.example"],
)
def test_it_follows_routing_headers_on_hosts_that_may_carry_them(host: str) -> None:
    assert go(host, E2b_Sandbox_Id="iabc", E2b_Sandbox_Port="49983") == ToSandbox("iabc", 49983, shared_host=True)


@pytest.mark.parametrize("host", ["console.gate.example", "api.other.example", "evil-sandbox.example"])
def test_it_ignores_routing_headers_on_other_hosts(host: str) -> None:
    assert go(host, E2b_Sandbox_Id="iabc", E2b_Sandbox_Port="49983") == CONTROL_PLANE


def test_the_host_label_wins_over_headers_on_a_sandbox_host() -> None:
    assert go("3000-iabc.gate.example", E2b_Sandbox_Id="iother", E2b_Sandbox_Port="49983") == ToSandbox(
        "iabc", 3000, shared_host=False
    )


def test_header_names_match_in_any_case() -> None:
    fields = [(b"host", b"localhost"), (b"e2b-sandbox-id", b"iabc"), (b"E2B-SANDBOX-PORT", b"8080")]

    assert destination(method="GET", target="/", headers=fields, domain="") == ToSandbox("iabc", 8080, shared_host=True)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("49983-iabc.gate.example", 49983),
        ("49983-iabc-00000000.gate.example:8443", 49983),
        ("3000-iabc.localhost:8000", 3000),
        ("3000-IABC.gate.example", 3000),
    ],
)
def test_it_reads_port_and_sandbox_from_the_first_label(host: str, port: int) -> None:
    assert go(host) == ToSandbox("iabc", port, shared_host=False)


def test_it_takes_the_old_form_of_an_id() -> None:
    assert go("localhost", E2b_Sandbox_Id="iabc-12ab", E2b_Sandbox_Port="49983") == ToSandbox(
        "iabc", 49983, shared_host=True
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_takes_a_signed_file_url_without_a_sandbox(method: str) -> None:
    assert go("localhost", "/files?path=a&signature=v1_x", method) == SIGNED_FILE


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/files?path=a", {}),
        ("/files?path=a&signature=v1_x", {"X_API_KEY": "e2b_x"}),
        ("/files/compose?signature=v1_x", {}),
        ("/sandboxes", {}),
        ("/health", {}),
        ("/", {}),
    ],
)
def test_everything_else_goes_to_the_control_plane(target: str, headers: Headers) -> None:
    assert go("localhost", target, **headers) == CONTROL_PLANE


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"E2b_Sandbox_Id": "iabc"}, "The header E2b-Sandbox-Port is missing"),
        ({"E2b_Sandbox_Port": "80"}, "The header E2b-Sandbox-Id is missing"),
        ({"E2b_Sandbox_Id": "../x", "E2b_Sandbox_Port": "80"}, "The sandbox id is not valid"),
        ({"E2b_Sandbox_Id": "", "E2b_Sandbox_Port": "80"}, "The sandbox id is not valid"),
        ({"E2b_Sandbox_Id": "i" * 65, "E2b_Sandbox_Port": "80"}, "The sandbox id is not valid"),
        ({"E2b_Sandbox_Id": "iabc", "E2b_Sandbox_Port": "0"}, "The sandbox port is not valid"),
        ({"E2b_Sandbox_Id": "iabc", "E2b_Sandbox_Port": "65536"}, "The sandbox port is not valid"),
        ({"E2b_Sandbox_Id": "iabc", "E2b_Sandbox_Port": "٣"}, "The sandbox port is not valid"),
        ({"E2b_Sandbox_Id": "iabc", "E2b_Sandbox_Port": "-1"}, "The sandbox port is not valid"),
    ],
)
def test_it_refuses_incomplete_and_bad_headers(headers: Headers, reason: str) -> None:
    assert go("localhost", **headers) == Refused(reason)


@pytest.mark.parametrize("name", [b"Host", b"E2b-Sandbox-Id", b"E2b-Sandbox-Port"])
def test_it_refuses_a_repeated_field(name: bytes) -> None:
    fields = [(b"Host", b"localhost"), (b"E2b-Sandbox-Id", b"iabc"), (b"E2b-Sandbox-Port", b"80")]

    going = destination(method="GET", target="/", headers=[*fields, (name, b"localhost")], domain="")

    assert isinstance(going, Refused)


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "user@host", "host:99999", "host:", "[::1", "a?b", "x" * 400, "ü.example", "a<b", 'a"b']
)
def test_it_refuses_a_bad_host(host: str) -> None:
    assert isinstance(go(host), Refused)


@pytest.mark.parametrize("host", ["0-iabc.gate.example", "99999999-iabc.gate.example"])
def test_it_refuses_a_bad_port_in_the_label(host: str) -> None:
    assert go(host) == Refused("The sandbox port is not valid")


@pytest.mark.parametrize("host", ["8080-iabc_x.gate.example", "8080-.gate.example", "8080-i%61bc.gate.example"])
def test_it_refuses_a_bad_id_in_the_label(host: str) -> None:
    assert go(host) == Refused("The sandbox id is not valid")


def test_a_proxys_word_about_the_host_does_not_count() -> None:
    assert go("localhost", X_Forwarded_Host="8080-iabc.gate.example") == CONTROL_PLANE
    assert go("8080-iabc.gate.example", X_Forwarded_Host="8080-iother.gate.example") == ToSandbox(
        "iabc", 8080, shared_host=False
    )


@pytest.mark.parametrize("target", ["http://elsewhere/", "elsewhere:443", "*", "", "/a#b"])
def test_it_refuses_a_target_that_is_no_path(target: str) -> None:
    assert go("localhost", target) == Refused("The request target must be a path")


def test_it_refuses_a_request_without_a_host() -> None:
    assert isinstance(destination(method="GET", target="/", headers=[], domain=""), Refused)
