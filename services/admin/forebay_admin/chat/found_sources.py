"""What the web was found to say about a question of the chat: as far as a search server's answer, or what a page kept of
one, can be believed. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from forebay.errors import BadInput

MOST_FOUND = 6
MOST_QUERY = 400
_LONGEST_TITLE, _LONGEST_TEXT, _LONGEST_URL = 200, 1000, 2000


@dataclass(frozen=True, slots=True)
class Source:
    title: str
    url: str
    text: str
    """What the search server shows of it."""


def demand_query(told: object) -> str:
    """One line, cut where it is long. Raises BadInput."""
    words = " ".join(_plain(told).split())[:MOST_QUERY].strip() if isinstance(told, str) else ""
    if not words:
        raise BadInput("Say what is to be looked for.")
    return words


def sources_of(body: bytes) -> tuple[Source, ...]:
    """The first that have a public address, each once. Raises ValueError for what is not a search server's answer."""
    told = orjson.loads(body)
    results = told.get("results") if isinstance(told, dict) else None
    if not isinstance(results, list):
        raise ValueError("its answer has no list `results`")
    return _read(results, text="content")


def kept_sources(told: Mapping[str, Any]) -> tuple[Source, ...]:
    """What a page keeps with an answer, `told.sources`, as far as it can be one of ours: whoever has a session writes it."""
    sources = told.get("sources")
    return _read(sources, text="text") if isinstance(sources, list) else ()


def is_public(url: str) -> bool:
    """Whether it is a page that people elsewhere may find under this address too."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.username is not None or not host:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        last = host.rpartition(".")[2]
        return "." in host and not last.isdigit() and last not in ("localhost", "local", "internal", "lan", "home")


def _read(results: Iterable[Any], *, text: str) -> tuple[Source, ...]:
    """`text`: the field with what is shown of it."""
    found: dict[str, Source] = {}
    for one in results:
        if not isinstance(one, dict) or not isinstance(url := one.get("url"), str):
            continue
        if len(url) > _LONGEST_URL or not url.isprintable() or set(url) & set(' <>"') or not is_public(url):
            continue
        title, shown = (" ".join(_plain(one.get(name)).split()) for name in ("title", text))
        title = title[:_LONGEST_TITLE] or (urlsplit(url).hostname or "")
        found.setdefault(url, Source(title, url, shown[:_LONGEST_TEXT]))
        if len(found) == MOST_FOUND:
            break
    return tuple(found.values())


def _plain(value: object) -> str:
    """Without signs that cannot be seen: some turn the direction of what follows, or hide it."""
    text = value if isinstance(value, str) else ""
    return "".join(sign if sign.isprintable() else " " for sign in text)
