"""The pages that people sign in at, without a script. Pure; how they look is `Draws`'s business, and whatever somebody else
chose, such as what a device calls itself, is escaped there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from forebay_admin.sign_in.devices import Device, shown

HOME = "/me"
"""Where people go on to who came from nowhere."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""The content security policy of these pages."""
THEME_COOKIE = "forebay_theme"
THEMES = ("light", "dark")


class Draws(Protocol):
    def text(self, template: str, told: dict[str, Any]) -> str: ...


class SignInPages:
    """Each is the page's HTML. `theme`: light, dark, or anything else for what the system says."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def sign_in(self, theme: str, next_path: str, providers: Iterable[tuple[str, str]], problem: str = "") -> str:
        """`providers`: names and titles."""
        told = {"next": next_path, "providers": tuple(providers), "problem": problem}
        return self._page(theme, "sign_in.html", "Sign in", told)

    def set_password(self, theme: str, token: str, problem: str = "") -> str:
        return self._page(theme, "password.html", "Set your password", {"token": token, "problem": problem})

    def device_code(self, theme: str, problem: str = "") -> str:
        return self._page(theme, "device_code.html", "Sign in on a device", {"problem": problem})

    def device(self, theme: str, waiting: Device, user: str, csrf: str) -> str:
        told = {
            "user": user,
            "csrf": csrf,
            "code": waiting.user_code,
            "shown": shown(waiting.user_code),
            "address": waiting.address,
            "calls_itself": waiting.user_agent,
        }
        return self._page(theme, "device.html", "Sign in on a device", told)

    def said(self, theme: str, title: str, text: str, onward: tuple[str, str] | None = None) -> str:
        """`onward`: an address and what is written on the link there."""
        return self._page(theme, "said.html", title, {"text": text, "onward": onward})

    def _page(self, theme: str, template: str, title: str, told: dict[str, Any]) -> str:
        known = {"title": title, "theme": theme if theme in THEMES else ""}
        return self._draws.text(f"sign_in/{template}", {**known, **told})
