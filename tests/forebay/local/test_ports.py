"""Ports in use, and by whom."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable

import pytest

from forebay.errors import CannotStart
from forebay.local.ports import demand_free, holder, is_free


async def test_every_taken_port_is_named_with_who_holds_it(free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        taken = {"gateway": first.getsockname(), "NATS": second.getsockname(), "registry": ("127.0.0.1", free_port())}
        with pytest.raises(CannotStart) as told:
            await demand_free(taken)
    sentence = (
        f"Ports are in use: {taken['gateway'][1]} \\(gateway\\) by .*{os.getpid()}\\); "
        f"{taken['NATS'][1]} \\(NATS\\) by .*{os.getpid()}\\)\\. Stop what uses them, or choose others with --base-port\\."
    )
    assert re.fullmatch(sentence, str(told.value))


async def test_a_port_that_an_earlier_start_is_about_to_leave_is_waited_for(free_port: Callable[[], int]) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    asyncio.get_running_loop().call_later(0.3, server.close)
    await demand_free({"gateway": server.getsockname()}, wait_s=5)
    assert server.fileno() == -1


def test_a_port_with_closing_connections_is_free() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    client = socket.create_connection(address)
    accepted, _ = server.accept()
    accepted.close()  # the server's side closes first and keeps the pair in TIME_WAIT
    client.close()
    server.close()
    assert is_free(*address)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(CannotStart, match=r"192\.0\.2\.1 is no address of this machine"):
        is_free("192.0.2.1", 0)


def test_nobody_holds_a_free_port(free_port: Callable[[], int]) -> None:
    assert holder(free_port()) is None
