"""Addresses that no engine has: those at which clouds tell a machine its own secrets, and other link-local ones. Pure.

Whoever may name the address of an engine could have the answer of such a service shown as an engine's, or a credential
sent there. Names are looked at when they are told, and what they resolve to when a connection is made (`engine_sockets`)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

SETTING = "allow_link_local"

_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.tencentyun.com",
    }
)
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # Amazon
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def refusal(url: str) -> str | None:
    """Why the host of this URL is not looked at, as a sentence; None: nothing is known against it."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in _METADATA_NAMES:
        return _sentence(host, "a cloud's metadata service")
    address = _as_address(host)
    return address_refusal(str(address)) if address is not None else None


def address_refusal(text: str) -> str | None:
    """The same for one IP address, with or without a zone."""
    try:
        address = _inner(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
    if address in _METADATA:
        return _sentence(text, "a cloud's metadata service")
    if address.is_link_local:
        return _sentence(text, "a link-local address, where clouds' metadata services are")
    return None


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that some IPv6 addresses stand for."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _as_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # 2852039166 and 0xa9.254.0xa9fe are addresses to a resolver as well
    except (OSError, ValueError):
        return None


def _sentence(what: str, kind: str) -> str:
    return f"{what} is {kind}, and no engine is looked for there unless the setting {SETTING} says so"
