"""How things stand, for an operator who asks: who waits for what, what is held where, which gateways are there."""

from __future__ import annotations

from collections import defaultdict

from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import wire
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Request


def show(policy: Policy, now: float) -> scheduler_pb2.ShowQueueResponse:
    waiting: defaultdict[tuple[str, str, str], list[Request]] = defaultdict(list)
    for request in policy.queued():
        waiting[request.pool, request.model, request.user].append(request)
    return scheduler_pb2.ShowQueueResponse(
        epoch=wire.epoch_to_wire(policy.epoch),
        waiting=[
            scheduler_pb2.QueuedUser(
                pool=pool,
                model=model,
                user_id=user,
                requests=len(requests),
                oldest_ms=max(0, round((now - min(request.arrived_at for request in requests)) * 1000)),
            )
            for (pool, model, user), requests in waiting.items()
        ],
        held=[
            scheduler_pb2.HeldSlots(
                backend_id=backend.id,
                cap=backend.slots,
                held=policy.holds.live_on(backend.id),
                quarantined=policy.holds.quarantined_on(backend.id),
            )
            for backend in policy.fleet
        ],
        gateways=[
            scheduler_pb2.GatewaySession(
                gateway=gateway.name,
                generation=gateway.generation,
                connected=gateway.is_reachable,
                heard_ago_ms=max(0, round((now - gateway.heard_at) * 1000)),
                running=len(policy.holds.of(*gateway.process)),
                queued=len(gateway.waiting),
            )
            for gateway in policy.gateways
        ],
    )
