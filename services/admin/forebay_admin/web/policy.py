"""What browsers are told about our pages: no script, style, picture or frame of anybody else's, and none written into a
page. Pure."""

from __future__ import annotations

from collections.abc import Sequence

OWN_PAGES = (
    ("default-src", "'none'"),
    ("script-src", "'self'"),
    ("style-src", "'self'"),
    ("font-src", "'self'"),
    ("img-src", "'self' data: blob:"),
    ("media-src", "'self' blob:"),
    ("connect-src", "'self'"),
    ("form-action", "'self'"),
    ("frame-ancestors", "'none'"),
    ("base-uri", "'none'"),
    ("manifest-src", "'self'"),
)


def content_policy(also_connects: Sequence[str] = ()) -> str:
    """`also_connects`: origins that the page's scripts may call, such as the gateway's."""
    return "; ".join(
        f"{name} {' '.join((sources, *also_connects)) if name == 'connect-src' else sources}"
        for name, sources in OWN_PAGES
    )


HEADERS = {
    "content-security-policy": content_policy(),
    # With none at all, browsers would not say where a form comes from.
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
}
"""Beside those that every answer of this port has."""
