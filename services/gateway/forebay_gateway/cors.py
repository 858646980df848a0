"""Which pages in browsers may call this gateway (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol). Pure: front asks.

A browser sends no credentials of its own along: a page needs an API key like everyone else. So this protects those whose
browsers can reach the gateway from pages that they did not mean to let in, and not the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from forebay.errors import NotAllowed

_METHODS = "DELETE, GET, HEAD, OPTIONS, POST"
_USUAL_HEADERS = "accept, authorization, content-type, x-api-key"
_AGAIN_AFTER_S = 7200  # the longest that browsers keep an answer to a preflight
_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+(?:\s*,\s*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
_LONGEST_NAMES = 4096
_TOLD = frozenset(("request-id", "retry-after", "retry-after-ms", "x-request-id", "x-should-retry"))
_FAMILIES_TOLD = ("anthropic-ratelimit-", "x-forebay-", "x-ratelimit-")


class Origins:
    """Those that are allowed: `*` for all, or such as `https://chat.example.org`, where * stands for anything within a name
    or for a port."""

    def __init__(self, allowed: Iterable[str]) -> None:
        patterns = [origin.lower().rstrip("/") if origin != "*" else origin for origin in allowed]
        self._any = "*" in patterns
        self.without_origin: Mapping[str, str] = {} if self._any else {"vary": "origin"}
        """What is added to an answer to no page at all."""
        self._allowed = re.compile("|".join(map(_as_regex, patterns)) or r"(?!)")

    def allow(self, origin: str | None) -> bool:
        return origin is not None and (self._any or self._allowed.fullmatch(origin.lower()) is not None)

    def headers(self, origin: str | None, told: Iterable[str]) -> dict[str, str]:
        """What is added to an answer, whose own headers are `told`."""
        headers = dict(self.without_origin)
        if origin is not None and self.allow(origin):
            headers["access-control-allow-origin"] = "*" if self._any else origin
            seen = sorted(name for name in map(str.lower, told) if name in _TOLD or name.startswith(_FAMILIES_TOLD))
            headers["access-control-expose-headers"] = ", ".join(seen)
        return headers


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks before it calls. `headers` are looked up without regard to case."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(origins: Origins, headers: Mapping[str, str]) -> dict[str, str]:
    """What is answered with, beside what every answer has. Raises NotAllowed."""
    if not origins.allow(headers.get("origin")):
        raise NotAllowed(
            f"Pages from {headers.get('origin', '')[:200]!r} may not call this gateway; its operator allows them by the "
            "setting cors_origins."
        )
    asked = headers.get("access-control-request-headers", "").strip()
    names = asked if len(asked) <= _LONGEST_NAMES and _NAMES.fullmatch(asked) else _USUAL_HEADERS
    return {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": names,
        "access-control-max-age": str(_AGAIN_AFTER_S),
    }


def _as_regex(pattern: str) -> str:
    with_port = pattern.removesuffix(":*")
    port = "" if with_port == pattern else ":[0-9]{1,5}"
    return r"[^/\s]*".join(map(re.escape, with_port.split("*"))) + port
