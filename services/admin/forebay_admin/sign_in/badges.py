"""Who holds which session or narrow token, and what custom roles give whom, in this replica's memory: a wrong one costs no
query.

When each was last used is kept to the minute: what was seen here is written down together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import NotAuthenticated, Unavailable
from forebay.keys import is_secret
from forebay_admin.abreast import Abreast
from forebay_admin.changes import Changes
from forebay_admin.people.permissions import Permission
from forebay_admin.people.role_store import Given, given_since
from forebay_admin.sign_in.bearers import BearerKind, parse_bearer
from forebay_admin.sign_in.session_store import badges_since, note_seen, note_used
from forebay_admin.sign_in.sessions import Badge, Lives, is_over, why_not
from forebay_admin.updates import updates
from forebay_admin.versions import Since

log = logging.getLogger(__name__)

_SEEN_EVERY = timedelta(minutes=1)
_TOLD_FOR = timedelta(minutes=10)
"""How long after its time somebody is still told why, and another replica may have seen it used since."""


@dataclass(frozen=True, slots=True)
class _Update:
    version: int
    is_snapshot: bool
    badges: Mapping[str, Badge]
    given: Given | None


class Badges(Abreast):
    """Names of bearers, such as fbses-0123456789ab → what they allow."""

    def __init__(self, lives: Lives, pepper: bytes, clock: Clock) -> None:
        super().__init__()
        self._lives = lives
        self._pepper = pepper
        self._clock = clock
        self._badges: dict[str, Badge] = {}
        self._given: Given = {}
        self._seen: dict[str, datetime] = {}

    def find(self, name: str) -> Badge | None:
        return self._badges.get(name)

    def given(self, user_id: str) -> tuple[Permission, ...]:
        """What custom roles give this user."""
        return self._given.get(user_id, ())

    def demand(self, text: str, *, is_use: bool = True) -> Badge:
        """Whose session or token it is; it was used now, unless `is_use` says that nobody did. Raises NotAuthenticated,
        Unavailable."""
        if not self.is_loaded:
            raise Unavailable("Admin has not read its database yet; it usually takes seconds.", retry_after_s=1.0)
        bearer = parse_bearer(text)
        badge = self._badges.get(bearer.name) if bearer is not None else None
        if bearer is None or badge is None or not is_secret(self._pepper, bearer.secret, badge.secret_hmac):
            raise NotAuthenticated("This session or token is not known here, or has ended.")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        why = why_not(badge, self._seen.get(badge.name), now)
        if why:
            raise NotAuthenticated(why)
        if is_use:
            self._seen[badge.name] = now
        return badge

    def forget_past(self) -> None:
        """Those whose time is over; one that comes up again, since it was used elsewhere, is read again."""
        then = datetime.fromtimestamp(self._clock.now(), UTC) - _TOLD_FOR
        past = [name for name, badge in self._badges.items() if is_over(badge, self._seen.get(name), then)]
        for name in past:
            del self._badges[name]
        for name in self._seen.keys() - self._badges.keys():
            del self._seen[name]

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever."""
        async for update in updates(database, changes, 0, self._read):
            if update.is_snapshot:
                self._badges = {}
            self._badges.update(update.badges)
            for name, badge in update.badges.items():
                if badge.is_ended:
                    del self._badges[name]
                    self._seen.pop(name, None)
            if update.given is not None:
                self._given = update.given
            await self._reach(update.version)

    async def write_seen(self, database: Database, changes: Changes) -> None:
        """What was used here since it was last written down, a minute ago or more. Raises Unavailable; nothing is lost."""
        sessions: dict[str, datetime] = {}
        tokens: dict[str, datetime] = {}
        for name, at in self._seen.items():
            badge = self._badges.get(name)
            if badge is None or (badge.last_seen_at is not None and at - badge.last_seen_at < _SEEN_EVERY):
                continue
            (sessions if badge.kind is BearerKind.SESSION else tokens)[badge.id] = at
        if sessions:
            async with changes.make(database) as change:
                await note_seen(change, sessions)
        if tokens:
            async with database.writing() as connection:
                await note_used(connection, tokens)
            for token_id in tokens:
                self._seen.pop(f"{BearerKind.TOKEN}-{token_id}", None)

    async def _read(self, connection: AsyncConnection, since: Since, current: int) -> _Update:
        badges = await badges_since(connection, since.after, self._lives)
        given = await given_since(connection, 0 if since.is_snapshot else since.after)
        return _Update(current, since.is_snapshot, {badge.name: badge for badge in badges}, given)
