"""The door: who comes with the right password, or was sent by a provider, gets a session. What is refused is audited too.

An attempt is counted before its password is looked at, in a transaction of its own, so that a crash or many at once let
nobody guess for free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAuthenticated, NotFound
from forebay.keys import seal_secret
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.people.people import User
from forebay_admin.people.people_store import user_named, user_with_id
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import Bearer, BearerKind, new_bearer, parse_bearer
from forebay_admin.sign_in.hashing import Hashing
from forebay_admin.sign_in.password_store import (
    begin_attempt,
    forget_resets,
    hash_of,
    reset_user,
    right,
    set_hash,
    spend_reset,
)
from forebay_admin.sign_in.passwords import LONGEST, demand_good, normal
from forebay_admin.sign_in.session_store import add_session, end_session, end_sessions, session_with_id
from forebay_admin.sign_in.sessions import Lives, Session, Visitor

PASSWORD = "password"
_WRONG = "The name or the password is wrong."


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody came in."""

    session: Session
    bearer: Bearer = field(repr=False)


class Door:
    def __init__(
        self,
        database: Database,
        changes: Changes,
        badges: Badges,
        hashing: Hashing,
        lives: Lives,
        pepper: bytes,
        clock: Clock,
        on_refused: Callable[[str, str], None] = lambda name, address: None,
    ) -> None:
        """`on_refused`: hears of each wrong password whose account it was for, empty for none that there is, and from
        where."""
        self._on_refused = on_refused
        self._database = database
        self._changes = changes
        self._badges = badges
        self._hashing = hashing
        self._lives = lives
        self._pepper = pepper
        self._clock = clock

    async def by_password(self, name: str, password: str, visitor: Visitor) -> Entry:
        """Raises NotAuthenticated in the same words whatever is wrong, TooManyAttempts, Unavailable."""
        user = await self._check(name, password, visitor.address)
        return await self.admit(user.id, PASSWORD, visitor)

    async def admit(self, user_id: str, way: str, visitor: Visitor) -> Entry:
        """Who they are was found out. Raises NotAuthenticated for whom nothing lets in."""
        async with self._changes.make(self._database) as change:
            entry = await self.admit_within(change, user_id, way, visitor)
        await self._badges.caught_up(change.version)
        return entry

    async def admit_within(self, change: Change, user_id: str, way: str, visitor: Visitor) -> Entry:
        """The same, as a part of a change that is the caller's own."""
        now = self._now()
        made = new_bearer(BearerKind.SESSION)
        user = await user_with_id(change.connection, user_id)
        if user.disabled or user.is_service_account:
            raise NotAuthenticated(_WRONG if way == PASSWORD else f"{user.name} may not sign in here: ask an admin.")
        session = await add_session(
            change,
            session_id=made.id,
            secret_hmac=seal_secret(self._pepper, made.secret),
            user=user,
            visitor=visitor,
            way=way,
            expires_at=now + self._lives.longest(visitor.kind),
            now=now,
        )
        facts: Facts = {"user": user.name, "kind": visitor.kind.value, "way": way, "address": visitor.address}
        act = Act(user.name, "session.begin", made.id, actor_key_id=made.name, after=facts)
        await record(change.connection, act, now)
        return Entry(session, made)

    async def sign_out(self, bearer: str) -> None:
        """A session that is not known, or has ended, is signed out already."""
        try:
            badge = self._badges.demand(bearer)  # by its secret: its name stands in lists and in the audit log
        except NotAuthenticated:
            return
        if badge.kind is not BearerKind.SESSION:
            return
        async with self._changes.make(self._database) as change:
            try:
                session = await session_with_id(change.connection, badge.id, user_id=badge.user_id)
            except NotFound:
                return
            await end_session(change, session, self._now())
            act = Act(badge.user_name, "session.end", badge.id, actor_key_id=badge.name)
            await record(change.connection, act, self._now())
        await self._badges.caught_up(change.version)

    async def change_password(self, name: str, old: str, new: str, *, but: str = "") -> int:
        """How many sessions of theirs ended with it. `but`: the id of the one that goes on. Raises BadInput for a wrong
        password, BadPassword, TooManyAttempts."""
        try:
            user = await self._check(name, old, f"of {name}")
        except NotAuthenticated as error:  # who they are is known
            raise BadInput("The old password is wrong. Who has none is given one by an admin.") from error
        return await self._set(user, new, "password.change", but=but)

    async def spend_reset(self, token: str, new: str) -> User:
        """Sets the password that a reset is for. Raises NotAuthenticated for a token that is not good, BadPassword."""
        bearer = parse_bearer(token.strip())
        if bearer is None or bearer.kind is not BearerKind.RESET:
            raise NotAuthenticated("This is no token for setting a password.")
        mac = seal_secret(self._pepper, bearer.secret)
        async with self._database.reading() as connection:
            user_id = await reset_user(connection, mac, self._now())
            if user_id is None:
                raise NotAuthenticated("This token was used, or has expired: ask an admin for another.")
            user = await user_with_id(connection, user_id)
        await self._set(user, new, "password.set", reset=mac)
        return user

    async def _set(self, user: User, new: str, action: str, *, but: str = "", reset: bytes | None = None) -> int:
        if user.is_service_account:
            raise BadInput("A service account has no password.")
        hashed = await self._hashing.hash(demand_good(new, user.name))
        async with self._changes.make(self._database) as change:
            if reset is not None and not await spend_reset(change.connection, reset):
                raise NotAuthenticated("This token was used in this moment.")
            await set_hash(change.connection, user.id, hashed, self._now())
            await forget_resets(change.connection, user.id)
            ended = await end_sessions(change, user.id, self._now(), but=but)
            act = Act(user.name, action, user.name, after={"sessions_ended": ended})
            await record(change.connection, act, self._now())
        await self._badges.caught_up(change.version)
        return ended

    async def _check(self, name: str, password: str, address: str) -> User:
        """Raises NotAuthenticated, TooManyAttempts."""
        name = name.strip()
        password = normal(password[: 4 * LONGEST])
        async with self._database.writing() as connection:
            await begin_attempt(connection, name, address, self._now())
            try:
                user = await user_named(connection, name)
            except NotFound:
                user = None
            hashed = await hash_of(connection, user.id) if user is not None and not user.is_service_account else None
        is_right = len(password) <= LONGEST and await self._hashing.verify(password, hashed)
        if not is_right or user is None or user.disabled:
            async with self._database.writing() as connection:
                facts: Facts = {"way": PASSWORD, "address": address}
                told = user.name if user is not None else "(nobody we know)"
                await record(connection, Act(told, "session.refuse", told, after=facts), self._now())
            self._on_refused(user.name if user is not None else "", address)
            raise NotAuthenticated(_WRONG)
        fresh = await self._hashing.hash(password) if hashed is not None and self._hashing.is_old(hashed) else None
        async with self._database.writing() as connection:
            await right(connection, name, address)
            if fresh is not None:
                await set_hash(connection, user.id, fresh, self._now())
        return user

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
