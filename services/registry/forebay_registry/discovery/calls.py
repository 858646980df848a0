"""The gRPC methods about what was found, to which `calls` hands over. Nothing is decided here."""

from __future__ import annotations

from forebay.clock import micros
from forebay.wire.v1 import discovery_pb2 as wire
from forebay.wire.v1 import types_pb2 as words
from forebay_registry.discovery.decide import Judged, Standing
from forebay_registry.discovery.discovery import Discovery
from forebay_registry.discovery.facts import KINDS
from forebay_registry.discovery.offers import EngineFacts, Policy, Site

_KINDS_BACK = {kind: number for number, kind in KINDS.items()}
_STANDINGS = {
    Standing.SUGGESTED: wire.FOUND_STANDING_SUGGESTED,
    Standing.ADDED: wire.FOUND_STANDING_ADDED,
    Standing.DECLARED: wire.FOUND_STANDING_DECLARED,
    Standing.TURNED_AWAY: wire.FOUND_STANDING_TURNED_AWAY,
    Standing.NOT_POSSIBLE: wire.FOUND_STANDING_NOT_POSSIBLE,
}
_POLICIES = {
    wire.DISCOVERY_POLICY_SUGGEST: Policy.SUGGEST,
    wire.DISCOVERY_POLICY_AUTO: Policy.AUTO,
    wire.DISCOVERY_POLICY_OFF: Policy.OFF,
}
_POLICIES_BACK = {policy: number for number, policy in _POLICIES.items()}


class DiscoveryCalls:
    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    async def list_found(self) -> wire.ListFoundBackendsResponse:
        sites = await self._discovery.sites()
        return wire.ListFoundBackendsResponse(
            found=[*map(_to_found, await self._discovery.judged()), *self._gone()],
            nodes=[_to_site(site) for site in sites],
        )

    async def adopt(self, request: wire.AdoptBackendRequest) -> wire.AdoptBackendResponse:
        view, created = await self._discovery.adopt(
            request.name, as_name=request.as_name, pool=request.pool, slots=request.slots, actor=request.actor
        )
        return wire.AdoptBackendResponse(name=view.name, url=view.url, created=created)

    async def set_node(self, request: wire.SetNodeDiscoveryRequest) -> wire.SetNodeDiscoveryResponse:
        before, after = await self._discovery.set_site(
            request.node,
            policy=_POLICIES.get(request.policy),
            clear_policy=request.HasField("policy") and request.policy not in _POLICIES,
            pool=request.pool if request.HasField("pool") else None,
            addresses=list(request.addresses.all) if request.HasField("addresses") else None,
        )
        return wire.SetNodeDiscoveryResponse(before=_to_site(before), after=_to_site(after))

    def _gone(self) -> list[wire.FoundBackend]:
        return [
            wire.FoundBackend(
                name=backend.name,
                found_by=backend.found_by,
                url=backend.url,
                standing=wire.FOUND_STANDING_ADDED,
                gone_at_us=micros(since),
            )
            for backend, since in self._discovery.gone()
        ]


def _to_found(judged: Judged) -> wire.FoundBackend:
    offer = judged.offer
    return wire.FoundBackend(
        name=judged.backend or offer.name,
        found_by=str(offer.found_by),
        node=offer.node,
        url=offer.url,
        why_not=offer.why_not,
        engine=_to_engine(offer.facts) if offer.facts is not None else None,
        standing=_STANDINGS[judged.standing],
    )


def _to_engine(facts: EngineFacts) -> wire.FoundEngine:
    return wire.FoundEngine(
        kind=_KINDS_BACK[facts.kind] if facts.kind is not None else words.ENGINE_KIND_UNSPECIFIED,
        port=facts.port,
        listens_on=facts.listens_on,
        pid=facts.pid,
        version=facts.version,
        models=facts.models,
        gpu_indices=facts.gpu_indices,
        gpus_known=facts.gpus_known,
    )


def _to_site(site: Site) -> wire.NodeDiscovery:
    return wire.NodeDiscovery(
        node=site.node,
        policy=_POLICIES_BACK[site.policy] if site.policy is not None else wire.DISCOVERY_POLICY_UNSPECIFIED,
        pool=site.pool,
        addresses=site.addresses,
        joined_from=site.joined_from,
    )
