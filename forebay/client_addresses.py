"""Where a request comes from: the other end of its connection, or what a proxy that is trusted says of it. Pure.

What a header says counts as far as it was written by proxies that the configuration names, read from its end: whatever a
client wrote itself stands before that and never counts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEIGHBOURS = 64
_MOST_HOPS = 32
_LONGEST_REMEMBERED = 200
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):\d{1,5}")
_PAIR = re.compile(r'\s*([A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(?:;|$)')


class ForwardedHeader(StrEnum):
    """In which the trusted proxies say where a request came from. Only one counts: a proxy passes the other one on as the
    client wrote it."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"


@dataclass(frozen=True, slots=True, eq=False)  # told apart by what it is, which takes no time
class TrustedProxies:
    networks: tuple[Network, ...] = ()
    header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR

    def trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def read_proxies(networks: Iterable[str], header: str) -> TrustedProxies:
    """As settings give them. Raises ValueError."""
    found = []
    for text in networks:
        network = parse_network(text)
        if network is None:
            raise ValueError(f"trusted_proxies: {text!r} is neither an address nor a network, such as 10.0.0.0/24")
        if network.prefixlen == 0:
            raise ValueError(
                f"trusted_proxies: {text!r} is everybody, who then could say to come from anywhere: name the proxies alone"
            )
        found.append(network)
    if header.lower() not in set(ForwardedHeader):
        raise ValueError(f"forwarded_header: {header!r} is none of {', '.join(ForwardedHeader)}")
    return TrustedProxies(tuple(found), ForwardedHeader(header.lower()))


def client_address(peer: str, lines: Sequence[str], proxies: TrustedProxies) -> str:
    """`peer`: the other end of the connection. `lines`: the values of `proxies.header`, as often as it came. Gives the
    address without a port, one of IPv4 in IPv6's clothes as IPv4; what is no address stays as it is."""
    if not proxies.networks:
        return _in_one_form(peer)
    if sum(map(len, lines)) > _LONGEST_REMEMBERED:
        return _told(peer, tuple(lines), proxies)
    return _remembered(peer, tuple(lines), proxies)


def _told(peer: str, lines: tuple[str, ...], proxies: TrustedProxies) -> str:
    address = parse_address(peer)
    if address is None:
        return peer
    for _, told in zip(range(_MOST_HOPS), _from_the_end(lines, proxies.header), strict=False):
        if not proxies.trusts(address):
            break
        before = parse_address(told)
        if before is None:
            break  # the proxy does not know, or does not say: nobody else can
        address = before
    return str(address)


_remembered = lru_cache(maxsize=4096)(_told)


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """An IPv4 address that came in IPv6's clothes is one of IPv4. None: it is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without the interface of a link-local one
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def _in_one_form(address: str) -> str:
    parsed = parse_address(address)
    return str(parsed) if parsed is not None else address


def parse_network(text: str) -> Network | None:
    """Also of a single address. None: it is neither."""
    if "/" not in text:
        address = parse_address(text.strip())
        return ipaddress.ip_network(address) if address is not None else None
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return network


def neighbourhood(address: str) -> str:
    """What counts as one address where attempts are counted: of IPv6 the network of 64 bits, which whoever has one has
    whole. What is no address is itself."""
    found = parse_address(address)
    if found is None:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.is_loopback:
        return str(found)
    return str(ipaddress.ip_network((found, _NEIGHBOURS), strict=False))


def _from_the_end(lines: Sequence[str], header: ForwardedHeader) -> Iterable[str]:
    """What each proxy says of where it had the request from, the last one first. Empty where it says nothing that can be
    read."""
    read = _bare if header is ForwardedHeader.X_FORWARDED_FOR else _told_for
    for line in reversed(lines):
        # At commas even in quotes: an address has none, and a client's quote without an end must not hide what follows it.
        yield from (read(told) for told in reversed(line.split(",")))


def _told_for(element: str) -> str:
    """Of an element of `Forwarded` the one `for=`; of several, or of what is not well-formed, nothing."""
    told, at, element = [], 0, element.strip()
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            told.append(pair[3] if pair[2] is None else pair[2])
        at = pair.end()
    return _bare(told[0]) if len(told) == 1 else ""


def _bare(told: str) -> str:
    """Without brackets and port."""
    told = told.strip()
    if found := _IN_BRACKETS.fullmatch(told):
        return found[1]
    if found := _WITH_PORT.fullmatch(told):
        return found[1]
    return told
