"""No secret reaches a log line: neither by its name nor by its shape."""

from __future__ import annotations

import base64
import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from corekit import logs
from corekit.redaction import HIDDEN, hide, redact, unhide

if TYPE_CHECKING:
    from collections.abc import Iterator

API_KEY = "e2b_" + "0a" * 20
TOKEN = "gh_" + "1" * 16 + "_" + "2" * 64
SCOPED_TOKEN = "sbx_l" + "1" * 16 + "_" + "aB3" * 16 + "Z"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return where the logs go, and put everything back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = structlog.get_config()
    lines = io.StringIO()
    logs.configure("web", "INFO", stream=lines)
    yield lines
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


@pytest.mark.parametrize(
    "name",
    ["password", "Passwd", "client_secret", "api_key", "X-API-KEY", "access_token", "Authorization", "Cookie"],
)
def test_values_under_telling_names_are_hidden(name: str) -> None:
    assert redact({name: "hunter2"}) == {name: HIDDEN}
    assert redact({"headers": [{name: ["hunter2"]}]}) == {"headers": [{name: HIDDEN}]}


def test_harmless_values_stay() -> None:
    value = {"key_id": "0123", "path": "/health", "n": 1, "ok": True, "none": None, "token": None, "raw": b"x"}
    assert redact(value) == value


def test_secrets_are_known_by_their_shape() -> None:
    assert redact(f"key {API_KEY} token {TOKEN}") == f"key {HIDDEN} token {HIDDEN}"
    assert redact(f"Bearer {SCOPED_TOKEN}, and x{SCOPED_TOKEN}x") == f"Bearer {HIDDEN}, and x{HIDDEN}x"
    assert redact("postgresql://me:hunter2@db/x") == f"postgresql://{HIDDEN}@db/x"


def test_very_deep_values_end() -> None:
    value: object = "bottom"
    for _ in range(50):
        value = [value]
    assert "bottom" not in json.dumps(redact(value))


def test_a_line_is_json_with_time_level_event_and_service(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="request-1")
    logs.logger.info("sandbox_started", sandbox_id="i1", api_key=API_KEY)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "sandbox_started",
        "service": "web",
        "request_id": "request-1",
        "sandbox_id": "i1",
        "api_key": HIDDEN,
    }


def test_other_libraries_lines_look_the_same(stream: io.StringIO) -> None:
    logging.getLogger("somewhere").warning("refused %s", API_KEY)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["service"]) == (f"refused {HIDDEN}", "warning", "web")


def test_exceptions_are_one_line_without_secrets(stream: io.StringIO) -> None:
    try:
        raise RuntimeError(f"no {API_KEY}")
    except RuntimeError:
        logging.getLogger("somewhere").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert API_KEY not in line
    assert "RuntimeError" in json.loads(line)["exception"]


def test_lower_levels_are_left_out(stream: io.StringIO) -> None:
    logs.logger.debug("detail")
    assert stream.getvalue() == ""


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'LOUD'"):
        logs.configure("web", "LOUD")


def test_a_secret_in_use_is_hidden_wherever_it_stands_and_only_while_it_is_used() -> None:
    value = b"sk-live/7 aa+bb"
    basic = base64.b64encode(b"user:" + value).decode()
    shapes = hide(value)
    hide_again = hide(value)
    assert redact(f"got {value.decode()} back") == f"got {HIDDEN} back"
    assert redact([{"url": "https://x/?k=sk-live%2F7%20aa%2Bbb"}]) == [{"url": f"https://x/?k={HIDDEN}"}]
    assert "7 aa" not in base64.b64decode(str(redact(basic)).replace(HIDDEN, "")).decode(errors="replace")
    unhide(shapes)
    assert redact(value.decode()) == HIDDEN
    unhide(hide_again)
    assert redact(value.decode()) == value.decode()


def test_what_is_too_short_to_be_found_by_more_than_chance_hides_nothing() -> None:
    assert hide(b"abcde") == ()
    assert redact("abcde") == "abcde"
