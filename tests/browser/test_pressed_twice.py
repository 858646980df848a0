"""Whoever presses a button twice has done it once."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.browser.visiting import House

PRESS_TWICE = """() => {
  const button = document.querySelector("main form[method=post] .form-foot button");
  button.click();
  setTimeout(() => button.click(), 300);
}"""
BOTH_MS = 800.0
"""Milliseconds, in which a second request would have been seen."""


def test_a_key_that_is_asked_for_twice_is_made_once(house: House) -> None:
    with house.visitor("member") as visitor:
        page = visitor.go("/me/keys/new")
        held: list[Route] = []
        page.route("**/me/keys/new", lambda route: held.append(route))
        page.get_by_label("Name").first.fill("pressed-twice")
        page.evaluate(PRESS_TWICE)
        page.wait_for_timeout(BOTH_MS)
        assert [route.request.method for route in held] == ["POST"]
        held[0].continue_()
        expect(page.get_by_role("heading", level=1)).to_have_text("Your new key")
