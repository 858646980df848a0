"""What was refused here, and whom this gateway banned, told to admin: counted together by what it was, from where and with
which key, so that an attack is a line every few seconds and not a flood. Nobody waits for it.

While admin is away it goes on counting; of more kinds of it than there is room for, the addresses are left out, and after a
flood the next are told a minute later. Bans do not wait."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from forebay.clock import Clock, micros
from forebay.event_counts import EventCounts, Sort
from forebay.rpc import Peer
from forebay.wire.v1 import security_pb2, security_pb2_grpc

log = logging.getLogger(__name__)

EVERY_S = 2.0
PAUSE_S = 0.25
"""Between one report and the next, however great the hurry: each is a transaction at admin."""
MOST_BANS = 1000
_CALL_S = 5.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 10.0


class SecurityNews:
    def __init__(self, peer: Peer, gateway: str, clock: Clock) -> None:
        self._stub: Any = security_pb2_grpc.SecurityStub(peer.channel)
        self._metadata = peer.metadata
        self._gateway = gateway
        self._clock = clock
        self._counts = EventCounts()
        self._bans: dict[str, int] = {}
        self._hurry = asyncio.Event()

    def __len__(self) -> int:
        return len(self._counts) + len(self._bans)

    def note(self, sort: Sort) -> None:
        self._counts.note(sort, self._clock.now())

    def note_ban(self, network: str, failures: int) -> None:
        """Told at once: other gateways are to hear of it."""
        if len(self._bans) < MOST_BANS:
            self._bans[network] = failures
        self._hurry.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._hurry.wait()
            self._hurry.clear()
            report = self._report()
            if report.events or report.bans:
                await self._tell(report)
                await asyncio.sleep(PAUSE_S)

    async def _tell(self, report: security_pb2.ReportSecurityRequest) -> None:
        """Until somebody has it; what happens meanwhile is counted for the next one."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._stub.ReportSecurity(report, metadata=self._metadata, timeout=_CALL_S)
                return
            except grpc.aio.AioRpcError as error:
                why = {"action": "security_news", "why": f"{error.code().name}: {error.details()}"}
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    log.error("security events dropped", extra=why)  # it would be refused each time
                    return
                log.debug("security events wait", extra=why)
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, 2 * retry_s)

    def _report(self) -> security_pb2.ReportSecurityRequest:
        bans, self._bans = self._bans, {}
        return security_pb2.ReportSecurityRequest(
            gateway=self._gateway,
            events=[
                security_pb2.SecurityEvent(
                    id=secrets.token_hex(16),
                    kind=sort.kind,
                    at_us=micros(count.first),
                    last_at_us=micros(count.last),
                    count=count.number,
                    source=self._gateway,
                    address=sort.address,
                    key_id=sort.key_id,
                    user=sort.user,
                    reason=sort.reason,
                )
                for sort, count in self._counts.take(self._clock.monotonic()).items()
            ],
            bans=[
                security_pb2.AddressBanReport(network=network, failures=failures) for network, failures in bans.items()
            ],
        )
