"""Bans that Forebay makes by itself: what a gateway banned is banned everywhere, and so is who fails too often in sum."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from forebay.brute_force import Failures
from forebay.client_addresses import Network, TrustedProxies, parse_address, parse_network
from forebay.clock import Clock
from forebay.database import Database
from forebay_admin.changes import Change, Changes
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.events import Kind, SecurityEvent, happened
from forebay_admin.security.gatekeeper import Gatekeeper
from forebay_admin.security.rule_store import count_bans, find_ban, forget_bans, held_among, keep_ban
from forebay_admin.security.rules import MOST_BANS, next_ban

log = logging.getLogger(__name__)

_FORGET_EVERY = 1000
"""Bans: whoever has very many addresses must not fill the table within an hour."""


class Banning:
    def __init__(self, gatekeeper: Gatekeeper, book: EventBook, proxies: TrustedProxies, clock: Clock) -> None:
        self._gatekeeper = gatekeeper
        self._book = book
        self._proxies = proxies
        self._clock = clock
        self._failures = Failures()
        self._made = 0
        """Since old ones were forgotten."""

    def count(self, address: str, times: int) -> Network | None:
        """So many wrong keys or passwords came from there. Gives what is to be banned for it."""
        network = self.may_be_banned(address)
        if network is None:
            return None
        failures = self._failures.note(address, self._clock.monotonic(), self._gatekeeper.policy.bans, times)
        return network if failures else None

    @property
    def after(self) -> int:
        return self._gatekeeper.policy.bans.after

    def may_be_banned(self, address: str) -> Network | None:
        """Its network, unless it is this machine, a proxy of ours, or one that is allowed by name."""
        network, one = parse_network(address), parse_address(address.partition("/")[0])
        if network is None or one is None or one.is_loopback:
            return None
        # A proxy that does not say whom it speaks for speaks for everybody.
        if self._proxies.trusts(one) or self._gatekeeper.is_allowed_by_name(str(one)):
            return None
        return network

    async def ban(
        self, database: Database, changes: Changes, networks: Mapping[Network, int], source: str, now: datetime
    ) -> Sequence[SecurityEvent]:
        """Those that are not banned already. `networks`: with the failures of each. Gives what is to be told of now.
        Raises Unavailable."""
        if not self._gatekeeper.policy.bans.after:
            return ()
        # Looked at first: a change wakes every watcher, and whoever goes on guessing is not to do that.
        async with database.reading() as connection:
            held = await held_among(connection, networks, now)
        new = {network: failures for network, failures in networks.items() if network not in held}
        if not new:
            return ()
        async with changes.make(database) as change:
            return await self._enter(change, new, source, now)

    async def _enter(
        self, change: Change, networks: Mapping[Network, int], source: str, now: datetime
    ) -> Sequence[SecurityEvent]:
        policy = self._gatekeeper.policy.bans
        self._made += len(networks)
        if self._made >= _FORGET_EVERY:
            self._made = 0
            await forget_bans(change.connection, now)
        room = MOST_BANS - await count_bans(change.connection, now, by_people=False)
        made: list[SecurityEvent] = []
        for network, failures in networks.items():
            before = await find_ban(change.connection, network)
            if before is not None and before.holds(now):
                continue
            if len(made) >= room:
                log.warning("too many bans at once", extra={"action": "ban_left_out", "network": str(network)})
                break
            ban = next_ban(before, network, failures, now, policy)
            await keep_ban(change, ban)
            self._failures.forget(str(network).removesuffix("/32"))
            detail = f"until {ban.until:%Y-%m-%d %H:%M:%S} UTC, ban {ban.strikes} in a row"
            event = happened(Kind.BANNED, now, address=str(network), reason=ban.reason, detail=detail)
            made.append(event)
            log.warning("address banned", extra={"action": "address_banned", "network": str(network), "by": source})
        return await self._book.enter(change.connection, made)
