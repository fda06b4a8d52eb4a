"""Who may open which page: every route of the console, tried by the anonymous, by strangers and by members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import URLPattern, URLResolver

from audit import checkpoints, sealing
from audit.models import Event, Verdict
from gatehouse.console import urls
from tenants.models import Membership, Tenant, User
from tests.browser.ledger import SANDBOX, event, risky

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


def guarded(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    """Return the paths of all pages of a tenant and of the operators, with their parameters in angle brackets."""
    for one in patterns:
        path = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from guarded(one.url_patterns, path)
        elif isinstance(one, URLPattern) and path.startswith(("t/", "operator/")):
            yield "/" + path


PAGES = sorted(guarded(urls.urlpatterns))
OF_TENANTS = [path for path in PAGES if path.startswith("/t/")]
OF_OPERATORS = [path for path in PAGES if path.startswith("/operator/")]


@pytest.fixture
def olga() -> User:
    """Return Olga the operator."""
    return User.objects.create_superuser("olga", password=PASSWORD, first_name="Olga")


@pytest.fixture
def theirs(alice: Person) -> dict[str, str]:
    """Return what the parameters of Acme's pages may be."""
    made = risky(alice.tenant)
    sealing.seal()
    assert checkpoints.sign_due()
    verdict = Verdict.objects.create(
        tenant_id=alice.tenant.pk, event_id=made.pk, sandbox_id=SANDBOX, action="pause", score=88, threshold=80
    )
    return {
        "<slug:slug>": "acme",
        "<str:event_id>": made.pk,
        "<str:sandbox_id>": SANDBOX,
        "<str:verdict_id>": verdict.pk,
    }


def filled(path: str, parameters: dict[str, str]) -> str:
    """Return a path with parameters in place."""
    for name, value in parameters.items():
        path = path.replace(name, value)
    assert "<" not in path, path
    return path + "?format=csv" * path.endswith("/export")


def signed_in(user: User) -> Client:
    """Return somebody's browser."""
    client = Client()
    client.force_login(user)
    return client


def test_a_member_opens_every_page_of_their_tenant(alice: Person, theirs: dict[str, str]) -> None:
    for path in OF_TENANTS:
        answer = signed_in(alice.user).get(filled(path, theirs))
        assert answer.status_code == 200, path
        assert answer["Cache-Control"] == "no-store"
        assert answer["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")


@pytest.mark.parametrize("path", OF_TENANTS)
def test_a_stranger_sees_what_somebody_sees_who_asks_for_nothing(
    mallory: Person, theirs: dict[str, str], path: str
) -> None:
    client = signed_in(mallory.user)
    answer = client.get(filled(path, theirs))
    nothing = client.get(filled(path, theirs | {"<slug:slug>": "no-such-tenant"}))
    assert (answer.status_code, answer.content) == (404, nothing.content)


@pytest.mark.parametrize("path", [path for path in OF_TENANTS if path.count("<") > 1])
def test_another_tenants_things_are_not_found_under_the_own_tenant(
    mallory: Person, theirs: dict[str, str], path: str
) -> None:
    answer = signed_in(mallory.user).get(filled(path, theirs | {"<slug:slug>": "evil-corp"}))
    assert answer.status_code == 404


@pytest.mark.parametrize("path", OF_OPERATORS)
def test_operators_pages_do_not_exist_for_members(alice: Person, theirs: dict[str, str], path: str) -> None:
    assert signed_in(alice.user).get(filled(path, theirs)).status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_the_anonymous_are_sent_to_the_door(theirs: dict[str, str], path: str) -> None:
    page = filled(path, theirs)
    answer = Client().get(page)
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/accounts/login/")
    part = Client().get(page, headers={"HX-Request": "true"})
    assert (part.content, part["HX-Redirect"]) == (b"", "/accounts/login/")


@pytest.mark.parametrize("path", PAGES)
def test_every_reading_of_an_operator_is_an_event(olga: User, theirs: dict[str, str], path: str) -> None:
    answer = signed_in(olga).get(filled(path, theirs))
    assert answer.status_code == 200
    tenant = Tenant.objects.get(slug="acme").pk if path.startswith("/t/") else None
    reading = Event.objects.get(code="audit.exported" if "/export" in path else "audit.read")
    assert (reading.tenant_id, reading.actor_name) == (tenant, "Olga")


def test_members_readings_are_not_events(alice: Person, theirs: dict[str, str]) -> None:
    for path in OF_TENANTS:
        assert signed_in(alice.user).get(filled(path, theirs)).status_code == 200
    assert not Event.objects.filter(code="audit.read").exists()


def test_who_is_no_member_any_more_is_a_stranger_at_once(bob: Person, theirs: dict[str, str]) -> None:
    client = signed_in(bob.user)
    assert client.get("/t/acme/audit").status_code == 200
    Membership.everywhere().filter(user=bob.user).delete()
    assert client.get("/t/acme/audit").status_code == 404


def test_a_closed_account_is_signed_out(bob: Person) -> None:
    client = signed_in(bob.user)
    User.objects.filter(pk=bob.user.pk).update(is_active=False)
    assert client.get("/t/acme/audit").status_code == 302


def test_members_of_a_suspended_tenant_still_read(alice: Person) -> None:
    Tenant.objects.filter(pk=alice.tenant.pk).update(state="suspended")
    assert signed_in(alice.user).get("/t/acme/audit").status_code == 200


def test_the_switcher_names_only_what_somebody_may_open(alice: Person, mallory: Person, olga: User) -> None:
    seen = signed_in(alice.user).get("/t/acme/audit").content.decode()
    assert "/t/acme/audit" in seen
    assert "evil-corp" not in seen
    assert "/operator/" not in seen
    all_of_them = signed_in(olga).get("/operator/audit").content.decode()
    assert all(f'href="{path}"' in all_of_them for path in ("/t/acme/audit", "/t/evil-corp/audit", "/admin/"))


def test_the_root_leads_everybody_to_their_first_page(alice: Person, olga: User) -> None:
    nina = User.objects.create_user("nina")
    assert Client().get("/")["Location"] == "/accounts/login/"
    assert signed_in(olga).get("/")["Location"] == "/operator/audit"
    assert signed_in(alice.user).get("/")["Location"] == "/t/acme/audit"
    assert "not a member of a tenant yet" in signed_in(nina).get("/").content.decode()


def test_the_list_costs_the_same_however_long_it_is(alice: Person, olga: User, django_assert_num_queries: Any) -> None:
    for minutes in range(60):
        event(alice.tenant, minutes_ago=minutes)
    member, operator = signed_in(alice.user), signed_in(olga)
    for client in (member, operator):
        client.get("/t/acme/audit")
    # Session, account, membership with tenant, chain, page, place of the feed, and the switcher's tenants.
    with django_assert_num_queries(7):
        assert "Older events" in member.get("/t/acme/audit").content.decode()
    with django_assert_num_queries(5):
        member.get("/t/acme/audit", headers={"HX-Request": "true"})
    # An operator costs the note of the reading in a transaction, and all chains together the state of the ledger.
    with django_assert_num_queries(14):
        operator.get("/operator/audit")


def test_a_page_of_another_form_of_url_is_a_page_too(alice: Person) -> None:
    answer = signed_in(alice.user).get("/t/acme/no/such/page")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "Not found" in answer.content.decode()


@pytest.mark.parametrize(
    ("query", "said"),
    [("cursor=x", "did not give out this cursor"), ("band=purple", "Risk:"), ("since=yesterday", "From (UTC):")],
)
def test_a_url_that_asks_for_nonsense_is_told_so(alice: Person, query: str, said: str) -> None:
    answer = signed_in(alice.user).get(f"/t/acme/audit?{query}")
    assert answer.status_code == 400
    assert said in answer.content.decode()


def test_guesses_are_limited(olga: User) -> None:
    cache.clear()
    client = Client()
    answers = [client.post("/accounts/login/", {"login": "olga", "password": f"guess {n}"}) for n in range(6)]
    assert all(answer.status_code == 200 for answer in answers)
    assert "Too many failed login attempts" in answers[-1].content.decode()
    right = client.post("/accounts/login/", {"login": "olga", "password": PASSWORD})
    assert right.status_code == 200
    assert "_auth_user_id" not in client.session
    cache.clear()


def test_the_admin_has_no_door_of_its_own(olga: User, alice: Person) -> None:
    answer = Client().get("/admin/login/?next=/admin/")
    assert (answer.status_code, answer["Location"]) == (302, "/accounts/login/?next=%2Fadmin%2F")
    assert signed_in(alice.user).get("/admin/login/").status_code == 403
    assert signed_in(olga).get("/admin/").status_code == 200


def test_nobody_signs_up(db: None) -> None:
    assert Client().get("/accounts/signup/").status_code == 404


def test_signing_out_needs_a_form_of_ours(alice: Person) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice.user)
    answer = client.post("/accounts/logout/")
    assert (answer.status_code, "form is too old" in answer.content.decode()) == (403, True)
    assert client.get("/t/acme/audit").status_code == 200


def test_a_verdict_is_overridden_by_who_may_and_nobody_else(
    alice: Person, vera: Person, mallory: Person, theirs: dict[str, str]
) -> None:
    path = filled("/t/<slug:slug>/audit/verdicts/<str:verdict_id>/override", theirs)
    assert signed_in(vera.user).post(path, {"note": "fine"}).status_code == 403
    assert signed_in(mallory.user).post(path, {"note": "fine"}).status_code == 404
    elsewhere = path.replace("/acme/", "/evil-corp/")
    assert signed_in(mallory.user).post(elsewhere, {"note": "fine"}).status_code == 404
    assert signed_in(alice.user).post(path, {"note": " "}).status_code == 422
    assert Verdict.objects.get().state == "pending"

    answer = signed_in(alice.user).post(path, {"note": "A known test."})

    assert (answer.status_code, answer["Location"]) == (302, f"/t/acme/audit/{theirs['<str:event_id>']}")
    assert (Verdict.objects.get().state, Verdict.objects.get().note) == ("overridden", "A known test.")
    told = Event.objects.get(code="risk.overridden")
    assert (told.tenant_id, told.actor_name, told.details["note"]) == (alice.tenant.pk, "Alice", "A known test.")
    assert signed_in(alice.user).post(path, {"note": "again"}).status_code == 409
