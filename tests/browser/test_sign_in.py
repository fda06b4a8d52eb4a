"""Somebody signs in with name and password, and lands where they have a place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tenants.models import User

if TYPE_CHECKING:
    from tests.browser.console import Windows
    from tests.people import Person

PASSWORD = "correct horse battery"


def test_an_operator_signs_in_and_out(windows: Windows, olga: User) -> None:
    page = windows.open().open("/")
    assert page.url.endswith("/accounts/login/")
    page.get_by_label("Username").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/operator/audit")

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/")
    page.goto(windows.url + "/operator/audit")
    assert page.url.endswith("/accounts/login/?next=%2Foperator%2Faudit")


def test_a_member_lands_at_their_tenant(windows: Windows, bob: Person) -> None:
    bob.user.set_password(PASSWORD)
    bob.user.save()
    page = windows.open().open("/t/acme/audit")
    page.get_by_label("Username").fill("bob")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/t/acme/audit")
    assert page.get_by_role("button", name=re.compile("Acme")).is_visible()


def test_a_wrong_password_is_said_in_place(windows: Windows, olga: User) -> None:
    console = windows.open()
    page = console.open("/accounts/login/")
    page.get_by_label("Username").fill("olga")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_text("not correct").is_visible()
    assert console.accessibility() == []


@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/logout/", "/", "/t/nobody/audit", "/t/no/such/page"])
def test_pages_outside_the_shell_are_well_made(windows: Windows, path: str) -> None:
    user = None if path == "/accounts/login/" else User.objects.create_user("nina", first_name="Nina")
    for theme in ("light", "dark"):
        console = windows.open(user, theme=theme)
        console.open(path)
        assert (console.accessibility(), console.overflow()) == ([], 0)
        # The browser itself reports a page that answers 404.
        console.complaints = [one for one in console.complaints if "404" not in one]


def test_the_theme_follows_the_device_and_is_remembered(windows: Windows, olga: User) -> None:
    console = windows.open(olga, theme="dark")
    page = console.open("/operator/audit")
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "light"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "light"
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
