"""What people ask of the core about those who wait: how long, at most how long, and why. Pure, and changes nothing."""

from __future__ import annotations

from forebay_scheduler.dispatch import Dispatch
from forebay_scheduler.fairness import waits
from forebay_scheduler.lines import Line
from forebay_scheduler.request import Request


def wait_bound_s(dispatch: Dispatch, line: Line, request: Request) -> float | None:
    """It starts within this, whatever others send, as long as its share stands; None when nothing is known yet."""
    rate = line.pace.tokens_per_s
    if rate is None:
        return None
    standing = line.queue.standing(request)
    running = sum(held.charge.cost for held in dispatch.holds if held.request.pool == line.pool)
    # As if every answer that runs could be as wrong as it is long.
    largest = max(line.pace.largest, dispatch.cost.estimate(request))
    return waits.longest_wait_s(standing, largest, rate, line.window, running / 1000)


def why_waiting(dispatch: Dispatch, request: Request) -> list[str]:
    """Why it does not start right now, in words."""
    if not dispatch.slots.is_fleet_known:
        return ["the fleet is not known yet"]
    gateway = dispatch.queues.owner(request.ledger_id)
    if gateway is not None and not gateway.is_reachable:
        return ["its gateway is out of reach"]
    if dispatch.shares.is_paused(request):
        return ["its user or group is paused"]
    reasons = dispatch.queues.line(request.pool).placement.why_waiting(request, dispatch.now)
    if gateway is not None and dispatch.slots.is_short(gateway.process):
        reasons.append("its gateway may not hold more on some backends for now")
    return reasons
