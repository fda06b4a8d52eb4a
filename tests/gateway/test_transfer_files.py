"""Files stream both ways, of any size; every file of an upload is on record; no page can run from here."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING

import pytest

from sandboxes.gateway.relay import attachment
from sandboxes.gateway.watch import BadParts, PartNames
from tests.gateway import doubles
from tests.gateway.place import ALICE_KEY, Place, read_answer, request_bytes, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DONE = doubles.answer(200, b'[{"path":"/a"}]', Content_Type="application/json")


@pytest.fixture
def stored(place: Place) -> list[str]:
    """Digests of the bodies that reached the guest."""
    digests: list[str] = []

    async def upload(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request.body = await doubles.read_body(reader, request)
        digests.append(hashlib.sha256(request.body).hexdigest())
        writer.write(DONE)

    place.guest.on("POST", "/files", upload)
    return digests


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield data a piece at a time, so that the client sends chunks."""
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_it_uploads_a_file(place: Place, stored: list[str], size: int, chunked: object) -> None:
    data = hashlib.sha256(b"x").digest() * (size // 32) + b"y" * (size % 32)

    async with place.http.post(
        f"{place.url}/files?path=/home/user/a%2Bb.bin&username=user",
        data=in_pieces(data) if chunked else io.BytesIO(data),
        headers=place.headers(Content_Type="application/octet-stream"),
    ) as response:
        assert response.status == 200
        assert await response.read() == b'[{"path":"/a"}]'
    await until(lambda: place.tap.of("file.write", "result"))

    assert stored == [hashlib.sha256(data).hexdigest()]
    assert place.guest.requests[0].target == "/files?path=%2Fhome%2Fuser%2Fa%2Bb.bin&username=user"
    intent, result = place.tap.events
    assert (intent["code"], intent["tool_name"], intent["key_id"]) == ("file.write", "write_file", ALICE_KEY)
    assert result["details"] == {"http_status": 200, "bytes_in": size, "bytes_out": 15}


async def test_it_asks_a_waiting_client_for_the_body_only_when_it_may_come(place: Place, stored: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    fields = {"Content_Length": "5", "Expect": "100-continue", "Content_Type": "application/octet-stream"}

    writer.write(request_bytes("POST /files?path=/a HTTP/1.1", **place.headers(**fields)))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await read_answer(reader))[0] == 200
    assert place.guest.requests[0].get("Expect") is None

    writer.write(request_bytes("POST /files?path=/a HTTP/1.1", **place.headers(token="bad", **fields)))
    assert (await read_answer(reader))[0] == 401
    writer.close()


async def test_an_answer_before_the_whole_body_reaches_the_client(place: Place) -> None:
    async def upload(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reader.readexactly(1000)
        writer.write(doubles.answer(507, b'{"code":507}', Content_Type="application/json"))
        await writer.drain()
        return False

    place.guest.on("POST", "/files", upload)
    async with place.http.post(
        f"{place.url}/files?path=/a",
        data=in_pieces(b"x" * 3_000_000),
        headers=place.headers(Content_Type="application/octet-stream"),
    ) as response:
        assert response.status == 507


async def test_a_file_name_is_on_record_for_each_part(place: Place, stored: list[str]) -> None:
    body = b"".join(
        b'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n' % (name, b"x" * 40_000)
        for name in (b"/home/user/one", b"/etc/two", b'three \\" quoted')
    )

    async with place.http.post(
        f"{place.url}/files",
        data=body + b"--XyZ--\r\n",
        headers=place.headers(Content_Type="multipart/form-data; boundary=XyZ"),
    ) as response:
        assert response.status == 200
    await until(lambda: len(place.tap.of("file.write", "result")) == 3)

    intents = place.tap.of("file.write", "intent")
    assert [one["args_shape"]["path"] for one in intents] == ["text(14)", "text(8)", "text(14)"]
    assert [one["risk_seed"]["score"] for one in intents] == [30, 70, 30]
    assert [one["risk_band"] for one in intents] == ["low", "medium", "low"]
    assert intents[1]["risk_reasons"] == ["call.path.system.write", "call.write"]
    assert place.guest.requests[0].get("Content-Type") == 'multipart/form-data; boundary="XyZ"'


@pytest.mark.parametrize(
    ("content_type", "more"),
    [
        ("multipart/form-data", {}),
        ("multipart/form-data; boundary=a; boundary=b", {}),
        ("multipart/form-data; boundary=a", {"Content_Encoding": "gzip"}),
    ],
)
async def test_an_upload_whose_names_would_stay_hidden_is_refused(
    place: Place, stored: list[str], content_type: str, more: dict[str, str]
) -> None:
    async with place.http.post(
        f"{place.url}/files", data=b"x", headers=place.headers(Content_Type=content_type, **more)
    ) as response:
        assert response.status == 415
    assert stored == []


@pytest.mark.parametrize("step", [1, 5, 100_000])
def test_names_are_found_however_the_body_is_cut(step: int) -> None:
    body = (
        b'--B\r\ncontent-disposition: form-data; filename="a"; name=file\r\n\r\n--B-- is content here\r\n'
        b'--B\nContent-Disposition: form-data; name="file"; filename="b"\n\nline\n'
        b"--B\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''c\r\n\r\n\r\n--B--\r\n"
    )
    names = PartNames(b"B")

    found = [name for at in range(0, len(body), step) for name in names.feed(body[at : at + step])]

    assert found[:2] == ["a", "b"]
    assert "filename*=UTF-8''c" in found[2]
    assert len(found) == 3


def test_a_part_without_an_end_is_refused() -> None:
    with pytest.raises(BadParts):
        PartNames(b"B").feed(b"--B\r\n" + b"x" * 20_000)


async def test_it_downloads_a_file_that_no_browser_will_show(place: Place) -> None:
    data = bytes(range(256)) * 40_000
    place.guest.on(
        "GET",
        "/files",
        doubles.answer(
            200,
            data,
            Content_Type="text/html",
            Content_Disposition="inline",
            Last_Modified="now",
            Set_Cookie="sessionid=stolen",
            Clear_Site_Data='"*"',
            Location="https://evil.example",
            Access_Control_Allow_Credentials="true",
        ),
    )

    async with place.http.get(f"{place.url}/files?path=/a/b.html", headers=place.headers(Range="bytes=0-")) as response:
        assert response.status == 200
        assert await response.read() == data

    headers = response.headers
    assert headers["Content-Disposition"] == "attachment; filename=\"b.html\"; filename*=UTF-8''b.html"
    assert headers["Content-Security-Policy"] == "sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Last-Modified"] == "now"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert not {"Set-Cookie", "Clear-Site-Data", "Location", "Access-Control-Allow-Credentials"} & set(headers)
    assert place.guest.requests[0].get("Range") == "bytes=0-"


async def test_an_empty_file_has_a_length(place: Place) -> None:
    place.guest.on("GET", "/files", doubles.answer(200))

    async with place.http.get(f"{place.url}/files?path=/empty", headers=place.headers()) as response:
        assert response.headers["Content-Length"] == "0"
        assert await response.read() == b""


async def test_a_file_that_did_not_change_is_not_sent(place: Place) -> None:
    place.guest.on("GET", "/files", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")

    async with place.http.get(f"{place.url}/files?path=/a", headers=place.headers(If_None_Match="x")) as response:
        assert response.status == 304
    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 204


async def test_a_slow_reader_holds_up_only_itself(place: Place) -> None:
    sent = 0

    async def download(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    place.guest.on("GET", "/files", download)
    async with place.http.get(f"{place.url}/files?path=/a", headers=place.headers()) as response:
        await asyncio.sleep(0.3)
        held = sent
        assert held < 20_000_000
        async with place.http.get(f"{place.url}/health", headers=place.headers()) as health:
            assert health.status == 204
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
    assert size == 100_000_000


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/report.pdf", b"attachment; filename=\"report.pdf\"; filename*=UTF-8''report.pdf"),
        ('/a/ü"\\.txt', b"attachment; filename=\"___.txt\"; filename*=UTF-8''%C3%BC%22%5C.txt"),
        ("a\r\nSet-Cookie: x", b"attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x"),
        ("/", b"attachment; filename=\"file\"; filename*=UTF-8''file"),
    ],
)
def test_a_file_name_can_not_break_the_header(path: str, expected: bytes) -> None:
    assert attachment(path) == expected
