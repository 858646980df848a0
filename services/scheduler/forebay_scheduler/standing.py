"""How things stand, for an operator who asks: who waits for what and what is his due, what is held where, which gateways
are there."""

from __future__ import annotations

from collections import Counter, defaultdict

from forebay.wire.v1 import lifecycle_pb2, scheduler_pb2, types_pb2
from forebay_scheduler import wire
from forebay_scheduler.fencing import epoch_to_wire
from forebay_scheduler.inquiry import why_waiting
from forebay_scheduler.lines import Line
from forebay_scheduler.placing.station import Station
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import BackendId, Band, Request, UserId

BANDS = {
    Band.SYSTEM: types_pb2.BAND_SYSTEM,
    Band.INTERACTIVE: types_pb2.BAND_INTERACTIVE,
    Band.STANDARD: types_pb2.BAND_STANDARD,
    Band.BATCH: types_pb2.BAND_BATCH,
}


def show(policy: Policy, now: float) -> scheduler_pb2.ShowQueueResponse:
    told = scheduler_pb2.ShowQueueResponse(epoch=epoch_to_wire(policy.epoch))
    for line in policy.dispatch.queues.lines:
        _add_waiting(told, policy, line, now)
        _add_shares(told, policy, line)
    held = _held(policy)
    for station in policy.dispatch.stations:
        backend = station.id
        told.held.add(
            backend_id=backend,
            cap=_cap(station),
            held=held[backend] + policy.dispatch.lender.unused_on(backend),
            quarantined=policy.quarantined_on(backend),
            lent=policy.dispatch.lender.lent_on(backend),
            draining=policy.dispatch.closures.is_draining(backend),
            closed_because=station.closed or "",
            cap_is_found=station.facts.slots_assumed,
        )
    for gateway in policy.gateways:
        told.gateways.add(
            gateway=gateway.name,
            generation=gateway.generation,
            connected=gateway.is_reachable,
            heard_ago_ms=max(0, round((now - gateway.heard_at) * 1000)),
            running=policy.dispatch.holds.count_of(gateway.process),
            queued=len(gateway.waiting),
            ceilings=sum(policy.dispatch.ceilings.reserved(gateway.process).values()),
        )
    return told


def draining(policy: Policy) -> lifecycle_pb2.DrainingReport:
    """What is still held on backends that drain by the registry's word. Of one on which more may run than is known, nothing
    is told that sounds like empty."""
    told = lifecycle_pb2.DrainingReport()
    if policy.dispatch.closures.ordered:
        held = _held(policy)
        for backend in policy.dispatch.closures.ordered:
            slots = held[backend] + policy.dispatch.lender.unused_on(backend) + policy.quarantined_on(backend)
            if slots or not policy.dispatch.slots.out_of_reach_on(backend):
                told.backends.add(backend_id=backend, held=slots)
    return told


def _held(policy: Policy) -> Counter[BackendId]:
    held: Counter[BackendId] = Counter()
    for one in policy.dispatch.holds:
        held[one.backend] += one.slots
    return held


def _cap(station: Station) -> int:
    """As it is known, or as far as it was found."""
    found = [place.limit.slots for place in station.place_list if place.limit is not None]
    return min(station.facts.slots, max(found)) if found else station.facts.slots


def _add_waiting(told: scheduler_pb2.ShowQueueResponse, policy: Policy, line: Line, now: float) -> None:
    waiting: defaultdict[tuple[str, str, Band], list[Request]] = defaultdict(list)
    for request in line.queue:
        waiting[request.model, request.user, request.band].append(request)
    for (model, user, band), requests in waiting.items():
        first = min(requests, key=lambda request: request.arrived_at)
        told.waiting.add(
            pool=line.pool,
            model=model,
            user_id=user,
            requests=len(requests),
            oldest_ms=max(0, round((now - first.arrived_at) * 1000)),
            band=BANDS[band],
            predicted_wait_ms=wire.wait_ms(policy.dispatch.predicted_wait_s(line, first)),
            blocked_by=why_waiting(policy.dispatch, first),
        )


def _add_shares(told: scheduler_pb2.ShowQueueResponse, policy: Policy, line: Line) -> None:
    """Of everybody who waits or runs."""
    first: dict[tuple[UserId, Band], Request] = {}
    waiting: Counter[tuple[UserId, Band]] = Counter()
    running: Counter[tuple[UserId, Band]] = Counter()
    for request in line.queue:
        who = request.user, request.band
        first.setdefault(who, request)
        waiting[who] += 1
    for held in policy.dispatch.holds:
        if held.request.pool == line.pool:
            who = held.request.user, held.request.band
            first.setdefault(who, held.request)
            running[who] += 1
    shares = policy.dispatch.shares
    for who, request in first.items():
        told.shares.add(
            pool=line.pool,
            user_id=request.user,
            band=BANDS[request.band],
            groups=shares.groups_of(request),
            weight_milli=round(shares.weight_of_user(request.user) * 1000),
            due=line.queue.due(request),
            ahead_tokens=line.queue.ahead_of(request),
            waiting=waiting[who],
            running=running[who],
        )
