"""What goes wrong, said in one sentence that tells what to do."""

from __future__ import annotations

FAILED, USAGE, TIMED_OUT, NOT_STARTED, NOT_FOUND = 1, 2, 124, 125, 127


class CliError(Exception):
    """A failure that its user can read; `status` is the exit code."""

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NotThere(CliError):
    """What was named does not exist."""


_HINTS = {
    401: "Set GATEHOUSE_API_KEY to a key of this Gatehouse; `manage.py apikey create` makes one.",
    403: "Ask for a key with that scope.",
}


def from_answer(status: int, body: object, *, retry_after: str | None = None) -> CliError:
    """Return the error of an answer: a problem document, or an error of the data plane."""
    found = body if isinstance(body, dict) else {}
    said = str(found.get("detail") or found.get("message") or f"Gatehouse answered {status}.")
    if not said.endswith((".", "!", "?")):
        said += "."
    hint = _HINTS.get(status, "")
    if status == 404 and "sandbox" in said.lower():
        hint = "`gatehouse ls` shows those that live."
    elif status == 415 or status >= 500:
        request_id = found.get("request_id")
        hint = f"The server's log has the reason{f' under {request_id}' if request_id else ''}."
    if retry_after and retry_after.isdigit():
        hint = f"Try again in {retry_after} s."
    text = f"{said} {hint}".strip()
    return NotThere(text) if status == 404 else CliError(text)
