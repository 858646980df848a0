"""The engines' own keys, followed from admin for as long as the registry runs, and sealed on disk for when admin is away.

They are sent to the engines they belong to and appear nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay.rpc import Peer, translated
from forebay.sealed import SnapshotFile
from forebay.wire.v1.admin_pb2 import BackendCredential, CredentialsUpdate, WatchRequest
from forebay.wire.v1.admin_pb2_grpc import AdminStub
from forebay_registry.backend import BackendId

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_REWRITE_S = 3600.0


class Credentials:
    def __init__(
        self,
        peer: Peer,
        tell: Callable[[Mapping[BackendId, str]], None],
        *,
        file: SnapshotFile | None,
        clock: Clock,
        retry_s: float = _RETRY_S,
    ) -> None:
        """`tell` hears all credentials whenever any of them changes."""
        self._peer = peer
        self._tell = tell
        self._file = file
        self._clock = clock
        self._retry_s = retry_s
        self._held: dict[BackendId, str] = {}
        self.is_following = False
        """Whether admin is there and this is what it says."""

    async def start_from_snapshot(self) -> None:
        try:
            payload = await asyncio.to_thread(self._file.read, self._clock.now()) if self._file else None
            if payload is None:
                return
            update = CredentialsUpdate.FromString(payload)
        except (OSError, DecodeError) as error:
            log.warning("credentials not usable", extra={"action": "snapshot_unreadable", "why": str(error)})
            return
        self._take(update)

    async def run(self) -> None:
        """Until cancelled."""
        told = ""
        while True:
            try:
                with translated():
                    await self._follow()
                why = "admin ended the stream"
            except ForebayError as error:
                why = error.message
            self.is_following = False
            if why != told:
                told = why
                log.warning("credentials not followed", extra={"action": "credentials_away", "why": why})
            await asyncio.sleep(self._retry_s)

    async def _follow(self) -> None:
        stub = AdminStub(self._peer.channel)
        # A snapshot each time: there are few of them, and no version is ever compared across a restore of admin's database.
        call: Any = stub.WatchCredentials(WatchRequest(), metadata=self._peer.metadata)
        reading: asyncio.Future[Any] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(call.read())
                # Written again while nothing changes: its age says when it was last known to be right.
                while not (await asyncio.wait([reading], timeout=_REWRITE_S))[0]:
                    await self._save()
                update = reading.result()
                if update is grpc.aio.EOF:
                    return
                self.is_following = True
                self._take(update)
                await self._save()
        finally:
            if reading is not None:
                reading.cancel()
            call.cancel()

    def _take(self, update: CredentialsUpdate) -> None:
        held = {} if update.snapshot else dict(self._held)
        for backend_id in update.removed_backend_ids:
            held.pop(BackendId(backend_id), None)
        held |= {BackendId(c.backend_id): c.bearer for c in update.credentials if c.bearer}
        if held != self._held:
            self._held = held
            self._tell(held)

    async def _save(self) -> None:
        if self._file is None:
            return
        whole = CredentialsUpdate(
            snapshot=True,
            credentials=[BackendCredential(backend_id=i, bearer=bearer) for i, bearer in self._held.items()],
        )
        try:
            await asyncio.to_thread(self._file.write, whole.SerializeToString(), self._clock.now())
        except OSError as error:
            log.error("credentials not kept", extra={"action": "snapshot_failed", "why": str(error)})
