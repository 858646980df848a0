"""A browser, as far as signing in needs one: it keeps cookies, follows nothing, and says where its forms come from."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass
class Browser:
    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **more: Any) -> tuple[int, str, str]:
        """Status, body, and where it is sent on to."""
        return await self._ask("GET", path, **more)

    async def submit(self, path: str, origin: str | None = None, **fields: str) -> tuple[int, str, str]:
        """A form of a page of ours, unless `origin` says otherwise."""
        headers = {"origin": self.url if origin is None else origin, "accept": "text/html"}
        return await self._ask("POST", path, data=fields, headers=headers)

    async def call(self, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.session.request(verb, f"{self.url}{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def csrf(self) -> str:
        status, told = await self.call("GET", "/sign-in/me")
        assert status == 200
        token: str = told["csrf"]
        return token

    def cookie(self, name: str) -> Any:
        return next((cookie for cookie in self.session.cookie_jar if cookie.key == name), None)

    async def _ask(self, verb: str, path: str, **more: Any) -> tuple[int, str, str]:
        url = path if path.startswith("http") else f"{self.url}{path}"
        async with self.session.request(verb, url, allow_redirects=False, **more) as answer:
            return answer.status, await answer.text(), answer.headers.get("location", "")


@asynccontextmanager
async def open_browser(http_address: str) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # which keeps cookies of addresses, too
    async with aiohttp.ClientSession(cookie_jar=jar, headers={"user-agent": "browser/1"}) as session:
        yield Browser(f"http://{http_address}", session)


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return found[1]
