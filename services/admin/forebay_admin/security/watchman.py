"""What was refused at admin itself: counted together, written down every few seconds, and banned for. Nobody waits for
it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from forebay.client_addresses import Network, neighbourhood, parse_address
from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import ForebayError, NotAllowed, Unavailable
from forebay.event_counts import EventCounts, Sort
from forebay.keys import parse_key
from forebay.rpc import caller_address
from forebay_admin.changes import Changes
from forebay_admin.people.access import UnknownKey
from forebay_admin.security.banning import Banning
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.events import OURS, Kind, SecurityEvent
from forebay_admin.security.wire import line
from forebay_admin.sign_in.bearers import parse_bearer

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_RETRY_S = 1.0
_MOST_BANS = 1000


class Watchman:
    def __init__(self, database: Database, changes: Changes, banning: Banning, book: EventBook, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._banning = banning
        self._book = book
        self._clock = clock
        self._counts = EventCounts()
        self._to_ban: dict[Network, int] = {}
        self._waiting: list[SecurityEvent] = []
        """Taken and not written yet."""
        self._hurry = asyncio.Event()

    def login_failed(self, name: str, address: str) -> None:
        """`name`: of a user that there is; what else was typed may be a password."""
        self._note(Sort(Kind.LOGIN_FAILED, "wrong_password", self._place(address), user=name), is_guess=True)

    def call_refused(self, bearer: str | None, error: ForebayError) -> None:
        """An operator's or a program's call, signed with that."""
        key = parse_key(bearer) if bearer else None
        badge = parse_bearer(bearer) if bearer and key is None else None
        kind = Kind.PERMISSION_REFUSED if isinstance(error, NotAllowed) else Kind.KEY_REFUSED
        self.refused(
            kind,
            str(error.reason),
            caller_address.get(),
            key_id=key.public_id if key is not None else badge.name if badge is not None else "",
            user="",
            is_guess=isinstance(error, UnknownKey),
        )

    def refused(self, kind: Kind, reason: str, address: str, *, key_id: str, user: str, is_guess: bool) -> None:
        """`is_guess`: whoever does that often is banned."""
        self._note(Sort(kind, reason, self._place(address), key_id, user), is_guess=is_guess)

    def _place(self, address: str) -> str:
        """Neighbours count as one, but for those who are banned for nothing: theirs are not to be either."""
        return neighbourhood(address) if self._banning.may_be_banned(address) is not None else address

    async def keep(self) -> None:
        """For ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._hurry.wait()
            self._hurry.clear()
            try:
                await self.write()
            except Unavailable as error:
                log.debug("security events wait", extra={"action": "security_wait", "why": error.message})
                await asyncio.sleep(_RETRY_S)
            except DBAPIError as error:  # the rest of admin goes on whatever Postgres says to this
                self._waiting = []
                log.error("security events dropped", extra={"action": "security_dropped", "why": str(error.orig)})
                await asyncio.sleep(_RETRY_S)

    async def write(self) -> None:
        """What there is. Raises Unavailable; nothing is lost, and what happens until the next time is counted together."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        if not self._waiting:
            self._waiting = self._taken()
        await self._book.write(self._waiting)
        self._waiting = []
        if self._to_ban:
            banned = dict(self._to_ban)
            told = await self._banning.ban(self._database, self._changes, banned, OURS, now)
            for network in banned:
                self._to_ban.pop(network, None)
            await self._book.tell(told)

    def _note(self, sort: Sort, *, is_guess: bool) -> None:
        if parse_address(sort.address.partition("/")[0]) is None:
            sort = replace(sort, address="")
        # A cookie may say anything, also what Postgres keeps nowhere.
        sort = replace(sort, key_id=line(sort.key_id))
        self._counts.note(sort, self._clock.now())
        network = self._banning.count(sort.address, 1) if is_guess else None
        if network is not None and len(self._to_ban) < _MOST_BANS:
            self._to_ban[network] = self._banning.after
            self._hurry.set()

    def _taken(self) -> list[SecurityEvent]:
        return [
            SecurityEvent(
                sort.kind,
                datetime.fromtimestamp(count.first, UTC),
                datetime.fromtimestamp(count.last, UTC),
                count.number,
                address=sort.address,
                key_id=sort.key_id,
                user=sort.user,
                reason=sort.reason,
            )
            for sort, count in self._counts.take(self._clock.monotonic()).items()
        ]
