"""The pages that people sign in at: plain HTML without a script. Pure.

Whatever somebody else chose, such as what a device calls itself, is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from forebay_admin.sign_in.devices import Device, shown

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2563eb; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa8ff; --bad: #ff8f8f; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 24rem; margin: 12vh auto 2rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } label { display: block; margin: .9rem 0 .2rem; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; border: 1px solid var(--line);
  border-radius: 6px; }
button, .way { font: inherit; display: block; width: 100%; box-sizing: border-box; margin: 1rem 0 0; padding: .55rem;
  border: 1px solid var(--accent); border-radius: 6px; text-align: center; text-decoration: none; cursor: pointer;
  background: var(--accent); color: #fff; }
.way, .second { background: none; color: var(--accent); }
.bad { color: var(--bad); } .code { font: 1.6rem ui-monospace, monospace; letter-spacing: .1em; }
dt { opacity: .7; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
"""
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
POLICY = f"default-src 'none'; style-src {STYLE_SOURCE}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
"""The content security policy of these pages."""
THEME_COOKIE = "forebay_theme"
THEMES = ("light", "dark")


def sign_in(next_path: str, providers: Iterable[tuple[str, str]], problem: str = "") -> str:
    """`providers`: names and titles."""
    ways = "".join(
        f'<a class="way" href="/sign-in/with/{quote(name, safe="")}?next={quote(next_path, safe="")}">'
        f"Sign in with {escape(title)}</a>"
        for name, title in providers
    )
    form = (
        '<form method="post" action="/sign-in">'
        f'<input type="hidden" name="next" value="{escape(next_path)}">'
        '<label for="name">Name</label><input id="name" name="name" autocomplete="username" required autofocus>'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        "<button>Sign in</button></form>"
    )
    return _page("Sign in", f"{_problem(problem)}{form}{ways}")


def set_password(token: str, problem: str = "") -> str:
    return _page(
        "Set your password",
        f"{_problem(problem)}<p>At least 12 characters; a few words are easy to remember.</p>"
        '<form method="post" action="/sign-in/password">'
        '<label for="token">Token</label>'
        f'<input id="token" name="token" value="{escape(token)}" autocomplete="off" required>'
        '<label for="password">New password</label>'
        '<input id="password" name="password" type="password" autocomplete="new-password" required minlength="12">'
        "<button>Set it</button></form>",
    )


def device_code(problem: str = "") -> str:
    return _page(
        "Sign in on a device",
        f"{_problem(problem)}<p>Type the code that the device shows.</p>"
        '<form method="get" action="/device"><label for="code">Code</label>'
        '<input id="code" name="code" class="code" autocomplete="off" required autofocus>'
        "<button>Go on</button></form>",
    )


def device(waiting: Device, user: str, csrf: str) -> str:
    return _page(
        "Sign in on a device",
        f"<p>A device wants to sign in as <b>{escape(user)}</b>. Go on only when you began this yourself, and it shows:</p>"
        f'<p class="code">{escape(shown(waiting.user_code))}</p>'
        f"<dl><dt>Asked from</dt><dd>{escape(waiting.address)}</dd>"
        f"<dt>Calls itself</dt><dd>{escape(waiting.user_agent) or '—'}</dd></dl>"
        '<form method="post" action="/device">'
        f'<input type="hidden" name="code" value="{escape(waiting.user_code)}">'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
        '<button name="decision" value="confirm">Yes, sign it in</button>'
        '<button class="second" name="decision" value="refuse">No, I did not ask for this</button></form>',
    )


def signed_in(user: str, csrf: str) -> str:
    return _page(
        "Forebay",
        f"<p>You are signed in as <b>{escape(user)}</b>.</p>"
        '<a class="way" href="/device">Sign in on a device</a>'
        '<form method="post" action="/sign-out">'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
        '<button class="second">Sign out</button></form>',
    )


def said(title: str, text: str) -> str:
    return _page(title, f"<p>{escape(text)}</p>")


def _problem(text: str) -> str:
    return f'<p class="bad" role="alert">{escape(text)}</p>' if text else ""


def _page(title: str, inside: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{inside}</html>"
    )
