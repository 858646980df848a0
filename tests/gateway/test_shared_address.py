"""A gateway at an address that somebody else holds and may hand to another one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from forebay.errors import CannotStart
from forebay_gateway.http_in.listening import open_listener
from tests.fakes.engine import FakeEngine
from tests.gateway.house import House, open_house


@pytest.fixture
def held() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def _body() -> dict[str, object]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "stream": True}


async def _ask(house: House, client: aiohttp.ClientSession) -> tuple[int, str, str | None]:
    """Status, the answer's end, and what it says of the connection."""
    async with client.post(f"{house.url}/v1/chat/completions", json=_body(), headers=house.headers) as answer:
        told = await answer.text()
        return answer.status, told.strip()[-12:], answer.headers.get("connection")


async def test_who_asks_on_a_kept_connection_while_it_leaves_is_answered_and_told_to_connect_anew(
    tmp_path: Path, held: socket.socket
) -> None:
    async with open_house(tmp_path, FakeEngine(), listen_descriptor=held.fileno()) as house:
        async with aiohttp.ClientSession() as client:
            first = asyncio.create_task(_ask(house, client))
            await asyncio.sleep(0)
            assert (await first)[:2] == (200, "data: [DONE]")
            stopping = asyncio.create_task(house.stop_gateway())
            await asyncio.sleep(0.1)
            assert await _ask(house, client) == (200, "data: [DONE]", "close")
            await stopping
        # Nobody takes connections now, and nobody is refused: the next gateway finds who came meanwhile.
        async with aiohttp.ClientSession() as client:
            waiting = asyncio.create_task(_ask(house, client))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await house.start_gateway(listen_descriptor=held.fileno())
            assert (await waiting)[:2] == (200, "data: [DONE]")


async def test_it_takes_nobody_before_it_is_ready(tmp_path: Path, held: socket.socket) -> None:
    async with open_house(tmp_path, FakeEngine(), listen_descriptor=held.fileno()) as house:
        await house.stop_gateway()
        await house.stop_server(house.scheduler)
        starting = asyncio.create_task(house.start_gateway(listen_descriptor=held.fileno(), listen_wait_s=60.0))
        async with aiohttp.ClientSession() as client:
            waiting = asyncio.create_task(_ask(house, client))
            await asyncio.wait([waiting, starting], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            assert (waiting.done(), starting.done()) == (False, False)
            await house.start_server(house.scheduler)
            await starting
            assert (await waiting)[:2] == (200, "data: [DONE]")


async def test_what_is_no_listening_socket_is_refused_by_name(tmp_path: Path, held: socket.socket) -> None:
    async with open_house(tmp_path, FakeEngine()) as house:
        with (tmp_path / "file").open("wb") as file:
            settings = replace(house.settings, listen_descriptor=file.fileno())
            with pytest.raises(CannotStart, match="no socket that this process was given"):
                open_listener(settings)
        with socket.socket() as mute, pytest.raises(CannotStart, match="does not listen"):
            open_listener(replace(house.settings, listen_descriptor=mute.fileno()))
