"""An engine that was found, as the backend that it could be. Pure.

An agent says at which port an engine listens, never at which host: where a node is reached is what an operator says, or the
address that it enrolled from. So an agent that lies can point at its own node only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from forebay.engine_addresses import address_refusal
from forebay_registry.backend import DEFAULT_POOL, EngineKind
from forebay_registry.fleet.model_names import Names

MOST_ENGINES = 64
"""Of one node; more are no engines."""
OWN_PORTS = frozenset(range(8090, 8100))
"""Forebay's own."""
_MOST_NAME = 63
_BY_AGENT = frozenset({EngineKind.OLLAMA, EngineKind.VLLM, EngineKind.LLAMACPP, EngineKind.SGLANG})


class FoundBy(StrEnum):
    AGENT = "agent"
    KUBERNETES = "kubernetes"


class Policy(StrEnum):
    """What is done with the engines of a node."""

    SUGGEST = "suggest"
    AUTO = "auto"
    """They become backends by themselves."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an agent says of an engine."""

    kind: EngineKind | None
    port: int
    listens_on: str
    gpu_indices: tuple[int, ...] = ()
    gpus_known: bool = False
    pid: int | None = None
    version: str = ""
    models: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node is, and what may be done with engines there."""

    node: str
    policy: Policy | None = None
    """None: as the registry's settings say."""
    pool: str = ""
    addresses: tuple[str, ...] = ()
    """Host names or addresses by an operator's word, best first."""
    joined_from: str = ""
    """The address that it enrolled from; counts while no other is named."""

    @property
    def known(self) -> tuple[str, ...]:
        if self.addresses:
            return self.addresses
        return (self.joined_from,) if is_telling(self.joined_from) else ()


@dataclass(frozen=True, slots=True)
class Offer:
    found_by: FoundBy
    name: str
    url: str
    """Empty: it cannot be reached from outside, and `why_not` says why."""
    also_at: tuple[str, ...] = ()
    """Other addresses of the same engine."""
    why_not: str = ""
    kind: EngineKind | None = None
    pool: str = DEFAULT_POOL
    slots: int = 0
    node: str = ""
    port: int = 0
    gpu_indices: tuple[int, ...] = ()
    model_names: Names = ()
    is_auto: bool = False
    """It may become a backend by itself."""
    facts: EngineFacts | None = None
    """None: Kubernetes named it."""


def is_telling(address: str) -> bool:
    """Whether the address that a node enrolled from says where it is: not one behind which anybody may be."""
    parsed = _address(address)
    if parsed is None or parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast:
        return False
    return address_refusal(address) is None


def offers_of(site: Site, engines: Sequence[EngineFacts], usual: Policy) -> tuple[Offer, ...]:
    """What the agent of that node found; each port once. `usual`: the policy by the settings."""
    policy = site.policy or usual
    if policy is Policy.OFF:
        return ()
    by_port = {e.port: e for e in engines[:MOST_ENGINES] if 0 < e.port < 65536 and e.port not in OWN_PORTS}
    return tuple(
        _offer(site, facts, policy)
        for _, facts in sorted(by_port.items())
        if facts.kind is None or facts.kind in _BY_AGENT
    )


def _offer(site: Site, facts: EngineFacts, policy: Policy) -> Offer:
    host, why_not = _host_of(site, facts.listens_on)
    urls = [_url(known, facts.port) for known in site.known]
    url = _url(host, facts.port) if host else ""
    return Offer(
        FoundBy.AGENT,
        name_of(site.node, f"{facts.kind or 'engine'}-{facts.port}"),
        url,
        tuple(other for other in urls if other != url),
        why_not,
        facts.kind,
        site.pool or DEFAULT_POOL,
        node=site.node,
        port=facts.port,
        gpu_indices=facts.gpu_indices,
        is_auto=policy is Policy.AUTO,
        facts=facts,
    )


def _host_of(site: Site, listens_on: str) -> tuple[str, str]:
    """Where the engine is reached, or why it is not."""
    bound = _address(listens_on)
    if bound is None:
        return "", "Its agent does not say at which address it listens."
    if bound.is_loopback:
        local = next((known for known in site.known if (a := _address(known)) is not None and a.is_loopback), "")
        why = (
            f"It listens on {listens_on} only, where nothing outside its node reaches it. Let it listen on 0.0.0.0 "
            "(--host 0.0.0.0; Ollama: OLLAMA_HOST=0.0.0.0), behind a firewall."
        )
        return local, "" if local else why
    if not site.known:
        return "", (
            f"Where {site.node} is reached is not known. Say it: forebay node discovery {site.node} --address ADDRESS"
        )
    if bound.is_unspecified:
        # A socket on 0.0.0.0 hears nothing that is sent to an address of IPv6.
        fits = (k for k in site.known if bound.version == 6 or not isinstance(_address(k), IPv6Address))
        host = next(fits, "")
        return host, "" if host else f"It listens on IPv4 only, and {site.node} is known by addresses of IPv6."
    if listens_on in site.known:
        return listens_on, ""
    return "", (
        f"It listens on {listens_on} only, and {site.node} is not known to be there. If it is: "
        f"forebay node discovery {site.node} --address {listens_on}"
    )


def name_of(place: str, rest: str) -> str:
    """A name that a backend can have: the beginning gives way, since the end tells two of one place apart."""
    begin = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in place)
    end = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in rest)
    name = f"{begin[: max(0, _MOST_NAME - 1 - len(end))].rstrip('.-_')}-{end}" if end else begin[:_MOST_NAME]
    return name.lstrip("._-")[:_MOST_NAME] or "engine"


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if isinstance(_address(host), IPv6Address) else host.lower()
    return f"http://{shown}" if port == 80 else f"http://{shown}:{port}"


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
