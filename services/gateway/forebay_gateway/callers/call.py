"""What an HTTP request asks for outside of its body: its path, its key, its id, and the wishes in `x-forebay-…` headers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from forebay.delegation import SCHEME
from forebay.ephemeral_keys import is_ephemeral
from forebay.traces.context import read_traceparent, read_tracestate
from forebay_gateway.callers.principals import Band, Principal
from forebay_gateway.callers.signed_call import is_signature
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoints
from forebay_gateway.refused import BadField, NoKey

_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_SESSION = re.compile(r"[\x21-\x7e]{1,256}")
_VERSION = re.compile(r"[\w.,: -]{1,1024}", re.ASCII)
_TITLE = re.compile(r"[\x20-\x7e]{1,512}")
_KEY_IN_PATH = re.compile(r"/k/([^/]*)(/.*)?", re.DOTALL)
_DELEGATED = SCHEME.lower()
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")
"""Anthropic's, Azure's and Google's."""
_NO_ENDPOINTS = VirtualEndpoints()
_NOTHING: Mapping[str, str] = MappingProxyType({})
_ANTHROPICS = ("anthropic-version", "anthropic-beta")
_TITLES = ("http-referer", "x-title")
LONGEST_DEADLINE_MS = 24 * 3600 * 1000


class Call(NamedTuple):
    method: str
    path: str
    """Without the key and the prefix of a pool that may have stood in front of it, and without `/anthropic`."""
    query: str
    """As it was sent, and without the ?."""
    key: str | None
    has_ephemeral_key: bool
    signature: str | None
    """What came in a key's place: see `signed_call`."""
    request_id: str
    priority: str | None
    deadline_ms: str | None
    fallback: str | None
    session_key: str
    traceparent: str | None
    is_anthropic: bool
    """By its path, or by the version that Anthropic's clients always send and others never do."""
    said: Mapping[str, str] = _NOTHING
    """Headers that some engine may see: those that say in which version of Anthropic's dialect its body is, and with what
    that not everybody gets; those that name the application to OpenRouter."""
    delegation: str | None = None
    """What came in a key's place: see `delegates`."""
    pool: str | None = None
    """Whose virtual endpoint it came to; None: nobody's."""
    origin: str = ""
    """Of the page whose browser sent it."""
    address: str = ""
    """Of the client, as `client_address` gives it."""
    tracestate: str = ""
    """What belongs to its `traceparent`, and goes on with that."""

    @property
    def is_anonymous(self) -> bool:
        return self.key is None and self.signature is None and self.delegation is None

    def demand_key(self) -> str:
        if not self.key:
            raise NoKey
        return self.key


def read_call(
    method: str,
    path: str,
    headers: Mapping[str, str],
    query: str = "",
    endpoints: VirtualEndpoints = _NO_ENDPOINTS,
    address: str = "",
) -> Call:
    """Never fails: what is wrong is refused where it is used. `headers` are looked up without regard to case."""
    key, path = _key_in_path(path)
    pool, path = endpoints.find(headers.get("host", ""), path)
    if key is None and pool is not None:
        key, path = _key_in_path(path)
    authorization = headers.get("authorization", "")
    scheme, _, credential = authorization.partition(" ")
    scheme, credential = scheme.lower(), credential.strip()
    if key is None:
        key = credential if scheme == "bearer" and credential else _key_in(headers)
    bare = path.removeprefix("/anthropic") if path.startswith("/anthropic/") else path
    anthropics = _sane(headers, _ANTHROPICS, _VERSION) if bare.startswith("/v1/messages") else _NOTHING
    titles = _sane(headers, _TITLES, _TITLE)
    session = headers.get("x-session-id")
    traceparent = headers.get("traceparent")
    if traceparent is not None:
        traceparent = read_traceparent(traceparent)
    return Call(
        method=method,
        path=bare,
        query=query,
        key=key,
        has_ephemeral_key=is_ephemeral(key),
        signature=authorization if is_signature(authorization) else None,
        delegation=credential if scheme == _DELEGATED else None,
        request_id=_request_id(headers.get("x-request-id")),
        priority=headers.get("x-forebay-priority"),
        deadline_ms=headers.get("x-forebay-deadline-ms"),
        fallback=headers.get("x-forebay-fallback"),
        session_key=session if session and _SESSION.fullmatch(session) else "",
        is_anthropic=bare is not path or bare.startswith("/v1/messages") or "anthropic-version" in headers,
        said={**anthropics, **titles} if anthropics and titles else anthropics or titles,
        pool=pool,
        origin=headers.get("origin", ""),
        address=address,
        traceparent=traceparent,
        tracestate="" if traceparent is None else read_tracestate(headers.get("tracestate", "")),
    )


def new_request_id() -> str:
    return f"req-{os.urandom(12).hex()}"


def wished_band(call: Call, principal: Principal) -> Band:
    """The band asked for, as urgent as the key may. Raises BadField."""
    if call.delegation is not None:
        return Band.BATCH
    if call.priority is None:
        return principal.usual_band
    try:
        asked = Band[call.priority.strip().upper()]
    except KeyError:
        names = ", ".join(band.name.lower() for band in Band)
        raise BadField(
            f"The header x-forebay-priority is {call.priority[:40]!r}; it can be one of {names}.",
            param="x-forebay-priority",
            code="invalid_value",
        ) from None
    return max(asked, principal.band_cap)


def wished_deadline_ms(call: Call) -> int:
    """From arrival to the first token; 0 when none was named. Raises BadField."""
    if call.deadline_ms is None:
        return 0
    text = call.deadline_ms.strip()
    if not re.fullmatch(r"[0-9]{1,12}", text) or not 0 < int(text) <= LONGEST_DEADLINE_MS:
        raise BadField(
            f"The header x-forebay-deadline-ms is {text[:40]!r}; it must be a whole number of milliseconds, "
            f"from 1 to {LONGEST_DEADLINE_MS}.",
            param="x-forebay-deadline-ms",
            code="invalid_value",
        )
    return int(text)


def wants_fallback(call: Call) -> bool:
    """Whether another model may answer, if somebody has said which. Raises BadField."""
    word = "on" if call.fallback is None else call.fallback.strip().lower()
    if word not in ("on", "off"):
        raise BadField(
            f"The header x-forebay-fallback is {word[:40]!r}; it can be on or off.",
            param="x-forebay-fallback",
            code="invalid_value",
        )
    return word == "on"


def _key_in_path(path: str) -> tuple[str | None, str]:
    """And the path without it."""
    found = _KEY_IN_PATH.fullmatch(path) if path.startswith("/k/") else None
    return (found[1], found[2] or "/") if found else (None, path)


def _key_in(headers: Mapping[str, str]) -> str | None:
    for name in _KEY_HEADERS:
        if key := headers.get(name, "").strip():
            return key
    return None


def _sane(headers: Mapping[str, str], names: tuple[str, ...], form: re.Pattern[str]) -> Mapping[str, str]:
    """Those of these headers that are there and have a form."""
    given = [(name, value) for name in names if (value := headers.get(name))]
    return {name: value for name, value in given if form.fullmatch(value)} if given else _NOTHING


def _request_id(given: str | None) -> str:
    return given if given and _SANE_ID.fullmatch(given) else new_request_id()
