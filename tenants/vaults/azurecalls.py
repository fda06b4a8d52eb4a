"""Calls to a Key Vault: each within a bounded time, and each failure said in our own words.

The client's own retries are off, because they wait for as long as a vault tells them to. What Azure says of a failure
is logged by its codes; its texts, and our requests, go nowhere.
"""

from __future__ import annotations

import math
import random
import re
import threading
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
)

from corekit import clock
from corekit.errors import Conflict, GatehouseError
from tenants.vaults.contract import (
    SecretDisabled,
    SecretMissing,
    VaultDenied,
    VaultMisconfigured,
    VaultUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from azure.keyvault.secrets import SecretClient

logger = structlog.get_logger("tenants.vaults")

Result = TypeVar("Result")

CONNECT_S = 3.0
READ_S = 5.0
# How long one call may wait and try again; what is under way then may take its own time to the end.
TOTAL_S = 8.0
# How long a vault that has too much to do is left alone at most.
MAX_PAUSE_S = 60.0
# A token that is refused is not replaced more often than this.
RENEW_S = 30.0
# Azure gives its own tokens five minutes' leeway.
MAX_SKEW_S = 300.0
_FIRST_PAUSE_S = 0.2
# How the credential says what it was answered.
_STATUS = re.compile(r"\bHTTP (?:Error|status): (\d{3})\b")
_ENTRA_CODE = re.compile(r"\bAADSTS\d+\b")


class SecretDeleted(Conflict):
    """A deleted secret still lies in the vault under this name, and can be recovered or purged there."""

    code = "secret_deleted"
    title = "A deleted secret is still in the vault under this name"


@dataclass(frozen=True, slots=True)
class _Failure:
    """What goes to the caller; `again` is whether to try again, after `wait` at least, `renew` with a new token."""

    error: GatehouseError
    again: bool = False
    wait: float = 0.0
    renew: bool = False
    sign_in: int = 0


@dataclass(frozen=True, slots=True)
class _Lent:
    """A client for one call at a time, and which of our sign-ins it goes by.

    What its threads would share of a token is not safe when the vault refuses one.
    """

    client: SecretClient
    sign_in: int


class Calls:
    """What goes to one vault, from many threads."""

    def __init__(
        self,
        vault: str,
        sign_in: Callable[[], Callable[[], SecretClient]],
        pause: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.vault = vault
        self._lock = threading.Lock()
        self._sign_in = sign_in
        self._make_client = sign_in()
        self._signed_in = 1
        self._renewed_at = -math.inf
        self._pause = pause
        self._monotonic = monotonic
        self._idle: list[_Lent] = []
        self._left_alone_until = 0.0
        self._skew = 0.0

    def run(self, call: Callable[[SecretClient, dict[str, Any]], Result], *, repeatable: bool = True) -> Result:
        """Return what a call of the client's returns, given the options of a request.

        Tried again within `TOTAL_S` when that may help, and, where a call is not repeatable, when the vault surely did
        not carry it out.
        """
        started = self._monotonic()
        if started < self._left_alone_until:
            raise self._too_much(self._left_alone_until - started).error
        pause = _FIRST_PAUSE_S
        while True:
            found = self._try(call, repeatable=repeatable)
            if not isinstance(found, _Failure):
                return found
            wait = max(found.wait, pause * random.uniform(1, 1.5))  # noqa: S311  (only to spread calls)
            if found.renew and self._renew(found.sign_in):
                continue
            if not found.again or self._monotonic() + wait > started + TOTAL_S:
                until = self._monotonic() + min(found.wait, MAX_PAUSE_S)
                self._left_alone_until = max(self._left_alone_until, until)
                raise found.error
            self._pause(wait)
            pause *= 2

    def wait_for(self, call: Callable[[SecretClient, dict[str, Any]], object]) -> None:
        """Call until what the vault began is there, or the time is up."""
        deadline, pause = self._monotonic() + TOTAL_S, _FIRST_PAUSE_S
        while True:
            try:
                self.run(call)
            except SecretMissing:
                if self._monotonic() + pause > deadline:
                    return
                self._pause(pause)
                pause *= 2
            except (SecretDisabled, VaultDenied):
                # It is there, and not for us to read.
                return
            else:
                return

    def now(self) -> datetime:
        """Return the time by the vault's clock, as far as it told it."""
        return clock.now() + timedelta(seconds=self._skew)

    def describe_skew(self) -> str:
        """Return how wrong this host's clock is, or nothing while it hardly matters."""
        if abs(self._skew) <= MAX_SKEW_S:
            return ""
        return f"this host's clock is {abs(self._skew):.0f} s {'behind' if self._skew > 0 else 'ahead'}"

    def _try(self, call: Callable[[SecretClient, dict[str, Any]], Result], *, repeatable: bool) -> Result | _Failure:
        options = {"connection_timeout": CONNECT_S, "read_timeout": READ_S, "raw_response_hook": self._note_time}
        lent = self._borrow()
        try:
            return call(lent.client, options)
        except (AzureError, ValueError) as error:
            failure = self._failure(error, repeatable=repeatable)
            if not isinstance(failure.error, SecretMissing | SecretDisabled):
                _log(self.vault, error)
        finally:
            self._give_back(lent)
        # Said outside of the block, so that the client's error, which holds our request, does not hang on ours.
        return replace(failure, sign_in=lent.sign_in)

    def _borrow(self) -> _Lent:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            make_client, signed_in = self._make_client, self._signed_in
        return _Lent(make_client(), signed_in)

    def _give_back(self, lent: _Lent) -> None:
        with self._lock:
            if lent.sign_in == self._signed_in:
                self._idle.append(lent)
                return
        lent.client.close()

    def _renew(self, refused: int) -> bool:
        """Forget a token that is refused though it should still count; tell whether there is another to try."""
        with self._lock:
            now = self._monotonic()
            if refused == self._signed_in:
                if now < self._renewed_at + RENEW_S:
                    return False
                self._renewed_at = now
                self._make_client = self._sign_in()
                self._signed_in += 1
            old, self._idle = self._idle, [lent for lent in self._idle if lent.sign_in == self._signed_in]
        for lent in old:
            if lent.sign_in != self._signed_in:
                lent.client.close()
        return True

    def _note_time(self, response: Any) -> None:
        told = response.http_response.headers.get("Date")
        try:
            at = parsedate_to_datetime(told)
        except (TypeError, ValueError):
            return
        # Without a zone it is UTC, in which HTTP tells all times.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        skew = (at - clock.now()).total_seconds()
        # The header is cut to seconds.
        self._skew = 0.0 if abs(skew) < 2 else skew

    def _failure(self, error: Exception, *, repeatable: bool) -> _Failure:
        if isinstance(error, ClientAuthenticationError):
            return self._unauthenticated(error)
        if isinstance(error, ServiceRequestError | ServiceResponseError):
            return self._unreachable(error, repeatable=repeatable)
        if isinstance(error, HttpResponseError):
            return self._answered(error, _codes(error), repeatable=repeatable)
        if isinstance(error, JSONDecodeError):
            return _Failure(VaultUnavailable(f"What answers for the vault {self.vault} talks nonsense.", retry_after=5))
        return _Failure(VaultMisconfigured(f"What answers for the vault {self.vault} is no Key Vault: check its url."))

    def _unauthenticated(self, error: ClientAuthenticationError) -> _Failure:
        if any(_passes(cause) for cause in _causes(error)):
            gone = VaultUnavailable(f"Nobody gives out tokens for the vault {self.vault} at the moment.", retry_after=5)
            # A credential that was told of trouble repeats it for a while without asking; a new one asks.
            return _Failure(gone, again=True, renew=True)
        if "WWW-Authenticate" in _headers(error):
            refused = self._refused("does not accept our token", self.describe_skew(), "check its credential's tenant")
            return replace(refused, renew=True)
        codes = ", ".join(sorted(set(_ENTRA_CODE.findall(str(error)))))
        reasons = "; ".join(part for part in (codes, self.describe_skew()) if part)
        return self._refused("is closed to us, because Azure gives us no token", reasons, "check its credential")

    def _unreachable(self, error: AzureError, *, repeatable: bool) -> _Failure:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "SSLCertVerificationError" in str(error):
            return _Failure(
                VaultUnavailable(
                    f"The vault {self.vault} shows a certificate that is not to be trusted: look who answers in its "
                    "place, or set ca_file.",
                    retry_after=30,
                )
            )
        gone = VaultUnavailable(f"The vault {self.vault} does not answer.", retry_after=5)
        return _Failure(gone, again=repeatable or _was_never_sent(error))

    def _answered(self, error: HttpResponseError, codes: list[str], *, repeatable: bool) -> _Failure:
        status = error.status_code
        if status == 429:
            return self._too_much(_retry_after(error))
        if isinstance(error, ResourceNotFoundError):
            return _Failure(SecretMissing())
        if isinstance(error, ResourceExistsError) or status == 409:
            return self._in_the_way(codes)
        if status == 403:
            return self._forbidden(error, codes)
        if status is None or status >= 500 or status < 400 or status == 408:
            gone = VaultUnavailable(f"The vault {self.vault} has trouble of its own.", retry_after=5)
            return _Failure(gone, again=repeatable, wait=_retry_after(error))
        return self._denied(f"does not take what we ask for ({', '.join(codes) or status}): look at the log")

    def _too_much(self, wait: float) -> _Failure:
        seconds = max(1, math.ceil(min(wait, MAX_PAUSE_S)))
        busy = VaultUnavailable(f"The vault {self.vault} has too much to do at the moment.", retry_after=seconds)
        return _Failure(busy, again=True, wait=wait)

    def _in_the_way(self, codes: list[str]) -> _Failure:
        if {"ObjectIsBeingDeleted", "ObjectIsBeingRecovered"} & set(codes):
            busy = VaultUnavailable(f"The vault {self.vault} is still deleting or recovering it.", retry_after=5)
            return _Failure(busy, again=True)
        return _Failure(
            SecretDeleted(
                f"The vault {self.vault} still keeps a deleted secret under this name: recover it, or purge it there."
            )
        )

    def _forbidden(self, error: HttpResponseError, codes: list[str]) -> _Failure:
        if "SecretDisabled" in codes or "disabled secret" in str(error.message):
            return _Failure(SecretDisabled())
        if "purge protection" in str(error.message):
            return self._denied("has purge protection, which keeps what is deleted to the end of its time: wait for it")
        if "ForbiddenByFirewall" in codes:
            return self._denied("has a firewall that refuses this host: let it in there")
        return self._denied("refuses our identity: give it the role Key Vault Secrets Officer there")

    def _refused(self, problem: str, reasons: str, fix: str) -> _Failure:
        return self._denied(f"{problem}{f' ({reasons})' if reasons else ''}: {fix}")

    def _denied(self, problem: str) -> _Failure:
        return _Failure(VaultDenied(f"The vault {self.vault} {problem}."))


def _log(vault: str, error: Exception) -> None:
    status, request = getattr(error, "status_code", None), None
    if isinstance(error, HttpResponseError):
        request = _headers(error).get("x-ms-request-id")
    kind, codes = type(error).__name__, _codes(error)
    logger.warning("vault_call_failed", vault=vault, kind=kind, status=status, codes=codes, azure_request=request)


def _passes(cause: BaseException) -> bool:
    """Say whether trouble with who gives out tokens is not about us."""
    if isinstance(cause, ServiceRequestError | ServiceResponseError):
        return True
    told = _STATUS.search(str(cause))
    status = int(told[1]) if told else getattr(cause, "status_code", None) or 0
    return status >= 500 or status in {408, 429}


def _was_never_sent(error: AzureError) -> bool:
    return isinstance(error, ServiceRequestTimeoutError) or "NewConnectionError" in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _headers(error: HttpResponseError) -> Any:
    response: Any = error.response
    return {} if response is None else response.headers


def _retry_after(error: HttpResponseError) -> float:
    """Return the seconds to wait that an answer names, 0 without any: Key Vault gives them as a number."""
    told = str(_headers(error).get("Retry-After", ""))
    return float(told) if told.isdecimal() else 0.0


def _codes(error: Exception) -> list[str]:
    """Return Azure's codes for a failure, from the outermost to the innermost."""
    details: Any = getattr(error, "error", None)
    found = [getattr(details, "code", None)]
    inner = getattr(details, "innererror", None)
    while isinstance(inner, dict):
        found.append(inner.get("code"))
        inner = inner.get("innererror")
    return [code for code in found if isinstance(code, str)]
