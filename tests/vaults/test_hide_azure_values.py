"""What the client of a Key Vault writes down: nothing of a value, a token or a client secret, at any level."""

from __future__ import annotations

import copy
import io
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from corekit.errors import GatehouseError
from corekit.needles import Needles
from tenants.vaults.contract import Ref
from tenants.vaults.secretvalue import SecretValue
from tests.vaults.azure import CLIENT_SECRET
from tests.vaults.keyvault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.vaults.azure import Azure

CANARY = b"sk-canary-5cf0a1-azure"
KEY = Ref("0192f3c08a5b7c3d9e1f112233445566", "openai_key", "c0ffee00" * 4)


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """Return all that any logger says at any level, as it says it, before our own redaction."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    names = ["azure", "azure.identity", "azure.core", "msal", "urllib3", "requests", "tenants.vaults"]
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    for name in names:
        logging.getLogger(name).setLevel(1)
        logging.getLogger(name).propagate = True
    yield written
    root.removeHandler(handler)
    root.setLevel(level)
    for name, (old, propagate) in before.items():
        logging.getLogger(name).setLevel(old)
        logging.getLogger(name).propagate = propagate


def found_in(text: str, azure: Azure) -> bool:
    """Say whether a value, the client secret or a token is in a text, in any encoding."""
    secrets = [CANARY, CLIENT_SECRET.encode(), *(token.encode() for token in azure.cloud.issued)]
    return Needles(secrets).found_in(text.encode())


def troubles(azure: Azure) -> list[Callable[[], None]]:
    """Return what can go wrong, each as what makes it so."""

    def fault(*faults: Fault) -> Callable[[], None]:
        return lambda: azure.cloud.faults.extend(faults)

    def change(**fields: Any) -> Callable[[], None]:
        return lambda: vars(azure.cloud).update(fields)

    return [
        lambda: None,
        fault(*[Fault(429, {"Retry-After": "1"}, text=CANARY.decode())] * 100),
        fault(*[Fault(500, text=CANARY.decode(), code=CANARY.decode())] * 100),
        fault(*[Fault(403, text=CANARY.decode(), inner="ForbiddenByRbac")] * 2),
        fault(*[Fault(409, text=CANARY.decode())] * 2),
        fault(*[Fault(drop=True)] * 100),
        fault(*[Fault(raw=CANARY)] * 100),
        change(resource="https://evil.example", _key=b"k" * 32),
        change(audience="https://management.azure.com", _key=b"k" * 32),
    ]


@pytest.mark.parametrize("number", range(9))
def test_no_error_holds_a_value(azure: Azure, number: int) -> None:
    vault = azure.open()
    vault.put(KEY, SecretValue(CANARY))
    for call in (lambda: vault.get(KEY), lambda: vault.put(KEY, SecretValue(CANARY))):
        azure.cloud.faults.clear()
        azure.waits.at += 3600
        troubles(azure)[number]()
        try:
            call()
        except GatehouseError as error:
            caught: GatehouseError = error
        else:
            continue
        told = "".join(traceback.format_exception(caught)) + repr(caught.as_body()) + repr(caught.headers())
        assert not found_in(told, azure)
        chained = [caught.__cause__, caught.__context__]
        assert all(link is None or isinstance(link, GatehouseError) for link in chained), "it holds our request"


@pytest.mark.parametrize("number", [0, 1, 3, 4, 8])
def test_no_log_line_of_any_library_holds_a_value(azure: Azure, everything_logged: io.StringIO, number: int) -> None:
    vault = azure.open()
    vault.put(KEY, SecretValue(CANARY))
    assert vault.get(KEY) == SecretValue(CANARY)
    troubles(azure)[number]()
    for call in (vault.get, vault.disable, vault.delete, vault.recover):
        try:
            call(KEY)
        except GatehouseError:
            continue
    lines = everything_logged.getvalue()
    assert "azure.core.pipeline.policies.http_logging_policy DEBUG Request URL" in lines, "it was all turned on"
    assert not found_in(lines, azure)


def test_nothing_of_ours_shows_a_value(azure: Azure) -> None:
    vault = azure.open()
    vault.put(KEY, SecretValue(CANARY))
    value = vault.get(KEY)
    shown = [repr(vault), str(vault), repr(vars(vault)), repr(vars(vault._calls)), repr(value), f"{value}"]
    assert not found_in("".join(shown), azure)
    with pytest.raises(TypeError):
        copy.deepcopy(value)
