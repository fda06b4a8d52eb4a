"""What a connection of a sandbox asks for, and what it gets."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from corekit.netrules.decide import may_resolve
from corekit.netrules.hosts import BadHost, Name, canonical
from corekit.netrules.reasons import Reason
from sandboxes.egress import forward, intercept, placeholders
from sandboxes.egress.clienthello import BadName, Hello, NotTls, looks_like_tls, read_hello
from sandboxes.egress.dial import Route, dial, find_route
from sandboxes.egress.events import Fact
from sandboxes.egress.head import Request, parse, read_head
from sandboxes.egress.passage import Passage, forbidden, speaks
from sandboxes.egress.pump import pass_everything
from sandboxes.egress.refusals import Refused, answer, refusal_of
from sandboxes.egress.target import BROKER_NAME, PROXY_NAME, Target, name_asked, of_authority, of_connect

if TYPE_CHECKING:
    from corekit.netrules.hosts import Host
    from sandboxes.egress.flow import Flow

_GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_KNOWN = b"HTTP/1.1 204 No Content\r\n\r\n"
_TRANSPARENT = b"transparent"
_DNS_PORT = 53
_METHOD = re.compile(rb"[A-Z]+(?: |\Z)")
_LONGEST_METHOD = 17
# No name is longer; what is said in its place may be.
_LONGEST_SHOWN = 253


async def serve(flow: Flow) -> str:
    """Serve one connection; return how it ended. Raises Refused, and Gone when an end breaks away."""
    limits = flow.services.settings.limits
    flow.allow(limits.head_seconds)
    while (head := await read_head(flow.client, limits.head)) is not None:
        flow.run_on()
        request = parse(head)
        _check_identity(flow, request)
        if request.method == b"CONNECT":
            return await _connect(flow, request)
        host = name_asked(request.target)
        if host is None:
            return await forward.serve_requests(flow, request, None)
        flow.via, flow.asked = "dns", Target(host, _DNS_PORT)
        placeholders.forbid(flow, request.head)
        await _answer_name(flow, host)
        if not await flow.next_begins():
            break
        flow.allow(limits.head_seconds)
    return "done"


def _check_identity(flow: Flow, request: Request) -> None:
    """The socket says who asks. Credentials can only agree: a name in them that is another one's is an attempt."""
    said = request.value(b"proxy-authorization")
    if said is None:
        return
    scheme, _, encoded = said.partition(b" ")
    try:
        user = base64.b64decode(encoded.strip(), validate=True).partition(b":")[0]
    except binascii.Error:
        user = b""
    if scheme.lower() != b"basic" or user != flow.sandbox.id.encode():
        raise Refused(Reason.IDENTITY)


async def _answer_name(flow: Flow, host: Host) -> None:
    """Tell the guest's name server whether a name may be reached; nobody else is asked."""
    if not isinstance(host, Name):
        raise Refused(Reason.BAD_HOST)
    sandbox = flow.sandbox
    if host.text in (PROXY_NAME, BROKER_NAME):
        await flow.client.send(_KNOWN)
        return
    if not sandbox.names.take(flow.now()):
        raise Refused(Reason.LIMIT)
    verdict = may_resolve(sandbox.policy, host)
    if verdict.allowed:
        await flow.client.send(_KNOWN)
        return
    refusal = refusal_of(verdict)
    flow.services.outbox.refuse(
        Fact(
            sandbox=sandbox.id,
            generation=sandbox.generation,
            code="egress.dns_denied",
            decision="deny",
            reason=refusal.reason,
            outcome="refused",
            details={"host": host.text, "via": "dns", "policy_version": sandbox.policy.version},
        )
    )
    await flow.client.send(answer(refusal, None, keep=True))


async def _connect(flow: Flow, request: Request) -> str:
    if request.value(b"gatehouse-via") == _TRANSPARENT:
        flow.via = "transparent"
    target = of_connect(request.target)
    flow.asked = target
    placeholders.forbid(flow, request.head)
    said = request.value(b"host")
    if said not in (None, request.target) and of_authority(said or b"").host != target.host:
        raise Refused(Reason.HOST_MISMATCH)
    if target.name == PROXY_NAME:
        raise Refused(Reason.LOOP)
    if target.name == BROKER_NAME:
        return await _connect_broker(flow, target)
    flow.passage = Passage(flow.services, flow.sandbox, target, flow.via)
    flow.allow(flow.services.settings.limits.connect_seconds, "connect")
    # Before the client is told that it has its tunnel: it can still be told why not.
    route = await find_route(flow.services, flow.sandbox, target)
    if "tcp" in flow.passage.verdict.protocols and not flow.passage.bound:
        flow.passage.protocol = "tcp"
        await _open(flow, route)
        await flow.client.send(_GRANTED)
        return await pass_everything(flow)
    await flow.client.send(_GRANTED)
    flow.can_answer = False
    return await _sniff(flow, route)


async def _connect_broker(flow: Flow, target: Target) -> str:
    if target.port != forward.BROKER_PORT:
        raise Refused(Reason.PORT)
    await flow.client.send(_GRANTED)
    return await forward.serve_requests(flow, None, target)


async def _sniff(flow: Flow, route: Route) -> str:
    """Let the first bytes say what is spoken, and go on with it if the rule allows that."""
    assert flow.passage is not None  # noqa: S101 - made by the caller
    bound = flow.passage.bound
    flow.allow(flow.services.settings.limits.sniff_seconds, "cannot_rewrite" if bound else "limit")
    while not flow.client.ahead:
        if not await flow.client.more():
            return "done"
    tls = looks_like_tls(flow.client.ahead[0])
    if tls and speaks(flow.passage.verdict, "tls"):
        flow.passage.protocol = "tls"
        hello = await _greeting(flow)
        _check_hello(flow, hello)
        if bound:
            return await _serve_inside(flow, hello, route.target)
        await _open(flow, route)
        return await pass_everything(flow)
    if not tls and speaks(flow.passage.verdict, "http"):
        if bound and not _METHOD.match(flow.client.ahead[:_LONGEST_METHOD]):
            raise Refused(Reason.CANNOT_REWRITE, detail=intercept.NOT_REWRITABLE)
        flow.can_answer = True
        return await forward.serve_requests(flow, None, route.target)
    raise Refused(Reason.NOT_TLS if speaks(flow.passage.verdict, "tls") else Reason.NOT_HTTP)


async def _serve_inside(flow: Flow, hello: Hello, target: Target) -> str:
    """Serve the requests of a client whose TLS ends here."""
    flow.client = await intercept.end_client_tls(flow, hello, target)
    flow.can_answer = True
    try:
        return await forward.serve_requests(flow, None, target)
    except Refused as refusal:
        if refusal.reason is not Reason.NOT_HTTP:
            raise
        raise Refused(Reason.CANNOT_REWRITE, detail=intercept.NOT_REWRITABLE) from None


async def _greeting(flow: Flow) -> Hello:
    most = flow.services.settings.limits.hello
    while True:
        try:
            hello = read_hello(bytes(flow.client.ahead[:most]))
        except NotTls:
            raise Refused(Reason.NOT_TLS) from None
        except BadName:
            raise Refused(Reason.BAD_HOST) from None
        if hello is not None:
            return hello
        if len(flow.client.ahead) >= most or not await flow.client.more():
            raise Refused(Reason.NOT_TLS)


def _check_hello(flow: Flow, hello: Hello) -> None:
    passage, policy = flow.passage, flow.sandbox.policy
    assert passage is not None  # noqa: S101 - made before a greeting is read
    host, port = passage.target.host, passage.target.port
    named: Name | None = None
    if hello.sni is not None:
        passage.sni = hello.sni[:_LONGEST_SHOWN].decode("latin-1")
        named = _name_of(hello.sni)
    passage.ech = hello.ech
    if hello.ech and policy.tls.ech == "deny":
        raise Refused(Reason.ECH)
    if isinstance(host, Name) and (policy.tls.sni == "require" or passage.bound) and named != host:
        raise Refused(Reason.SNI_MISSING if named is None else Reason.SNI_MISMATCH)
    if named is not None and named != host and policy.binds(named):
        raise Refused(Reason.CANNOT_REWRITE, detail="The connection goes to an address that was not asked for by name.")
    # An address may be allowed, and any name be asked for there; but none that is denied.
    refusal = None if named is None or named == host else forbidden(flow.sandbox, named, port)
    if refusal is not None:
        raise refusal


def _name_of(sni: bytes) -> Name:
    try:
        named = canonical(sni)
    except BadHost:
        raise Refused(Reason.BAD_HOST) from None
    if not isinstance(named, Name):
        raise Refused(Reason.BAD_HOST)
    return named


async def _open(flow: Flow, route: Route) -> None:
    assert flow.passage is not None  # noqa: S101 - made by the caller
    flow.allow(flow.services.settings.limits.connect_seconds, "connect")
    flow.passage.direct = route.direct
    flow.server, flow.passage.address = await dial(flow.services, route)
