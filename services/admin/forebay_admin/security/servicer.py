"""What gateways watch of lists and bans, and what they report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.client_addresses import Network
from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.metrics import Number
from forebay.wire.v1 import security_pb2 as wire
from forebay.wire.v1 import security_pb2_grpc
from forebay_admin.changes import Changes
from forebay_admin.security.banning import Banning
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.events import Kind, SecurityEvent
from forebay_admin.security.rule_store import rules_since
from forebay_admin.security.wire import event_from, update_to_wire
from forebay_admin.updates import updates
from forebay_admin.versions import Since

_MOST = 1000
_LONGEST_NAME = 64
_GUESSED = "invalid_key"


class SecurityServicer(security_pb2_grpc.SecurityServicer):
    def __init__(
        self,
        database: Database,
        changes: Changes,
        banning: Banning,
        book: EventBook,
        clock: Clock,
        watchers: Callable[[str], Number],
    ) -> None:
        """`watchers`: stream → how many watch it now."""
        self._database = database
        self._changes = changes
        self._banning = banning
        self._book = book
        self._clock = clock
        self._watchers = watchers

    async def WatchAddressRules(
        self, request: wire.WatchAddressRulesRequest, context: Any
    ) -> AsyncIterator[wire.AddressRulesUpdate]:
        watching = self._watchers("address_rules")
        watching.value += 1
        try:
            async for update in updates(self._database, self._changes, request.known_version, self._read):
                yield update
        finally:
            watching.value -= 1

    async def ReportSecurity(self, request: wire.ReportSecurityRequest, context: Any) -> wire.ReportSecurityResponse:
        """Raises BadInput, Unavailable."""
        name = request.gateway
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise BadInput("Say which gateway reports.")
        if len(request.events) > _MOST or len(request.bans) > _MOST:
            raise BadInput(f"At most {_MOST} events and bans are reported at once.")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        events = [event_from(told, name, now) for told in request.events]
        told = list(await self._write(events))
        banned = {**self._banned_in_sum(told), **self._banned_there(request.bans)}
        if banned:
            await self._book.tell(await self._banning.ban(self._database, self._changes, banned, name, now))
        return wire.ReportSecurityResponse()

    async def _read(self, connection: AsyncConnection, since: Since, current: int) -> wire.AddressRulesUpdate:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return update_to_wire(await rules_since(connection, since, current, now))

    async def _write(self, events: Sequence[SecurityEvent]) -> Sequence[SecurityEvent]:
        """Those that were new."""
        if not events:
            return ()
        async with self._database.writing() as connection:
            new = await self._book.enter(connection, events)
        await self._book.tell(new)
        return new

    def _banned_there(self, reports: Sequence[wire.AddressBanReport]) -> dict[Network, int]:
        found = ((self._banning.may_be_banned(report.network), report.failures) for report in reports)
        return {network: failures for network, failures in found if network is not None}

    def _banned_in_sum(self, events: Sequence[SecurityEvent]) -> dict[Network, int]:
        """Of all gateways together; each bans on its own who fails too often there."""
        banned: dict[Network, int] = {}
        for event in events:
            if event.kind == Kind.KEY_REFUSED and event.reason == _GUESSED and event.address:
                network = self._banning.count(event.address, event.count)
                if network is not None:
                    banned[network] = max(event.count, self._banning.after)
        return banned
