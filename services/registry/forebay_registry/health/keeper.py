"""Keeping drains, maintenance and the history of health in step with Postgres, and the orders also with a sealed file: a
backend that was drained must not be found open because Postgres is away at a start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.sealed import SnapshotFile
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.order_book import Orders
from forebay_registry.health.orders import Drain, Scope, Window
from forebay_registry.health.store import LifecycleStore, NotKept
from forebay_registry.keeping.snapshot import NotReadable

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
_BATCH = 500
_REWRITE_S = 3600.0
"""An unchanged file is written again, so that its age says when it was last known to be right."""
_FORMAT = 1


class LifecycleKeeper:
    def __init__(
        self,
        lifecycle: Lifecycle,
        store: LifecycleStore,
        file: SnapshotFile | None,
        clock: Clock,
        *,
        epoch: Callable[[], int] = lambda: 0,
        stands_by: Callable[[], bool] = lambda: False,
    ) -> None:
        """`epoch` is that of the lead: under another one, somebody else may have made history. `stands_by`: another
        registry leads, and makes it now."""
        self._lifecycle = lifecycle
        self._store = store
        self._file = file
        self._clock = clock
        self._epoch = epoch
        self._stands_by = stands_by
        self._history_of: int | None = None
        self._written: bytes | None = None
        self._written_at = float("-inf")
        self._is_in_step = False

    async def start_from_snapshot(self) -> None:
        """Orders as they last were, until Postgres says how they are."""
        try:
            payload = await asyncio.to_thread(self._file.read, self._clock.now()) if self._file else None
            if payload is not None:
                self._lifecycle.orders.adopt(decode_orders(payload))
                self._written = payload
        except (OSError, NotReadable) as error:
            log.warning("snapshot not usable", extra={"action": "snapshot_unreadable", "why": str(error)})

    async def load(self) -> None:
        """Before the fleet that it is about is placed. Raises Unavailable."""
        epoch = self._epoch()
        if self._history_of != epoch:
            self._lifecycle.adopt_history(await self._store.history())
            self._history_of = epoch
        self._lifecycle.orders.adopt(await self._store.orders())
        self._is_in_step = True

    async def run(self) -> None:
        """Writes down what changes, until cancelled. What cannot be written waits; too much of it loses the oldest."""
        while True:
            await asyncio.sleep(_PAUSE_S)
            if self._stands_by():
                self._lifecycle.stand_by()
            else:
                try:
                    await self.save_changes()
                except Unavailable as error:
                    log.debug("changes of health wait", extra={"action": "health_waits", "why": error.message})
            await self.write_snapshot()

    async def write_snapshot(self) -> None:
        if self._file is None or not self._is_in_step:
            return
        payload = encode_orders(self._lifecycle.orders.all())
        now = self._clock.monotonic()
        if payload == self._written and now - self._written_at < _REWRITE_S:
            return
        try:
            await asyncio.to_thread(self._file.write, payload, self._clock.now())
        except OSError as error:
            log.error("snapshot not written", extra={"action": "snapshot_failed", "why": str(error)})
            return
        self._written, self._written_at = payload, now

    async def save_changes(self) -> None:
        waiting = self._lifecycle.unsaved
        while waiting:
            batch = [waiting[i] for i in range(min(_BATCH, len(waiting)))]
            try:
                await self._store.add_changes(batch)
            except NotKept as error:
                fields = {"action": "health_refused", "changes": len(batch), "why": error.message}
                log.error("changes of health are not kept", extra=fields)
            for change in batch:
                if waiting and waiting[0] is change:  # the oldest may have made room meanwhile
                    waiting.popleft()


def encode_orders(orders: Orders) -> bytes:
    return orjson.dumps({"format": _FORMAT, **asdict(orders)})


def decode_orders(payload: bytes) -> Orders:
    """Raises NotReadable."""
    try:
        page = orjson.loads(payload)
        if page["format"] != _FORMAT:
            raise NotReadable
        return Orders(
            tuple(Drain(**_scoped(drain)) for drain in page["drains"]),
            tuple(Window(**_scoped(window)) for window in page["windows"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NotReadable from error


def _scoped(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "scope": Scope(told["scope"])}
