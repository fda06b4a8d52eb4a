"""A secret that can't travel in its slot is not sent, and the error does not show it."""

from __future__ import annotations

import pytest

from tenants.broker import headers
from tenants.broker.catalogue import Slot
from tenants.broker.problems import SecretUnusable

UNUSABLE = [b"", b"a\r\nX-Evil: 1", b"a\nb", b"a\0b", b"a\x7fb", b" spaced ", b"tail\t", b"\xff\xfe", b"x" * 8193]


@pytest.mark.parametrize("slot", ["bearer", "basic", "header:x-api-key", "query:key"])
@pytest.mark.parametrize("secret", UNUSABLE)
def test_a_secret_that_cannot_travel_is_refused(slot: str, secret: bytes) -> None:
    with pytest.raises(SecretUnusable) as refused:
        headers.credential(Slot.parse(slot), secret)

    assert secret.decode("latin-1") not in str(refused.value) or not secret.strip()
    assert refused.value.__cause__ is None


def test_a_password_is_looked_for_without_its_user_too() -> None:
    made = headers.credential(Slot.parse("basic"), b"acme:geheimnis-4711")

    assert made.needles.found_in(b"your password is geheimnis-4711")
    assert made.needles.found_in(b"Basic YWNtZTpnZWhlaW1uaXMtNDcxMQ==")


def test_a_credential_does_not_show_what_it_holds() -> None:
    made = headers.credential(Slot.parse("bearer"), b"sk-geheimnis-4711")

    assert "geheimnis" not in repr(made)
