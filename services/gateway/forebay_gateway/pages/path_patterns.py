"""Addresses in which a part differs, such as `/v1/responses/{response_id}`. The others are in front's table."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

Page = Callable[..., Awaitable[web.StreamResponse]]
"""(request, call, and by its name each part that differs)."""
Addresses = Mapping[str, Mapping[str, Page]]
"""Pattern → method → page."""


class PathPatterns:
    def __init__(self, addresses: Addresses) -> None:
        """The first that fits counts."""
        self.addresses = list(addresses)
        self._pages = [(_as_regex(pattern), methods) for pattern, methods in addresses.items()]

    def find(self, path: str) -> dict[str, Callable[[Any, Any], Awaitable[web.StreamResponse]]] | None:
        """By method."""
        for pattern, methods in self._pages:
            if parts := pattern.fullmatch(path):
                return {method: partial(page, **parts.groupdict()) for method, page in methods.items()}
        return None


def _as_regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,256})", pattern))
