"""Errors carry a stable code, a status, and what a client needs to go on."""

from __future__ import annotations

import inspect

import pytest

from corekit import errors


def test_body_repeats_the_status_and_names_the_code() -> None:
    assert errors.NotFound("There is no sandbox i1.").as_body() == {
        "code": 404,
        "message": "There is no sandbox i1.",
        "error_code": "not_found",
    }


def test_body_names_field_and_details_when_there_are_any() -> None:
    error = errors.InvalidInput("timeout must be positive.", field="timeout", min=1)
    assert error.as_body() == {
        "code": 400,
        "message": "timeout must be positive.",
        "error_code": "invalid_input",
        "field": "timeout",
        "details": {"min": 1},
    }


def test_without_a_message_the_title_speaks() -> None:
    assert str(errors.Unauthorized()) == errors.Unauthorized.title


def test_quota_tells_clients_that_waiting_does_not_help() -> None:
    assert errors.QuotaExceeded("full").headers() == {"Should-Retry": "false"}


def test_retry_after_becomes_a_header() -> None:
    assert errors.RateLimited("slow down", retry_after=3).headers() == {"Retry-After": "3"}
    assert errors.Unavailable("away", retry_after=1, should_retry=True).headers() == {
        "Retry-After": "1",
        "Should-Retry": "true",
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidInput, 400, "invalid_input"),
        (errors.Unauthorized, 401, "unauthorized"),
        (errors.Forbidden, 403, "forbidden"),
        (errors.NotFound, 404, "not_found"),
        (errors.MethodNotAllowed, 405, "method_not_allowed"),
        (errors.Conflict, 409, "conflict"),
        (errors.TierUnavailable, 409, "tier_unavailable"),
        (errors.TooLarge, 413, "too_large"),
        (errors.UnsupportedMedia, 415, "unsupported_media_type"),
        (errors.QuotaExceeded, 429, "quota_exceeded"),
        (errors.RateLimited, 429, "rate_limited"),
        (errors.StartFailed, 500, "sandbox_create_failed"),
        (errors.NotYetAvailable, 501, "not_implemented"),
        (errors.Unavailable, 503, "unavailable"),
    ],
)
def test_codes_and_statuses_are_stable(error: type[errors.GatehouseError], status: int, code: str) -> None:
    assert (error.status, error.code) == (status, code)


def test_no_two_errors_share_a_code() -> None:
    found = [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.GatehouseError)
    ]
    assert len({error.code for error in found}) == len(found)
