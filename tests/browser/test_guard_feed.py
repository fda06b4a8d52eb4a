"""The live feed opens for pages of this host only, and asks who looks for everything that it sends."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.contrib.sessions.models import Session

from audit import sealing
from audit.models import Event
from gatehouse.asgi import application
from tenants.models import Membership, Tenant, User
from tests import servers
from tests.browser.console import session
from tests.browser.ledger import event, seal
from tests.servers import free_port

if TYPE_CHECKING:
    from tests.people import Person

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "http://localhost"


class Connection(ApplicationCommunicator):
    """A WebSocket, as the server sees it."""

    def __init__(self, path: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        where, _, query = path.partition("?")
        scope = {"type": "websocket", "path": where, "query_string": query.encode(), "headers": headers or []}
        super().__init__(application, scope | {"client": None, "subprotocols": []})

    async def connect(self) -> tuple[bool, int]:
        """Return whether it opens, and with which code not."""
        await self.send_input({"type": "websocket.connect"})
        said = await self.receive_output(timeout=10)
        return said["type"] == "websocket.accept", int(said.get("code") or 0)

    async def hear(self) -> Any:
        """Return the next message."""
        said = await self.receive_output(timeout=10)
        return json.loads(said["text"])

    async def leave(self) -> None:
        """Close it."""
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(timeout=10)


def feed(cookie: str | None, query: str = "tenant=acme", **headers: str) -> Connection:
    """Return a connection to the feed as a browser makes it."""
    sent = {"host": "localhost", "origin": HERE} | headers
    if cookie is not None:
        sent["cookie"] = f"{settings.SESSION_COOKIE_NAME}={cookie}"
    named = [(name.encode(), value.encode()) for name, value in sent.items() if value]
    return Connection(f"/ws/audit?{query}", named)


async def refused(connection: Connection) -> int:
    """Return with which code a connection is refused."""
    connected, code = await connection.connect()
    assert not connected
    return code


@pytest.fixture
def alices(alice: Person) -> str:
    """Return Alice's cookie."""
    return session(alice.user)


async def test_a_member_hears_of_new_events(alice: Person, alices: str) -> None:
    connection = feed(alices)
    assert (await connection.connect())[0]
    assert await connection.hear() == {"type": "ready", "after": 0}
    made = await sync_to_async(event)(alice.tenant)
    await sync_to_async(seal)(made)
    told = await connection.hear()
    assert (told["type"], told["after"]) == ("events", 1)
    assert f'id="event-{made.pk}"' in told["rows"]
    await connection.leave()


async def test_who_comes_back_gets_what_came_meanwhile(alice: Person, alices: str) -> None:
    events = [await sync_to_async(event)(alice.tenant) for _ in range(3)]
    await sync_to_async(seal)(*events)
    connection = feed(alices, "tenant=acme&after=1")
    await connection.connect()
    assert (await connection.hear())["after"] == 1
    told = await connection.hear()
    assert told["after"] == 3
    assert [f'id="event-{one.pk}"' in told["rows"] for one in events] == [False, True, True]
    await connection.leave()


async def test_more_than_a_page_can_show_is_said_and_not_sent(alice: Person, alices: str) -> None:
    events = [await sync_to_async(event)(alice.tenant) for _ in range(101)]
    await sync_to_async(seal)(*events)
    connection = feed(alices, "tenant=acme&after=0")
    await connection.connect()
    await connection.hear()
    assert await connection.hear() == {"type": "many", "after": 101}
    await connection.leave()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://localhost:81"},
        {"origin": "http://localhost.evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
)
async def test_pages_of_other_hosts_may_not_connect(alices: str, headers: dict[str, str]) -> None:
    assert await refused(feed(alices, **headers)) == 4403


async def test_without_a_session_nothing_opens(alices: str) -> None:
    assert await refused(feed(None)) == 4401
    assert await refused(feed("x" * 32)) == 4401


async def test_strangers_get_the_answer_of_a_tenant_that_is_not(mallory: Person, alices: str) -> None:
    mallorys = await sync_to_async(session)(mallory.user)
    assert await refused(feed(mallorys)) == await refused(feed(mallorys, "tenant=no-such")) == 4403
    assert await refused(feed(mallorys, "")) == 4403


async def test_an_unknown_filter_value_is_refused(alices: str) -> None:
    assert await refused(feed(alices, "tenant=acme&band=purple")) == 4400


@pytest.mark.parametrize("loss", ["membership", "account", "session", "password"])
async def test_who_loses_their_right_is_cut_off_before_the_next_event(alice: Person, alices: str, loss: str) -> None:
    connection = feed(alices)
    await connection.connect()
    await connection.hear()
    await sync_to_async(lose)(alice, loss)
    await sync_to_async(seal)(await sync_to_async(event)(alice.tenant))
    said: dict[str, Any] = await connection.receive_output(timeout=10)
    assert (said["type"], said["code"]) == ("websocket.close", 4403)
    await connection.leave()


def lose(person: Person, what: str) -> None:
    """Take from somebody what let them look."""
    if what == "membership":
        Membership.everywhere().filter(user=person.user).delete()
    elif what == "account":
        User.objects.filter(pk=person.user.pk).update(is_active=False)
    elif what == "session":
        Session.objects.all().delete()
    else:
        person.user.set_password("another long password")
        person.user.save()


async def test_with_redis_the_sealer_tells(alice: Person, alices: str, settings: Any) -> None:
    with servers.redis() as url:
        settings.REDIS_URL = f"{url}/0"
        connection = feed(alices)
        assert (await connection.connect())[0]
        assert (await connection.hear())["type"] == "ready"
        made = await sync_to_async(event)(alice.tenant)
        assert await sync_to_async(sealing.seal)()
        told = await connection.hear()
        assert f'id="event-{made.pk}"' in told["rows"]
        await connection.leave()


async def test_a_redis_that_is_away_stops_no_sealer(alice: Person, settings: Any) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    await sync_to_async(event)(alice.tenant)
    assert await sync_to_async(sealing.seal)()


async def test_an_operator_who_listens_is_on_record(alice: Person) -> None:
    olga = await sync_to_async(User.objects.create_superuser)("olga", password="x" * 20)
    cookie = await sync_to_async(session)(olga)
    for query, tenant in (("tenant=acme&band=high", alice.tenant.pk), ("", None)):
        connection = feed(cookie, query)
        await connection.connect()
        await connection.leave()
        reading = await sync_to_async(Event.objects.filter(code="audit.read").latest)("at")
        assert reading.tenant_id == tenant
        assert "live" in str(reading.details["filters"])


async def test_another_path_is_closed(db: None) -> None:
    connection = Connection("/ws/nothing")
    assert await connection.connect() == (False, 4404)


async def test_members_of_a_suspended_tenant_may_still_listen(alice: Person, alices: str) -> None:
    await sync_to_async(Tenant.objects.filter(pk=alice.tenant.pk).update)(state="suspended")
    connection = feed(alices)
    assert (await connection.connect())[0]
    await connection.leave()
