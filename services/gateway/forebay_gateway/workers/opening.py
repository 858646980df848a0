"""A gateway of several processes, seen from its parent: it holds the address, the journals' directory and the ops port, and
serves nobody itself."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forebay.errors import BadSettings
from forebay.service import Ground
from forebay_gateway.config import GatewaySettings
from forebay_gateway.http_in.accepting import PATIENCE_S
from forebay_gateway.http_in.listening import open_listener
from forebay_gateway.ledger.journal import hold_directory
from forebay_gateway.workers.crew import Crew
from forebay_gateway.workers.crowd import Crowd
from forebay_gateway.workers.left_journals import publish_left
from forebay_gateway.workers.orders import Orders, left_journals

_STOP_S = 14.0
"""What ending takes beyond the draining: streams that are cut, records that are published."""


@asynccontextmanager
async def serving_workers(
    settings: GatewaySettings, ground: Ground, *, patience_s: float = PATIENCE_S
) -> AsyncIterator[tuple[str, Crew]]:
    """`settings.workers` processes; gives their address. Entered, one of them has come up; left, all have ended.
    Raises CannotStart, BadSettings."""
    if settings.nats_url.startswith("memory:"):
        raise BadSettings(
            ["[gateway] workers: a bus in memory is one process's own; give nats_url the address of a server"]
        )
    with hold_directory(settings.journal_dir), tempfile.TemporaryFile() as counts:
        left = await asyncio.to_thread(left_journals, settings.journal_dir, settings.workers)
        os.truncate(counts.fileno(), Crowd.size(settings.workers))
        crowd = Crowd(counts.fileno(), settings.workers)
        for number in range(1, settings.workers + 1):
            crowd.leave(number)  # until it comes
        with open_listener(settings) as listener:
            host, port = listener.getsockname()[:2]
            first = Orders(
                settings=settings,
                number=1,
                listener=listener.fileno(),
                crowd=counts.fileno(),
                patience_s=patience_s,
                log_level=logging.getLogger().level,
            )
            crew = Crew(first, settings.workers, crowd, ground.ops, settings.drain_s + _STOP_S)
            async with asyncio.TaskGroup() as tasks:
                keeping = [tasks.create_task(crew.keep(number)) for number in range(1, settings.workers + 1)]
                publishing = tasks.create_task(_publish_left(left, settings, ground), name="left-journals")
                try:
                    await crew.come_up()
                    yield (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), crew
                finally:
                    listener.close()  # the workers close their own: from then on nobody can come
                    await crew.stop(keeping)
                    for task in (*keeping, publishing):
                        task.cancel()


async def _publish_left(left: list[Path], settings: GatewaySettings, ground: Ground) -> None:
    if not left:
        return
    bus_user = settings.nats_user or settings.name
    async with ground.open_bus(
        settings.nats_url,
        bus_user,
        seed_file=settings.nats_seed_file,
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
    ) as bus:
        await publish_left(left, settings, bus)
