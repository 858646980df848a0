"""Which addresses and names the gateway fetches from, and what slow name servers can hold up."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest

from forebay_gateway.public_addresses import PublicResolver, address_in, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("2606:2800::1%eth0", False),
        ("::", False),
        ("::1", False),
        ("::93.184.215.14", False),
        ("::ffff:192.168.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("::ffff:0:93.184.215.14", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("64:ff9b:1::5db8:d70e", False),
        ("100::1", False),
        ("2001::5db8:d70e", False),
        ("2001:20::1", False),
        ("2001:db8::1", False),
        ("2002:a00:1::", False),
        ("2002:c058:6301::", False),
        ("2002:5db8:d70e::", True),
        ("3fff::1", False),
        ("4000::1", False),
        ("5f00::1", False),
        ("fc00::1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("ff0e::1", False),
    ],
)
def test_an_address_is_public_when_anybody_may_ask_it(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "1.2.3.4.5", "a.1", "0x"]
)
def test_a_number_in_an_unusual_spelling_is_neither_an_address_nor_a_name(host: str) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        address_in(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("93.184.215.14", "93.184.215.14"),
        ("2606::1", "2606::1"),
        ("example.org", None),
        ("example.org.", None),
        ("1.example", None),
    ],
)
def test_a_host_is_an_address_or_a_name(host: str, address: str | None) -> None:
    assert address_in(host) == (ipaddress.ip_address(address) if address else None)


async def test_slow_names_hold_up_no_thread_but_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, asked = threading.Event(), []

    def slow(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        go_on.wait(300)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = PublicResolver(frozenset())
    try:
        given_up = await asyncio.gather(*(_briefly(resolver, f"n{n}.example") for n in range(50)))
        assert given_up == [True] * 50
        assert len(asked) == 16, "those that wait for a thread leave nothing behind"
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "at once"), 30) == "at once"
        go_on.set()
        (found,) = await asyncio.wait_for(resolver.resolve("late.example", 80), 30)
        assert (found["host"], found["port"], found["hostname"]) == ("93.184.215.14", 80, "late.example")
    finally:
        go_on.set()
        await resolver.close()


async def _briefly(resolver: PublicResolver, host: str) -> bool:
    """Whether nothing came of it in a moment."""
    try:
        async with asyncio.timeout(0.05):
            await resolver.resolve(host)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("host", ["localhost", "metadata.example"])
async def test_a_name_that_leads_to_a_private_address_is_refused_unless_trusted(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def found(host: str, port: int, **_: Any) -> Any:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("93.184.215.14", "10.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    wary, trusting = PublicResolver(frozenset()), PublicResolver(frozenset({host}))
    with pytest.raises(OSError, match="not public"):
        await wary.resolve(host, 80)
    assert len(await trusting.resolve(host, 80)) == 2
    await wary.close()
    await trusting.close()
