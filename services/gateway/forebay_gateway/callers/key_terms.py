"""What a key allows beyond its models, its band and its pool. Pure; a key without such terms costs nothing here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from forebay.errors import NotAllowed
from forebay_gateway.fleet import USUAL_TAG

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AuditPolicy(StrEnum):
    """What is kept of a key's requests and answers."""

    OFF = "off"
    METADATA = "metadata"
    FULL = "full"
    SAMPLED = "sampled"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What is empty or None does not restrict."""

    denied_models: tuple[str, ...] = ()
    """Names, or patterns in which * stands for anything. They go before those that are allowed."""
    other_pools: frozenset[str] = frozenset()
    """Whose addresses it may use besides its own pool's."""
    networks: tuple[Network, ...] = ()
    """From where it may be used."""
    calls: frozenset[str] = frozenset()
    """What it may ask for: chat, embedding, …"""
    max_output_tokens: int | None = None
    max_context_tokens: int | None = None
    """Of a prompt."""
    audit: AuditPolicy | None = None
    """None: nobody says anything about it."""
    audit_permille: int = 0
    """Of each thousand requests, where samples are kept."""

    def denies(self, model: str) -> bool:
        """By its name, with Ollama's usual tag or without."""
        if not self.denied_models:
            return False
        bare = model.removesuffix(USUAL_TAG)
        return any(
            fnmatchcase(model, pattern) or fnmatchcase(bare, pattern.removesuffix(USUAL_TAG))
            for pattern in self.denied_models
        )

    def demand_address(self, address: str) -> None:
        """`address`: the client's, as `client_address` gives it. Raises NotAllowed."""
        if self.networks and not is_within(address, self.networks):
            raise NotAllowed(
                f"This API key may not be used from {address or 'an unknown address'}. Use it from one of the networks it "
                "was made for, or ask your administrator to add this one."
            )


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether one of these has it. Nothing has what is no address."""
    found = parse_address(address)
    return found is not None and any(found in network for network in networks)


def parse_address(text: str) -> Address | None:
    """An IPv4 address that came in IPv6's clothes is one of IPv4. None: it is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without the interface of a link-local one
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """What is no network is none that has any address, so that it narrows: a key is never taken for a freer one."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            found.append(_NOWHERE)
    return tuple(found)


_NOWHERE = ipaddress.ip_network("255.255.255.255/32")
