"""One admin for all tests of a module, and browsers in which people of each role are signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from forebay.local.postgres import Postgres
from forebay_admin.people.people import Role
from forebay_admin.service import MIGRATIONS
from forebay_admin.sign_in import http as sign_in_http
from forebay_admin.sign_in.bearers import SESSION_COOKIE
from forebay_admin.sign_in.pace import Pace
from tests.admin.conftest import open_site, starting
from tests.admin.replica import OperatorCalls, Running, Start
from tests.admin.sign_in.browser import Browser, open_browser
from tests.conftest import Migrated, database_like

PASSWORD = "correct horse battery"


@dataclass
class House:
    """`admin` is real; the registry and the schedulers beside it are tests.admin.replica's."""

    admin: Running
    root: OperatorCalls
    _stack: AsyncExitStack
    _start: Start
    _signed_in: dict[str, Browser] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.admin.http_address}"

    async def nobody(self, at: Running | None = None) -> Browser:
        return await self._stack.enter_async_context(open_browser((at or self.admin).http_address))

    def another(self, **settings: Any) -> AbstractAsyncContextManager[Running]:
        """A second replica, with other settings."""
        return self._start(**settings)

    async def signed_in(self, name: str, role: Role = Role.MEMBER) -> Browser:
        """Somebody's browser: made once, and the somebody with it."""
        if name not in self._signed_in:
            browser = await self.nobody()
            await self.root.AddUser(name=name, role=f"ROLE_{role.name}")
            reset = await self.root.ResetPassword(user=name)
            set_ = {"token": reset.token, "password": PASSWORD}
            assert (await browser.call("POST", "/sign-in/password", set_))[0] == 200
            assert (await browser.submit("/sign-in", name=name, password=PASSWORD))[0] == 303
            self._signed_in[name] = browser
        return self._signed_in[name]

    async def of(self, role: Role) -> Browser:
        return await self.signed_in(f"some-{role.value}", role)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    postgres_server: Postgres,
    migrated: Migrated,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_like(postgres_server, migrated("admin", MIGRATIONS)))
        site = await stack.enter_async_context(open_site(tmp_path_factory.mktemp("house"), url))
        # Everybody here comes from one address, which may come to sign in only so often; that it may not is tested there.
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sign_in_http, "Pace", lambda **_: Pace(at_once=10_000, every_s=1.0))
        start = starting(site, free_port)
        admin = await stack.enter_async_context(start())
        yield House(admin, await admin.operator(), stack, start)


HTML = {"accept": "text/html"}


async def page(browser: Browser, path: str, *, status: int = 200) -> str:
    """The page at that address, which has to be one."""
    found, text, _ = await browser.get(path, headers=HTML)
    assert found == status, text
    return text


async def send(browser: Browser, path: str, **fields: str) -> tuple[int, str, str]:
    """A form of a page of ours, with its token. Status, body, where it is sent on to."""
    cookie = browser.cookie(SESSION_COOKIE)
    session = cookie.value if cookie is not None else ""
    if session not in _tokens:  # asking for it is what one may do only so often
        _tokens[session] = await browser.csrf()
    return await browser.submit(path, csrf=_tokens[session], **fields)


_tokens: dict[str, str] = {}
"""By session."""
