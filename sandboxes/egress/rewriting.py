"""What is changed of a request on its way: headers that a rule sets, and placeholders that are swapped for secrets."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corekit.headernames import PARTS, says_another_line
from corekit.netrules.reasons import Reason
from sandboxes.egress import placeholders
from sandboxes.egress.credentials import Asked
from sandboxes.egress.refusals import Refused

if TYPE_CHECKING:
    from corekit.needles import Needles
    from corekit.netrules.headerrules import HeaderRule, Placeholder
    from sandboxes.egress.credentials import Granted
    from sandboxes.egress.flow import Flow
    from sandboxes.egress.head import Headers, Request
    from sandboxes.egress.target import Target

_BASIC = b"basic "
# What a header's value may be, for whoever reads it: no control characters, nothing blank at its ends.
_FIELD = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A request's headers as the server gets them. `needles` is what its answer may not hold."""

    headers: Headers = field(repr=False)
    needles: Needles | None = None
    own: frozenset[str] = frozenset()


async def rewrite(flow: Flow, request: Request, target: Target, path: bytes, scheme: str) -> Rewritten:
    """Return what goes out in place of the request's own headers. Raises Refused: nothing of it goes out then."""
    policy, headers = flow.sandbox.policy, request.end_to_end()
    if not policy.rules and not policy.placeholders:
        return Rewritten(headers)
    rule = policy.rule_for(target.host)
    fits = rule is None or _fits(rule, request, path)
    own = policy.placeholders_for(target.host) if fits else ()
    values = frozenset(one.value for one in own)
    placeholders.forbid(flow, request.head, values)
    used = [one for one in own if _is_in(one, headers)]
    if rule is None or not fits or not rule.headers:
        rule = None
    if rule is None and not used:
        return Rewritten(headers, own=values)
    if not used and rule is not None and not any(template.named for _, template in rule.headers):
        plain = [(name.encode(), template.text.encode()) for name, template in rule.headers]
        return Rewritten(_with(headers, plain), own=values)
    granted = await _fetch(flow, request, target, path, rule, scheme)
    if flow.passage is not None:
        flow.passage.secrets_sent += 1
    swapped = _swapped(headers, used, dict(granted.swap))
    whole = [(name, value) for name, value in swapped if name.decode("ascii").lower() not in PARTS]
    # What is coded could not be searched.
    final = _with(whole, [*granted.set, (b"Accept-Encoding", b"identity")])
    if not all(_FIELD.fullmatch(value) for _, value in final):
        raise Refused(Reason.SECRETS_UNAVAILABLE, detail="Its value can be in no header.")
    return Rewritten(final, granted.needles, values)


def _fits(rule: HeaderRule, request: Request, path: bytes) -> bool:
    """Tell whether a rule is for a request, whichever line of it the server goes by."""
    limited = rule.methods is not None or rule.paths is not None
    if limited and any(says_another_line(name.decode("ascii")) for name, _ in request.headers):
        return False
    return rule.fits(request.method.decode("ascii"), path)


async def _fetch(
    flow: Flow, request: Request, target: Target, path: bytes, rule: HeaderRule | None, scheme: str
) -> Granted:
    asked = Asked(
        host=target.name,
        method=request.method.decode("ascii"),
        path=path.partition(b"?")[0].decode("ascii"),
        rule_host=None if rule is None else str(rule.host),
        scheme=scheme,
    )
    return await flow.services.credentials.fetch(flow.sandbox, asked)


def _with(headers: Headers, replaced: Headers) -> Headers:
    """Return the headers with these in place of all of the same name, in whatever case."""
    names = {name.lower() for name, _ in replaced}
    return [(name, value) for name, value in headers if name.lower() not in names] + replaced


def _is_in(one: Placeholder, headers: Headers) -> bool:
    text = one.value.encode()
    for name, value in headers:
        if "header" in one.slots and text in value:
            return True
        login = _login(name, value) if "basic" in one.slots else None
        if login is not None and text in login:
            return True
    return False


def _swapped(headers: Headers, used: list[Placeholder], values: dict[bytes, bytes]) -> Headers:
    for one in used:
        text = one.value.encode()
        if text not in values:
            raise Refused(Reason.SECRETS_UNAVAILABLE, detail="The control plane does not know its placeholder.")
        headers = [(name, _swap(name, value, one, values[text])) for name, value in headers]
    return headers


def _swap(name: bytes, value: bytes, one: Placeholder, secret: bytes) -> bytes:
    text = one.value.encode()
    if "header" in one.slots:
        value = value.replace(text, secret)
    login = _login(name, value) if "basic" in one.slots else None
    if login is not None and text in login:
        return value[: len(_BASIC)] + base64.b64encode(login.replace(text, secret))
    return value


def _login(name: bytes, value: bytes) -> bytes | None:
    """Return user and password of Basic credentials; None where there are none."""
    if name.lower() != b"authorization" or value[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        return base64.b64decode(value[len(_BASIC) :].strip(), validate=True)
    except binascii.Error:
        return None
