"""A gateway's line to its schedulers without the gateway around it: session and places, and asks to try them with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from forebay.clock import Clock, SystemClock
from forebay.errors import ForebayError, Refusal
from forebay.ledger_id import new_ledger_id
from forebay.metrics import Metrics
from forebay.ops import Ops
from forebay.rpc import Peer, open_peer, open_server
from forebay_gateway.callers.principals import Band
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.meters import make_meters
from forebay_gateway.slots.asking import Ask
from forebay_gateway.slots.fence import Fence
from forebay_gateway.slots.places import Places
from forebay_gateway.slots.scheduler_session import SchedulerSession
from tests.gateway.doubles import TOKEN, SchedulerDouble, add_to, authorize

MODEL = "fake-model"


@dataclass
class Line:
    places: Places
    session: SchedulerSession
    fleet: Fleet
    revoked: list[tuple[bytes, ForebayError]] = field(default_factory=list)
    cut: list[tuple[bytes, Refusal]] = field(default_factory=list)


def make_line(
    peers: Mapping[str, Peer],
    *,
    backends: tuple[str, ...] = ("b1",),
    clock: Clock | None = None,
    uses_credits: bool = True,
    local_after_s: float = 2.0,
) -> Line:
    clock = clock or SystemClock()
    fleet = Fleet()
    fleet.replace_all(Backend(i, i, "http://x", models={MODEL: ModelOnBackend(MODEL)}) for i in backends)
    fence = Fence(90.0)
    revoked: list[tuple[bytes, ForebayError]] = []
    cut: list[tuple[bytes, Refusal]] = []
    places = Places(
        clock=clock,
        fleet=fleet,
        fence=fence,
        meters=make_meters(Metrics()),
        uses_credits=uses_credits,
        on_revoke=lambda ledger_id, error: revoked.append((ledger_id, error)),
        on_cutoff=lambda ledger_id, why: cut.append((ledger_id, why)),
        on_drained=lambda ledger_id: None,
    )
    session = SchedulerSession(
        peers,
        places,
        fence,
        gateway="g-2",
        generation=1,
        clock=clock,
        ops=Ops("gateway"),
        local_after_s=local_after_s,
    )
    return Line(places, session, fleet, revoked, cut)


def make_ask(**fields: Any) -> Ask:
    given: dict[str, Any] = {
        "ledger_id": new_ledger_id(1.0),
        "request_id": "r",
        "pool": "default",
        "model": MODEL,
        "key_id": "k",
        "user_id": "u",
        "group_id": "g",
        "band": Band.STANDARD,
        "width": 1,
        "prompt_tokens": 1,
        "max_output_tokens": 0,
        "deadline_ms": 0,
        "session_key": "",
        "started_at": 1.0,
        "arrived": SystemClock().monotonic(),
    }
    return Ask(**given | fields)


@asynccontextmanager
async def serving(double: SchedulerDouble, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Gives its address."""
    async with open_server(address, lambda server: add_to(server, double), authorize, grace_s=0) as listening:
        yield listening


@asynccontextmanager
async def open_line(*addresses: str, **options: Any) -> AsyncIterator[Line]:
    """Runs until left."""
    async with AsyncExitStack() as stack:
        peers = {a: await stack.enter_async_context(open_peer(a, token=TOKEN)) for a in addresses}
        line = make_line(peers, **options)
        running = asyncio.create_task(line.session.run())
        try:
            yield line
        finally:
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is not None:
                raise running.exception()  # type: ignore[misc]
