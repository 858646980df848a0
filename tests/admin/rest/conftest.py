"""A client of the REST API, with the first admin's key unless another is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.admin.replica import Running


@dataclass
class Rest:
    address: str
    key: str
    session: aiohttp.ClientSession

    async def __call__(
        self, verb: str, path: str, body: Any = None, *, key: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        """Status and JSON."""
        answer = await self.ask(verb, path, body, key=key, **more)
        return answer.status, await answer.json()

    async def ask(
        self, verb: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        held = {"authorization": f"Bearer {self.key if key is None else key}", **(headers or {})}
        return await self.session.request(verb, f"{self.address}{path}", json=body, headers=held)


@pytest.fixture
async def rest(admin: Running) -> AsyncIterator[Rest]:
    async with aiohttp.ClientSession(requote_redirect_url=False) as session:
        yield Rest(f"http://{admin.http_address}/api/v1", admin.site.first_key, session)
