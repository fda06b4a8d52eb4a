"""The console in a real browser, as a person sees it: what it complains about fails the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.test import Client
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

    from tenants.models import User

AXE = (Path(__file__).parent / "vendor" / "axe-core-4.14.1" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
THEMES = ("light", "dark")
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
# Policy violations that break nothing would otherwise pass unseen.
_WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""
_COMING = ".gh-chart-skeleton, #live[data-state=connecting]"


@dataclass
class Console:
    """One browser window at the console. `complaints` is what the browser had to say."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Listen to everything that must not happen."""
        self.page.add_init_script(_WATCH)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._failed)

    def open(self, path: str) -> Page:
        """Go to a page and wait until all of it is there: its scripts, its chart and its live connection."""
        self.page.goto(self.url + path, wait_until="load")
        # A locator: functions that are waited for are evaluated, which the policy forbids.
        expect(self.page.locator(_COMING)).to_have_count(0)
        return self.page

    def accessibility(self) -> list[str]:
        """Return what axe finds on the page as it is now."""
        self.page.evaluate(AXE)
        found: dict[str, Any] = self.page.evaluate(
            "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
        )
        return [
            f"{one['id']}: {node['target']} {node['failureSummary'][:300]}"
            for one in found["violations"]
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.complaints.append(f"foreign: {request.url}")

    def _failed(self, request: Request) -> None:
        # A page that is left takes its open requests with it.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url} {request.failure}")


@dataclass
class Windows:
    """Opens windows of one browser, signed in or not."""

    browser: Browser
    url: str
    opened: list[Console] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, user: User | None = None, *, theme: str = "light", size: dict[str, int] | None = None) -> Console:
        """Return a new window with cookies of its own."""
        context = self.browser.new_context(
            color_scheme=theme,  # type: ignore[arg-type]
            viewport=size or WIDE,  # type: ignore[arg-type]
            timezone_id="Europe/Berlin",
            locale="en-GB",
        )
        self.contexts.append(context)
        if user is not None:
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session(user), "url": self.url}])
        console = Console(context.new_page(), self.url)
        console.watch()
        self.opened.append(console)
        return console

    def without_scripts(self, user: User) -> Page:
        """Return a window that runs no script."""
        context = self.browser.new_context(java_script_enabled=False)
        self.contexts.append(context)
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session(user), "url": self.url}])
        return context.new_page()

    def inspect(self, path: str, user: User | None) -> None:
        """Look at a page in both themes and at both widths: no complaint, nothing inaccessible, nothing cut off."""
        console = self.open(user)
        for size in (WIDE, NARROW):
            console.page.set_viewport_size(size)  # type: ignore[arg-type]
            for theme in THEMES:
                console.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                console.open(path)
                found = (console.accessibility(), console.overflow(), console.complaints)
                assert found == ([], 0, []), (path, theme, size["width"])
        self.contexts.pop().close()
        self.opened.remove(console)

    def close(self) -> None:
        """Close all windows."""
        for context in self.contexts:
            context.close()


def session(user: User) -> str:
    """Return the cookie of somebody who has signed in."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value
