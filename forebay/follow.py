"""Follows a stream of updates from another service for ever, and keeps the last whole truth on disk, sealed, to start from.

What an update means is the follower's business; here it is only fetched, applied, kept, and told to /readyz."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from typing import Any, Protocol

import grpc.aio

from forebay.clock import Clock
from forebay.ops import Ops
from forebay.sealed import SnapshotFile

log = logging.getLogger(__name__)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 1.0
_GATHER_S = 1.0
_REWRITE_S = 3600.0  # an unchanged snapshot is dated anew, so that it does not grow too old while all is well


class Followed(Protocol):
    """One thing that another service owns."""

    name: str
    """For logs and /readyz, such as `principals`."""
    owner: str

    def watch(self) -> AsyncIterable[Any]:
        """A new stream of updates, from what is known already."""
        ...

    def apply(self, update: Any) -> None: ...
    def dump(self) -> bytes:
        """All of it, as `restore` takes it."""
        ...

    def restore(self, kept: bytes) -> None:
        """Raises ValueError for what this version does not understand."""
        ...


class Follower:
    def __init__(
        self, followed: Followed, snapshot: SnapshotFile | None, clock: Clock, ops: Ops, *, is_needed: bool = True
    ) -> None:
        """`snapshot`: None to keep nothing. Without `is_needed` the service is ready before anything came of it."""
        self._followed = followed
        self._snapshot = snapshot
        self._clock = clock
        self._ops = ops
        self._changed = asyncio.Event()
        self._is_live = False
        self._is_needed = is_needed
        self._told = ""
        if is_needed:
            ops.not_ready(followed.name, f"{followed.owner} has not told the {followed.name} yet")

    @property
    def is_live(self) -> bool:
        """Its owner is there and has spoken on the present stream."""
        return self._is_live

    async def start(self) -> None:
        """Takes what is kept on disk, if there is something."""
        kept = await asyncio.to_thread(self._read)
        if kept is None:
            return
        try:
            self._followed.restore(kept)
        except ValueError as error:
            log.warning(
                "snapshot not usable", extra={"action": "snapshot", "of": self._followed.name, "why": str(error)}
            )
            return
        self._ops.ready(self._followed.name)
        log.info("started from a snapshot", extra={"action": "snapshot", "of": self._followed.name})

    async def follow(self) -> None:
        """Until cancelled. A change is applied in the loop turn in which it arrives."""
        retry_s = _FIRST_RETRY_S
        while True:
            why = f"{self._followed.owner} ended the stream"
            try:
                async for update in self._followed.watch():
                    self._followed.apply(update)
                    self._note_live()
                    retry_s = _FIRST_RETRY_S
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
            self._note_away(why)
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def keep(self) -> None:
        """Writes what changed, not more often than once a second. Until cancelled, and then what changed last."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_REWRITE_S):
                        await self._changed.wait()
                except TimeoutError:
                    if not self._is_live:
                        continue  # what we know grows old, and its date has to say so
                await asyncio.sleep(_GATHER_S)
                await self._write()
        finally:
            if self._changed.is_set():  # a key that was revoked in the last second must not work after a restart
                await self._write()

    async def _write(self) -> None:
        self._changed.clear()
        if self._snapshot is None:
            return
        payload = self._followed.dump()
        try:
            await asyncio.to_thread(self._snapshot.write, payload, self._clock.now())
        except OSError as error:
            log.warning(
                "snapshot not written", extra={"action": "snapshot", "of": self._followed.name, "why": str(error)}
            )

    def _note_live(self) -> None:
        self._changed.set()
        if not self._is_live:
            self._is_live = True
            self._told = ""
            self._ops.ready(self._followed.name)
            log.info("watching", extra={"action": "watch", "of": self._followed.name})

    def _note_away(self, why: str) -> None:
        name, owner = self._followed.name, self._followed.owner
        extra = {"action": "watch", "of": name, "why": why}
        if self._is_live:
            self._is_live = False
            log.warning("watch lost, the last known stays", extra=extra)
        elif self._is_needed:
            log.debug("watch", extra=extra)
            if name in self._ops.missing:
                self._ops.not_ready(name, f"{owner} has not told the {name} yet ({why})")
        elif why != self._told:
            log.warning("not watched yet", extra=extra)  # /readyz does not say it
        self._told = why

    def _read(self) -> bytes | None:
        if self._snapshot is None:
            return None
        try:
            return self._snapshot.read(self._clock.now())
        except OSError as error:
            log.warning("snapshot not read", extra={"action": "snapshot", "of": self._followed.name, "why": str(error)})
            return None
