"""Where a request to the pages comes from, and where somebody is sent on to: here, and nowhere else. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from forebay.errors import NotAllowed

_LONGEST_PATH = 500


class ForeignPage(NotAllowed):
    """This came from a page of another site, and was not done."""


def demand_own_page(headers: Mapping[str, str], own_origin: str) -> None:
    """What changes something is asked by a page of ours, or by a program, which says nothing about pages. Raises
    ForeignPage. `headers`: with names in any case. `own_origin`: scheme://host:port that others reach us at."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # which no page can write; an origin may be "null" of our own, too
        if site not in ("same-origin", "none"):
            raise ForeignPage
        return
    if "origin" not in headers:
        return
    if not own_page(headers, own_origin):
        raise ForeignPage


def own_page(headers: Mapping[str, str], own_origin: str) -> str:
    """The origin of the page of ours that asks; empty where it is none of ours, or nothing is said about it."""
    origin = headers.get("origin", "")
    try:
        host = urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
    is_ours = bool(host) and host in (headers.get("host", "").lower(), urlsplit(own_origin).netloc.lower())
    return origin if is_ours else ""


def safe_next(text: str) -> str:
    """A path of ours to go on to; the front page in place of anything else."""
    if not text.startswith("/") or text.startswith("//") or len(text) > _LONGEST_PATH:
        return "/"
    if "\\" in text or not text.isascii() or not text.isprintable() or " " in text:
        return "/"  # browsers read \ as /, and take control characters out
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc else text


def state_mark(state: str) -> bytes:
    """What is remembered of a state that was used."""
    return hashlib.sha256(state.encode()).digest()
