"""Lists and bans in this replica's memory: its own HTTP port goes by them as gateways go by theirs."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.address_gate import AddressGate, Ban, Denied
from forebay.clock import Clock
from forebay.database import Database
from forebay_admin.abreast import Abreast
from forebay_admin.changes import Changes
from forebay_admin.security.rule_store import RulesUpdate, rules_since
from forebay_admin.security.rules import Listed, Policy
from forebay_admin.updates import updates
from forebay_admin.versions import Since


class Gatekeeper(Abreast):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._gate = AddressGate()
        self.policy = Policy()

    def look(self, address: str) -> Ban | Denied | None:
        """What speaks against it; None: nothing."""
        return self._gate.look(address, self._clock.now())

    def is_allowed_by_name(self, address: str) -> bool:
        return self._gate.is_allowed_by_name(address)

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever."""
        async for update in updates(database, changes, 0, self._read):
            self._take(update)
            await self._reach(update.version)

    async def _read(self, connection: AsyncConnection, since: Since, current: int) -> RulesUpdate:
        return await rules_since(connection, since, current, datetime.fromtimestamp(self._clock.now(), UTC))

    def _take(self, update: RulesUpdate) -> None:
        if update.lists is not None:
            self.policy = update.lists.policy
            self._gate.set_lists(self.policy.mode, update.lists.of(Listed.DENY), update.lists.of(Listed.ALLOW))
        if update.bans:
            self._gate.forget(self._clock.now())
        held = [ban.as_ban() for ban in update.bans if ban.lifted_at is None]
        if update.is_snapshot:
            self._gate.replace_bans(held)
        elif update.bans:
            self._gate.change_bans(held, [ban.network for ban in update.bans if ban.lifted_at is not None])
