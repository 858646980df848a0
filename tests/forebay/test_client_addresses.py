"""Where a request comes from: what a client writes itself never counts, whatever it writes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.client_addresses import (
    ForwardedHeader,
    TrustedProxies,
    client_address,
    neighbourhood,
    parse_network,
    read_proxies,
)

NOBODY = TrustedProxies()
XFF = read_proxies(["10.0.0.0/8", "2001:db8:ffff::/48"], "X-Forwarded-For")
FORWARDED = read_proxies(["10.0.0.0/8"], "forwarded")


@pytest.mark.parametrize(
    ("peer", "lines", "proxies", "address"),
    [
        ("203.0.113.9", [], NOBODY, "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], NOBODY, "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], XFF, "203.0.113.9"),
        ("::ffff:203.0.113.9", [], NOBODY, "203.0.113.9"),
        ("2001:DB8:0::1", [], NOBODY, "2001:db8::1"),
        ("", ["198.51.100.1"], XFF, ""),
        ("10.0.0.1", [], XFF, "10.0.0.1"),
        ("10.0.0.1", [""], XFF, "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], XFF, "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], XFF, "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:4711"], XFF, "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], XFF, "2001:db8::7"),
        ("2001:db8:ffff::1", ["2001:db8::7"], XFF, "2001:db8::7"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9, 10.0.0.2"], XFF, "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9", "10.0.0.2"], XFF, "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.4,10.0.0.3"], XFF, "10.0.0.4"),
        ("10.0.0.1", ["198.51.100.1, unknown"], XFF, "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, 010.0.0.9"], XFF, "10.0.0.1"),
        ("10.0.0.1", ["for=203.0.113.9"], XFF, "10.0.0.1"),
        ("10.0.0.1", ["for=203.0.113.9"], FORWARDED, "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9"], FORWARDED, "10.0.0.1"),
        ("10.0.0.1", ['For="[2001:db8::7]:4711";proto=https;by=10.0.0.1'], FORWARDED, "2001:db8::7"),
        ("10.0.0.1", ["by=1.1.1.1; for=203.0.113.9 ;host=x"], FORWARDED, "203.0.113.9"),
        ("10.0.0.1", ["for=203.0.113.9;for=198.51.100.1"], FORWARDED, "10.0.0.1"),
        ("10.0.0.1", ["for=_hidden"], FORWARDED, "10.0.0.1"),
        ("10.0.0.1", ['for="198.51.100.1, for=203.0.113.9'], FORWARDED, "203.0.113.9"),
        ("10.0.0.1", ['for=198.51.100.1", for=203.0.113.9, for=10.0.0.2'], FORWARDED, "203.0.113.9"),
    ],
)
def test_the_nearest_address_that_no_proxy_of_ours_has(
    peer: str, lines: list[str], proxies: TrustedProxies, address: str
) -> None:
    assert client_address(peer, lines, proxies) == address


PROXIES = (
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8:ffff::/48"),
    ipaddress.ip_network("::/16"),
)


def is_outside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """And not one that is also written otherwise, as those in ::/16 may be."""
    return not any(address in network for network in PROXIES)


outside = st.ip_addresses().filter(is_outside)
junk = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
proxy = st.ip_addresses(network="10.0.0.0/8").map(str)


@settings(max_examples=30, deadline=None)
@given(
    forged=st.lists(st.one_of(junk, proxy), max_size=4), client=outside, hops=st.lists(proxy, max_size=3), peer=proxy
)
@pytest.mark.parametrize("header", list(ForwardedHeader))
def test_whatever_a_client_writes_it_comes_from_where_it_comes_from(
    header: ForwardedHeader,
    forged: list[str],
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    hops: list[str],
    peer: str,
) -> None:
    """The first proxy appends the client's address to what came, to the same line or as a line of its own; the others do
    the same with the one before them."""
    proxies = TrustedProxies(XFF.networks, header)
    shown = [str(client), *hops]
    if header is ForwardedHeader.FORWARDED:
        shown = [f'for="[{one}]"' if ":" in one else f"for={one}" for one in shown]
    assert client_address(peer, [*forged, ", ".join(shown)], proxies) == str(client)
    assert client_address(peer, [", ".join([*forged, *shown])], proxies) == str(client)
    assert client_address(peer, [*forged, *shown], proxies) == str(client)


@settings(max_examples=30, deadline=None)
@given(peer=outside, lines=st.lists(junk, max_size=4))
def test_whom_nobody_trusts_says_nothing(peer: ipaddress.IPv4Address | ipaddress.IPv6Address, lines: list[str]) -> None:
    for proxies in (NOBODY, XFF, FORWARDED):
        assert client_address(str(peer), lines, proxies) == str(peer)


@pytest.mark.parametrize(
    ("networks", "header", "why"),
    [
        (["proxy.example.org"], "x-forwarded-for", "neither an address nor a network"),
        (["0.0.0.0/0"], "x-forwarded-for", "is everybody"),
        (["::/0"], "x-forwarded-for", "is everybody"),
        (["10.0.0.1"], "x-real-ip", "none of x-forwarded-for, forwarded"),
    ],
)
def test_what_is_no_proxy_is_refused_before_anything_starts(networks: list[str], header: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_proxies(networks, header)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("192.0.2.0/33", None),
        ("all", None),
        ("", None),
    ],
)
def test_a_network_in_one_form(text: str, network: str | None) -> None:
    found = parse_network(text)
    assert (str(found) if found is not None else None) == network


def test_whoever_has_an_address_of_ipv6_has_its_whole_network() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1") == "2001:db8::/64"
    assert neighbourhood("::ffff:192.0.2.7") == "192.0.2.7"
