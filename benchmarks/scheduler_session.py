"""Decisions over one batched session: a scheduler in a process of its own, a gateway that keeps it busy, and the processor
time of the scheduler's process for each decision.

Run as a program it is the scheduler; `measure` starts it and is the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from forebay.clock import SystemClock
from forebay.collector import calm
from forebay.metrics import Metrics
from forebay.rpc import open_peer, open_server
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc, types_pb2
from forebay_scheduler.backend import Backend
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.events import CeilingsStored, FleetChanged, StateStored
from forebay_scheduler.meters import make_queue_histogram
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import BackendId, Epoch, PoolName
from forebay_scheduler.rules import Rules
from forebay_scheduler.sessions import Sessions

_ROOT = Path(__file__).parents[1]
USERS = 1000
IN_FLIGHT = 512


async def serve(backends: int, slots: int) -> None:
    """The core and its sessions as the service wires them, but for the bus: what is to be stored counts as stored."""
    clock = SystemClock()
    policy = Policy(Rules(queue_per_pool=1_000_000, queue_per_user=1_000_000), Epoch(1, 1), clock.monotonic())
    sessions = Sessions(
        policy,
        clock,
        heartbeat_s=1.0,
        fence_s=90.0,
        renewed_ago_s=lambda: 0.0,
        queue_seconds=make_queue_histogram(Metrics()),
    )
    sessions.apply(
        (
            FleetChanged(
                tuple(
                    Backend(BackendId(f"b{n}"), PoolName("default"), frozenset({"m"}), slots) for n in range(backends)
                )
            ),
        )
    )
    doorway = Doorway(clock, lambda: "")
    doorway.begin(sessions)

    async def store() -> None:
        while True:
            await sessions.has_order.wait()
            sessions.has_order.clear()
            if sessions.to_store is not None:
                sessions.apply((CeilingsStored(sessions.to_store.ticket),))

    async def save() -> None:
        while True:
            await asyncio.sleep(1.0)
            number, _ = policy.save()
            sessions.apply((StateStored(number),))

    async with open_server(
        "127.0.0.1:0",
        lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(doorway, server),
        lambda method, bearer: "gateway",
        grace_s=0,
    ) as address:
        print(address, flush=True)
        calm()
        await asyncio.gather(sessions.tick(), store(), save())


class Busy:
    """A gateway that asks again as soon as something ends, and ends what it is granted at once."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._seq = 0
        self._acked = 0
        self._count = 0
        self.decisions = 0
        self._frame = scheduler_pb2.GatewayFrame()

    def submit(self) -> None:
        self._count += 1
        user = self._count % USERS
        self._frame.submits.add(
            ledger_id=self._count.to_bytes(16, "big"),
            model="m",
            key_id=f"k{user}",
            user_id=f"u{user}",
            group_id=f"g{user % 20}",
            band=types_pb2.BAND_STANDARD,
            width=1,
            prompt_tokens=300,
            request_id=f"r{self._count}",
        )

    def settle(self, grant: scheduler_pb2.Grant, epoch: scheduler_pb2.Epoch) -> None:
        self._frame.first_tokens.add(ledger_id=grant.ledger_id, ttft_ms=200)
        settle = self._frame.settles.add(
            ledger_id=grant.ledger_id,
            lease=grant.lease,
            epoch=epoch,
            backend_id=grant.backend_id,
            outcome=types_pb2.OUTCOME_FINISHED,
        )
        settle.usage.prompt_tokens = 300
        settle.usage.completion_tokens = 200

    async def send(self, **parts: Any) -> None:
        frame, self._frame = self._frame, scheduler_pb2.GatewayFrame()
        self._seq += 1
        frame.seq, frame.ack_seq = self._seq, self._acked
        if parts:
            frame.MergeFrom(scheduler_pb2.GatewayFrame(**parts))
        await self._call.write(frame)

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            frame = await self._call.read()
            self._acked = frame.seq
            for ceiling in frame.ceilings:
                self._frame.ceiling_acks.add(backend_id=ceiling.backend_id, version=ceiling.version)
            for grant in frame.grants:
                self.decisions += 1
                self.settle(grant, frame.epoch)
                self.submit()
            await self.send()


async def _drive(address: str, queued: int, seconds: float, pid: int) -> tuple[float, float]:
    async with open_peer(address, token="gateway") as peer:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
        call: Any = stub.Session(metadata=peer.metadata)
        busy = Busy(call)
        await busy.send(hello=scheduler_pb2.Hello(gateway="g", generation=1))
        await busy.run(0.3)
        for _ in range(IN_FLIGHT + queued):
            busy.submit()
        await busy.send()
        await busy.run(min(1.0, seconds / 4))
        process = psutil.Process(pid)
        before, began, busy.decisions = process.cpu_times(), time.monotonic(), 0
        await busy.run(seconds)
        after = process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        took = time.monotonic() - began
        call.cancel()
        return busy.decisions / cpu_s, busy.decisions / took


def measure(*, queued: int, seconds: float = 5.0) -> tuple[float, float]:
    """Decisions (asked, granted, settled) for a second of the scheduler's processor time, and for a second of the clock.

    With a queue there are fewer slots than requests; without, each finds one free."""
    slots = 64 if not queued else 16
    scheduler = subprocess.Popen(
        [sys.executable, __file__, "16" if not queued else "32", str(slots)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_ROOT))))},
    )
    try:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().strip()
        return asyncio.run(_drive(address, queued, seconds, scheduler.pid))
    finally:
        scheduler.kill()
        scheduler.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        with suppress(KeyboardInterrupt, grpc.aio.AioRpcError):
            asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
    else:
        print(json.dumps({"empty": measure(queued=0), "10k": measure(queued=10_000)}))
