"""Signed URLs of /files: anybody who has one may do that one thing with that one file until it expires."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest


def fetch(url: str, data: bytes | None = None, content_type: str = "") -> tuple[int, bytes]:
    """Open a URL as any program without the SDK would."""
    headers = {"Content-Type": content_type} if content_type else {}
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 429:
                # Guessing signatures is slow on purpose.
                time.sleep(int(error.headers["Retry-After"]))
                return fetch(url, data, content_type)
            return error.code, error.read()


def message(answer: tuple[int, bytes]) -> tuple[int, Any]:
    """Return the status and the parsed body."""
    return answer[0], json.loads(answer[1])


def changed(url: str, **values: str) -> str:
    """Return the URL with other query values."""
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query)) | values
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


@pytest.mark.parametrize("options", [{}, {"user": "user"}, {"user": "user", "use_signature_expiration": 120}])
def test_download(sandbox: Any, options: dict[str, Any], folder: str) -> None:
    path = f"{folder}/a b+c.txt"
    sandbox.files.write(path, "signed content")
    assert fetch(sandbox.download_url(path, **options)) == (200, b"signed content")


def test_upload_as_a_form(sandbox: Any, folder: str) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nfrom a form\r\n--B--\r\n'
    url = sandbox.upload_url(f"{folder}/up.txt", "user")
    assert fetch(url, body, "multipart/form-data; boundary=B")[0] == 200
    assert sandbox.files.read(f"{folder}/up.txt") == "from a form"


def test_upload_as_bytes(sandbox: Any, folder: str) -> None:
    url = sandbox.upload_url(f"{folder}/up.bin")
    assert fetch(url, b"raw", "application/octet-stream")[0] == 200
    assert sandbox.files.read(f"{folder}/up.bin") == "raw"


def test_expired(sandbox: Any, folder: str) -> None:
    sandbox.files.write(f"{folder}/a", "x")
    url = sandbox.download_url(f"{folder}/a", "user", use_signature_expiration=-120)
    assert message(fetch(url)) == (401, {"code": 401, "message": "signature is already expired"})


@pytest.mark.parametrize(
    "values",
    [
        {"path": "/etc/passwd"},
        {"username": "root"},
        {"signature_expiration": "4102444800"},
        {"signature": "v1_" + "A" * 43},
    ],
    ids=lambda values: next(iter(values)),
)
def test_changed(sandbox: Any, folder: str, values: dict[str, str]) -> None:
    sandbox.files.write(f"{folder}/a", "x")
    status, body = message(fetch(changed(sandbox.download_url(f"{folder}/a", "user", 120), **values)))
    assert (status, body["code"]) == (401, 401)


def test_a_download_is_no_upload(sandbox: Any, folder: str) -> None:
    sandbox.files.write(f"{folder}/a", "x")
    assert fetch(sandbox.download_url(f"{folder}/a"), b"evil", "application/octet-stream")[0] == 401
    assert fetch(sandbox.upload_url(f"{folder}/a"))[0] == 401
    assert sandbox.files.read(f"{folder}/a") == "x"
