"""One canonical host for what was said: by a client, in a TLS greeting, in a DNS question, or in a policy.

A decision is taken on this object, and the same object is connected to. No second parser ever sees the raw text, so
that nobody can make two of them see two hosts.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import idna

MAX_NAME = 253
_MAX_SHOWN = 80
# Underscores are no part of host names, but of many names that are in use. A label may hold two hyphens in third and
# fourth place: only `xn--` gives them a meaning, and is checked.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What resolvers of the C library take for an address: its last part is a number, in any base.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_PORT = 65_535


class BadHost(ValueError):
    """What was said is no host in a form that has one meaning."""


@dataclass(frozen=True, slots=True)
class Name:
    """A host name: lower case, A-labels, without a trailing dot."""

    text: str

    def __str__(self) -> str:
        """Return the name."""
        return self.text


Host = Name | IPv4Address | IPv6Address


def canonical(raw: bytes) -> Host:
    """Return the host that a client names. Only ASCII is taken: a client sends A-labels.

    An IPv6 address stands in brackets; one that holds an IPv4 address by mapping is that IPv4 address.
    Raises BadHost.
    """
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadHost(f"{_shown(raw)} is not ASCII; send it as A-labels.") from None
    return _host(text.lower())


def canonical_text(text: str) -> Host:
    """Return the host that a person wrote, in Unicode or ASCII. Raises BadHost.

    Nothing is mapped but upper case: what only resembles a letter, a digit or a dot is refused.
    """
    lowered = text.lower()
    if lowered.isascii():
        return _host(lowered)
    labels = unicodedata.normalize("NFC", lowered).split(".")
    try:
        return _host(".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels))
    except idna.IDNAError as error:
        raise BadHost(f"{_shown(text)} is no host name: {error}.") from None


def canonical_authority(raw: bytes) -> tuple[Host, int]:
    """Return host and port of `host:port`, where the port must be said. Raises BadHost."""
    host, separator, port = raw.rpartition(b":")
    if not separator:
        raise BadHost(f"{_shown(raw)} names no port.")
    return canonical(host), canonical_port(port.decode("latin-1"))


def canonical_port(text: str) -> int:
    """Return a port in its only form: decimal, without a sign, spaces or leading zeros. Raises BadHost."""
    if not _PORT.fullmatch(text) or int(text) > _MAX_PORT:
        raise BadHost(f"{_shown(text)} is no port: it is a number from 1 to {_MAX_PORT}.")
    return int(text)


def written(host: Host) -> str:
    """Return the host as `canonical` reads it."""
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


def mixed_scripts(text: str) -> bool:
    """Say whether a name may look like another: a label mixes scripts, or has only letters that look like Latin ones.

    A-labels are looked at as what they stand for. A whole rule may be given.
    """
    return any(_is_deceptive(_readable(label)) for label in _BORDERS.split(text))


def _host(text: str) -> Host:
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    name = text.removesuffix(".")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BadHost(f"{_shown(text)} is no host name.")
    if _NUMERIC.fullmatch(name):
        return _ipv4(name, text)
    if "xn--" in name:
        _check_alabels(name)
    return Name(name)


def _ipv4(name: str, text: str) -> IPv4Address:
    try:
        # The standard library takes no other form than four decimal numbers without leading zeros.
        address = IPv4Address(name)
    except ValueError:
        raise BadHost(f"{_shown(text)} is no address in its usual form, like 192.0.2.1.") from None
    if name != text:
        raise BadHost(f"{_shown(text)} is an address with a dot behind it.")
    return address


def _ipv6(text: str) -> IPv4Address | IPv6Address:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise BadHost(f"{_shown(text)} is no IPv6 address.") from None
    if address.scope_id is not None:
        raise BadHost(f"{_shown(text)} has a zone, which means nothing here.")
    return address.ipv4_mapped or address


def _check_alabels(name: str) -> None:
    for label in name.split("."):
        if label.startswith("xn--"):
            try:
                same = idna.alabel(idna.ulabel(label)).decode() == label
            except (idna.IDNAError, UnicodeError):
                same = False
            if not same:
                raise BadHost(f"{_shown(label)} is no A-label.")


def _shown(said: str | bytes) -> str:
    return ascii(said[:_MAX_SHOWN]).removeprefix("b")


# Scripts that are written together, so that a label of them is no attempt to look like another one.
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)
# Letters of other scripts that most fonts draw like a Latin one.
_LOOK_LATIN = frozenset("асеорхуіјѕһԁԛԝӏѵգհոսցօքαικνορτυχγ")
_BORDERS = re.compile(r"[.:/!*\[\]]")
# Upper, lower and other letters; those that only modify another are of no script.
_LETTERS = frozenset({"Lu", "Ll", "Lo"})


def _readable(label: str) -> str:
    if not label.lower().startswith("xn--"):
        return label.lower()
    try:
        return str(idna.ulabel(label.lower()))
    except (idna.IDNAError, UnicodeError):
        return label


def _is_deceptive(label: str) -> bool:
    letters = [letter for letter in label if unicodedata.category(letter) in _LETTERS]
    scripts = {unicodedata.name(letter, "UNKNOWN").split(" ")[0] for letter in letters}
    if len(scripts) > 1:
        return not any(scripts <= together for together in _TOGETHER)
    return bool(letters) and all(letter in _LOOK_LATIN for letter in letters)
