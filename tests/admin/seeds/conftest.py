"""A script of another gateway at a real admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.admin.replica import Running


@dataclass
class Script:
    address: str
    key: str
    session: aiohttp.ClientSession

    async def __call__(self, verb: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        """Status and JSON, or text where it is none."""
        answer = await self.ask(verb, path, body, key=key)
        told = await answer.read()
        return answer.status, await answer.json() if answer.content_type == "application/json" else told.decode()

    async def ask(
        self, verb: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        key = self.key if key is None else key
        held = {"authorization": f"Bearer {key}"} if key else {}
        return await self.session.request(verb, f"{self.address}{path}", json=body, headers={**held, **(headers or {})})

    async def done(self, verb: str, path: str, body: Any = None) -> Any:
        status, told = await self(verb, path, body)
        assert status in (200, 201, 204), told
        return told


@pytest.fixture
async def script(admin: Running) -> AsyncIterator[Script]:
    async with aiohttp.ClientSession() as session:
        yield Script(f"http://{admin.http_address}", admin.site.first_key, session)
