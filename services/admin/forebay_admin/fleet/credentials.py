"""Several keys for one backend: what they are called, and which may be added or taken away. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from forebay.errors import AlreadyExists, BadInput, NotFound

FIRST_LABEL = "default"
"""Of the one that comes with the backend."""
MOST_HELD = 32
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LONGEST_BEARER = 8192


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Who gets a credential that is sent there. Raises ValueError for what is no URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@dataclass(frozen=True, slots=True)
class Entry:
    label: str
    changed_at: datetime


def label_for(wanted: str, held: Sequence[Entry], *, replace: bool) -> str:
    """Under which label it is kept; `wanted` empty: the first that is free. Raises BadInput, AlreadyExists, NotFound."""
    labels = [entry.label for entry in held]
    if replace:
        return find(wanted, held).label
    if len(labels) >= MOST_HELD:
        raise BadInput(f"{MOST_HELD} keys are the most that a backend can have: remove one first.")
    if not wanted:
        return next(label for label in _usual_labels() if label not in labels)
    if not _LABEL.fullmatch(wanted):
        raise BadInput(
            f"{wanted!r} cannot be a label: begin with a letter or digit and use letters, digits, '.', '_' and '-', at "
            "most 63."
        )
    if wanted in labels:
        raise AlreadyExists(f"There is a key {wanted} already; say replace to put this one in its place.")
    return wanted


def find(label: str, held: Sequence[Entry]) -> Entry:
    """Raises BadInput, NotFound."""
    if not label:
        raise BadInput("Say which key by its label.")
    for entry in held:
        if entry.label == label:
            return entry
    listed = ", ".join(entry.label for entry in held)
    raise NotFound(f"The backend has no key {label!r}. {f'It has {listed}.' if listed else 'It has none.'}")


def demand_bearer(bearer: str) -> None:
    """Raises BadInput; empty is no key, and is for the caller to judge."""
    if len(bearer) > _LONGEST_BEARER or not bearer.isprintable() or not bearer.isascii():
        raise BadInput("An engine's key is one line of printable ASCII characters.")


def _usual_labels() -> Iterable[str]:
    yield FIRST_LABEL
    for number in range(2, MOST_HELD + 2):
        yield f"key-{number}"
