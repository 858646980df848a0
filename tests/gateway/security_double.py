"""Admin's side of bans and lists for a gateway under test: what it tells, and what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from forebay.wire.v1 import security_pb2


class SecurityDouble:
    def __init__(self) -> None:
        self.version = 1
        self.lists = security_pb2.AddressRulesUpdate(
            policy=security_pb2.AddressPolicy(
                mode=security_pb2.ADDRESS_MODE_PERMISSIVE,
                ban_after=5,
                ban_window_s=3600,
                ban_first_s=600,
                ban_longest_s=3600,
            )
        )
        self.reports: list[security_pb2.ReportSecurityRequest] = []
        self._watchers: list[asyncio.Queue[security_pb2.AddressRulesUpdate]] = []

    @property
    def events(self) -> list[security_pb2.SecurityEvent]:
        return [event for report in self.reports for event in report.events]

    @property
    def bans(self) -> list[security_pb2.AddressBanReport]:
        return [ban for report in self.reports for ban in report.bans]

    @property
    def is_watched(self) -> bool:
        return bool(self._watchers)

    def tell(self, **fields: Any) -> None:
        """A change, to everybody who watches."""
        self.version += 1
        for watcher in self._watchers:
            watcher.put_nowait(security_pb2.AddressRulesUpdate(version=self.version, **fields))

    async def WatchAddressRules(
        self, request: security_pb2.WatchAddressRulesRequest, context: Any
    ) -> AsyncIterator[security_pb2.AddressRulesUpdate]:
        queue: asyncio.Queue[security_pb2.AddressRulesUpdate] = asyncio.Queue()
        self._watchers.append(queue)
        first = security_pb2.AddressRulesUpdate(version=self.version, snapshot=True)
        first.MergeFrom(self.lists)
        try:
            yield first
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def ReportSecurity(
        self, request: security_pb2.ReportSecurityRequest, context: Any
    ) -> security_pb2.ReportSecurityResponse:
        self.reports.append(request)
        return security_pb2.ReportSecurityResponse()
