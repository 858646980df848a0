"""What tests of the pages do in a browser: who looks, at what, how wide and in which colours; what nobody may ever see, such
as a request to another host or a script that failed; pictures, and what axe says of a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
from playwright.sync_api import Request as Asked

from tests.fakes.search_server import SearchServer
from tests.system.installation import Installation

ROOT = Path(__file__).parents[2]
SCREENS = ROOT / "build" / "web" / "screens"
AXE = ROOT / "services/admin/forebay_admin/web/scripts/node_modules/axe-core/axe.min.js"

NOBODY = ""
ROLES = ("admin", "operator", "auditor", "member")
THEMES = ("light", "dark")
WIDE, PHONE = 1280, 390
HEIGHT = 900

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever asks another host finds none.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

PASSWORD = "correct horse battery"

every_look = pytest.mark.parametrize(
    ("theme", "width"), [(theme, width) for theme in THEMES for width in (WIDE, PHONE)]
)
"""A test with `theme` and `width`, four times."""


@dataclass
class Visitor:
    """One who looks, in a window of their own."""

    page: Page
    house: House
    label: str
    """How pictures of theirs are called: role, theme, width."""
    mishaps: list[str] = field(default_factory=list)
    may_fail: bool = False
    """Set by tests that want to see an address fail: browsers report those as errors."""

    def go(self, path: str, *, status: int = 200) -> Page:
        """To that page of admin's; waits until its scripts have run."""
        answer = self.page.goto(f"{self.house.url}{path}", wait_until="load")
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}\n{answer.text()[:2000]}"
        return self.page

    def shot(self, name: str) -> Path:
        """The whole page as a picture, in build/web/screens."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        path = SCREENS / f"{name}-{self.label}.png"
        self.page.screenshot(path=path, full_page=True, animations="disabled")
        return path

    def demand_accessible(self) -> None:
        """No violation of WCAG 2.2 AA, or of what axe thinks good practice."""
        found = self.violations()
        assert not found, _told(found)

    def violations(self) -> list[dict[str, Any]]:
        """As axe tells them."""
        self.page.evaluate(_axe())
        found: list[dict[str, Any]] = self.page.evaluate(_RUN_AXE, _AXE_OPTIONS)["violations"]
        return found

    def demand_fits(self) -> None:
        """The page itself never scrolls sideways."""
        over = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{self.page.url} is {over} px too wide: {self.page.evaluate(_TOO_WIDE)}"

    def script_bytes(self) -> int:
        """Of all scripts that the page has loaded so far, as they are when they are not compressed."""
        return int(self.page.evaluate(_SCRIPT_BYTES))

    def first_paint_ms(self) -> float:
        """When the first thing was to be seen (first contentful paint), from the asking on."""
        return float(self.page.evaluate(_FIRST_PAINT))

    def look_over(self, name: str) -> Path:
        """All that holds of every page: fits, accessible, a picture taken."""
        picture = self.shot(name)
        self.demand_fits()
        self.demand_accessible()
        return picture


@dataclass
class House:
    """A whole Forebay, a browser, and where the chat looks things up."""

    running: Installation
    browser: Browser
    search: SearchServer = field(default_factory=SearchServer)
    names: dict[str, str] = field(default_factory=dict)
    """Of what is only known once it runs."""
    _signed_in: dict[str, Any] = field(default_factory=dict)
    """The cookies of each role's somebody."""

    @property
    def url(self) -> str:
        return self.running.connection["admin_http"]

    @contextmanager
    def visitor(self, role: str = NOBODY, *, theme: str = "light", width: int = WIDE, **more: Any) -> Iterator[Visitor]:
        """Somebody of that role. Whatever went wrong in their window fails the test at the end. `more` goes to the
        browser's context, such as `java_script_enabled=False`."""
        state = self.state_of(role) if role else None
        context = self.browser.new_context(
            storage_state=state,
            color_scheme="dark" if theme == "dark" else "light",
            viewport={"width": width, "height": HEIGHT},
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="Europe/Berlin",
            **more,
        )
        context.set_default_timeout(60_000)
        try:
            visitor = Visitor(context.new_page(), self, f"{role or 'nobody'}-{theme}-{width}")
            self._watch(context, visitor)
            yield visitor
            assert visitor.may_fail or not visitor.mishaps, visitor.mishaps
        finally:
            context.close()

    def _watch(self, context: BrowserContext, visitor: Visitor) -> None:
        own = {urlsplit(self.url).netloc, urlsplit(self.running.gateway).netloc}

        def on_request(asked: Asked) -> None:
            parts = urlsplit(asked.url)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc not in own:
                visitor.mishaps.append(f"asked another host: {asked.url}")

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visitor.mishaps.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

        context.on("request", on_request)
        context.on("console", on_console)
        context.on("weberror", lambda error: visitor.mishaps.append(f"script failed: {error.error}"))

    def state_of(self, role: str) -> Any:
        """Of somebody of that role, who is made when first asked for."""
        if role not in self._signed_in:
            name = f"some-{role}"
            self.add_person(name, role)
            self._signed_in[role] = self.sign_in(name)
        return self._signed_in[role]

    def add_person(self, name: str, role: str) -> None:
        """Somebody with PASSWORD."""
        self.running.cli("user", "add", name, "--role", role)
        token = self.running.cli("user", "reset-password", name)["token"]
        body = json.dumps({"token": token, "password": PASSWORD}).encode()
        with urlopen(Request(f"{self.url}/sign-in/password", body, {"content-type": "application/json"})) as answer:
            assert answer.status == 200

    def sign_in(self, name: str) -> Any:
        """By the page; what their browser then holds."""
        context = self.browser.new_context()
        try:
            page = context.new_page()
            page.goto(f"{self.url}/sign-in")
            page.get_by_label("Name").fill(name)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in", exact=True).click()
            page.wait_for_url(lambda url: "/sign-in" not in url)
            return context.storage_state()
        finally:
            context.close()


_RUN_AXE = "(options) => axe.run(document, options)"
_AXE_OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}

_SCRIPT_BYTES = """() => performance.getEntriesByType("resource")
  .filter((one) => new URL(one.name).pathname.endsWith(".js")).reduce((sum, one) => sum + one.decodedBodySize, 0)"""
_FIRST_PAINT = """() => new Promise((told) => {
  new PerformanceObserver((list) => {
    for (const one of list.getEntriesByName("first-contentful-paint")) told(one.startTime);
  }).observe({type: "paint", buffered: true});
})"""

_TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter((e) => !e.closest(".table-scroll, .tabs, pre"))
  .slice(0, 8).map((e) => e.outerHTML.slice(0, 120))"""


@cache
def _axe() -> str:
    return AXE.read_text()


def _told(violations: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{one['id']} ({one['impact']}): {one['help']}\n"
        + "\n".join(f"    {node['html'][:200]}\n      {node['failureSummary'][:300]}" for node in one["nodes"][:5])
        for one in violations
    )
