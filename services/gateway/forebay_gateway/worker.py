"""One of a gateway's several processes: `python -m forebay_gateway.worker DESCRIPTOR`, as `workers/member.py` starts it. The
descriptor is its end of the line to its parent, who says over it what is to be done."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys

import orjson

from forebay import collector
from forebay.clock import SystemClock
from forebay.errors import ForebayError
from forebay.launch import beat, first_of_ours, loop_factory
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.service import Ground
from forebay.telemetry import set_up_logs
from forebay.traces.opening import open_tracing
from forebay_gateway.service import serving_gateway
from forebay_gateway.workers.crowd import Crowd
from forebay_gateway.workers.line import UNASKED, Line, open_line
from forebay_gateway.workers.orders import Orders, own_name, own_settings
from forebay_gateway.workers.place import Place
from forebay_gateway.workers.sums import read_page, to_plain

log = logging.getLogger(__name__)

_LOOK_S = 0.25
"""How often it is looked whether there is news of its readiness."""
_TELL_S = 2.0
"""How often the parent hears something at least."""
_COUNT_S = 5.0
"""How often the parent is told all metrics unasked: a worker that is killed is missing at most so much in the sums."""


async def _work(descriptor: int) -> None:
    line = await open_line(socket.socket(fileno=descriptor))
    first = await line.receive()
    if first is None:
        return
    orders: Orders = pickle.loads(first[1])  # from our own parent, over a line that nobody else has
    set_up_logs(own_name("gateway", orders.number), logging.getLevelName(orders.log_level))
    ops = Ops("gateway")
    told = asyncio.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal it is for the parent, which then says how it ends
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    telling = _Telling(line, ops)
    beside = [
        asyncio.create_task(telling.answer(), name="parent"),
        asyncio.create_task(telling.tell(), name="tell"),
        asyncio.create_task(beat(ops), name="beat"),
    ]
    clock = SystemClock()
    try:
        place = _take_place(orders)
        settings = own_settings(orders.settings, orders.number)
        with open_tracing("gateway", metrics=ops.metrics):
            async with serving_gateway(settings, Ground("gateway", clock, ops, MemoryBus(clock.now)), place):
                ops.ready("start")
                log.info("worker ready", extra={"action": "ready", "name_": settings.name})
                collector.calm()
                await told.wait()
                ops.not_ready("drain", "draining: told to stop")
                log.info("draining", extra={"action": "drain"})
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await telling.say(UNASKED, with_metrics=True)
        await line.hang_up()


def _take_place(orders: Orders) -> Place:
    crowd = Crowd(orders.crowd, orders.settings.workers)
    os.close(orders.crowd)
    return Place(
        gateway=orders.settings.name,
        number=orders.number,
        listener=socket.socket(fileno=orders.listener),
        seat=crowd.seat(orders.number),
        patience_s=orders.patience_s,
    )


class _Telling:
    """What the parent hears of this worker."""

    def __init__(self, line: Line, ops: Ops) -> None:
        self._line = line
        self._ops = ops

    async def answer(self) -> None:
        """Whatever it asks, it wants all there is."""
        while (asked := await self._line.receive()) is not None:
            await self.say(asked[0], with_metrics=True)
        # Its successor starts workers of its own, which need our journals and our address: as when a gateway of one process
        # dies, what is under way breaks off.
        os._exit(1)

    async def tell(self) -> None:
        last: dict[str, str] = {}
        clock = asyncio.get_running_loop()
        told_at = counted_at = clock.time()
        while True:
            missing, now = self._ops.missing, clock.time()
            if now - counted_at >= _COUNT_S:
                await self.say(UNASKED, with_metrics=True)
                last, told_at, counted_at = missing, now, now
            elif missing != last or now - told_at >= _TELL_S:
                await self.say(UNASKED)
                last, told_at = missing, now
            await asyncio.sleep(_LOOK_S)

    async def say(self, number: int, *, with_metrics: bool = False) -> None:
        page = await asyncio.to_thread(self._page) if with_metrics else None
        self._line.send(number, orjson.dumps({"missing": self._ops.missing, "page": page}))

    def _page(self) -> object:
        return to_plain(read_page(self._ops.metrics.collect()))


def main() -> None:
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(int(sys.argv[1])))
    except ForebayError as error:
        sys.exit(f"forebay: {error.message}")
    except BaseExceptionGroup as group:  # what a TaskGroup makes of the error that ended it
        ours = first_of_ours(group)
        if ours is None:
            raise
        sys.exit(f"forebay: {ours.message}")


if __name__ == "__main__":
    main()
