"""The test internet has what tests need, and remembers all that reached it: else silence would prove nothing."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import dns.message
import dns.query
import pytest

from tests.internet.capture import Packet
from tests.internet.fixtures import internet, one_internet
from tests.internet.names import Question
from tests.internet.namespaces import EGRESS_ADDRESS, inside
from tests.internet.sites import GREETING
from tests.internet.world import API, DB, EVIL, PLAIN, RESOLVER

if TYPE_CHECKING:
    from tests.internet.world import Internet

__all__ = ["internet", "one_internet"]


def get(internet: Internet, address: str, request: bytes) -> bytes:
    with internet.connect(address, 80) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def resolve(internet: Internet, name: str, server: str = RESOLVER) -> list[str]:
    query = dns.message.make_query(name, "A")
    answer = inside(internet.netns, lambda: dns.query.udp(query, server, timeout=5))
    return [record.address for found in answer.answer for record in found]


def test_names_have_addresses_and_questions_are_remembered(internet: Internet) -> None:
    assert resolve(internet, "api.allowed.test") == [API]
    assert resolve(internet, "a.b.wild.allowed.test", "8.8.8.8") == ["45.79.1.12"]
    assert resolve(internet, "nowhere.example") == []
    assert internet.zone.questions == [
        Question("api.allowed.test", "A", "udp"),
        Question("a.b.wild.allowed.test", "A", "udp"),
        Question("nowhere.example", "A", "udp"),
    ]


def test_a_script_rebinds_a_name(internet: Internet) -> None:
    internet.zone.scripts["api.allowed.test"] = lambda asked: [("A", API if asked == 0 else "127.0.0.1")]
    assert [resolve(internet, "api.allowed.test") for _ in range(2)] == [[API], ["127.0.0.1"]]


def test_an_alias_leads_inside(internet: Internet) -> None:
    internet.zone.alias("api.allowed.test", "localhost")
    query = dns.message.make_query("api.allowed.test", "A")
    answer = inside(internet.netns, lambda: dns.query.tcp(query, RESOLVER, timeout=5))
    assert [str(record) for found in answer.answer for record in found] == ["localhost.", "127.0.0.1"]


def test_every_address_serves_http(internet: Internet) -> None:
    request = b"GET /hello HTTP/1.1\r\nHost: plain.allowed.test\r\nConnection: close\r\n\r\n"
    for address in (PLAIN, "10.0.0.5", "169.254.169.254"):
        assert get(internet, address, request).endswith(b"served plain.allowed.test/hello\n")
        (connection,) = internet.sites.at(address)
        assert connection.received == request
        assert [one.target for one in connection.requests] == ["/hello"]


def test_the_host_of_egress_serves_too(internet: Internet) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for address in ("127.0.0.1", EGRESS_ADDRESS):
        assert b"served" in get(internet, address, request)
        assert len(internet.own.at(address)) == 1
    assert internet.sites.connections == []


def test_a_connection_is_kept_for_more_requests(internet: Internet) -> None:
    first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = get(internet, PLAIN, first + b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n")
    assert answer.count(b"200 Said") == 2
    assert [(one.target, one.headers["host"]) for one in internet.sites.requests()] == [("/1", "a"), ("/2", "b")]


def test_a_request_is_sent_elsewhere(internet: Internet) -> None:
    answer = get(internet, PLAIN, b"GET /redirect?to=https%3A%2F%2Fevil.test%2F HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"302 Said" in answer
    assert b"Location: https://evil.test/\r\n" in answer


def test_tls_has_a_certificate_for_the_name_asked_for(internet: Internet) -> None:
    context = ssl.create_default_context(cafile=str(internet.authority.file))
    with context.wrap_socket(internet.connect(EVIL, 443), server_hostname="evil.test") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    (connection,) = internet.sites.at(EVIL, 443)
    assert connection.sni == "evil.test"
    assert connection.requests[0].headers["host"] == "other.test"


def test_the_database_speaks_first(internet: Internet) -> None:
    with internet.connect(DB, 5432) as client:
        assert client.recv(100) == GREETING
        client.sendall(b"select 1")
        assert client.recv(100) == b"select 1"
    internet.wait(lambda: internet.sites.at(DB)[0].closed)
    assert internet.sites.at(DB)[0].received == b"select 1"


def test_packets_are_seen_though_nobody_listens(internet: Internet) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"quic", ("8.8.8.8", 443))

    inside(internet.netns, send)
    internet.wait(lambda: internet.packets)
    assert Packet("udp", "8.8.8.8", 443, b"quic") in internet.packets
    with pytest.raises(ConnectionRefusedError):
        internet.connect("1.2.3.4", 25)
    assert Packet("tcp", "1.2.3.4", 25) in internet.packets


def test_a_test_starts_with_nothing_recorded(internet: Internet) -> None:
    resolve(internet, "api.allowed.test")
    internet.zone.address("api.allowed.test", "10.0.0.1")
    internet.reset()
    assert (internet.zone.questions, internet.packets, internet.sites.connections) == ([], [], [])
    assert resolve(internet, "api.allowed.test") == [API]
