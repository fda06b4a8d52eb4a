"""The console of a complete running Gatehouse: through the gateway, signed in by the form, live over its WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.console import Console

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.live import Stack

pytestmark = pytest.mark.stack
PASSWORD = "correct horse battery staple"
_SET_PASSWORD = f"""
from tenants.models import User
operator = User.objects.get(username="operator")
operator.set_password("{PASSWORD}")
operator.save()
"""


def test_an_operator_signs_in_and_sees_what_happens(browser: Browser, stack: Stack) -> None:
    stack.manage("shell", "-c", _SET_PASSWORD)
    context = browser.new_context()
    console = Console(context.new_page(), stack.url)
    console.watch()
    page = console.open("/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/operator/audit")
    expect(page.locator("#live")).to_have_text("Live")
    page.goto(f"{stack.url}/t/default/audit")
    expect(page.locator("#live")).to_have_text("Live")

    stack.manage("apikey", "create", "--tenant", "default", "--name", "seen-live")

    expect(page.locator("#rows tr").first).to_contain_text("apikey.created", timeout=20_000)
    assert console.accessibility() == []
    assert console.complaints == []
    context.close()
