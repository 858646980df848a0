"""The key that somebody's chat counts as: one of their own, called `chat`, found in their list of keys and ended there. What
a page gets is not that key, but one for a single request, from that page and that client, to that model, within minutes.

Nobody ever holds the secret of the chat's key: it is made, and thrown away."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.ephemeral_keys import EphemeralSeal, Narrowing
from forebay.errors import BadInput, NotAllowed
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.keys.key_store import list_keys
from forebay_admin.keys.keys import Key, Limits
from forebay_admin.people.access import Actor
from forebay_admin.people.people_desk import PeopleDesk
from forebay_admin.people.roles import Reach
from forebay_admin.sign_in.pace import Pace

NAME = "chat"
LABEL, VALUE = "use", "chat"
LIVES_S = 120
"""A key for one request: until it has begun."""
AT_ONCE, EVERY_S = 60, 1.0
"""How many one user may have made at once, and then one each so many seconds: each is written into the audit log."""


@dataclass(frozen=True, slots=True)
class Minted:
    value: str
    expires_at: int
    """Seconds since the epoch."""
    key_id: str
    """As whose the request counts."""


class ChatKeys:
    def __init__(
        self, database: Database, people: PeopleDesk, pepper: bytes, clock: Clock, *, binds_address: bool
    ) -> None:
        """`binds_address`: what is made works from the client's address only."""
        self._database = database
        self._people = people
        self._seal = EphemeralSeal(pepper)
        self._clock = clock
        self._binds_address = binds_address
        self._making = asyncio.Lock()
        self._pace = Pace(AT_ONCE, EVERY_S)

    async def mint(self, actor: Actor, *, model: str, origin: str, address: str) -> Minted:
        """`origin`: of the page that asks; a key without one would work from anywhere. Raises BadInput, NotAllowed,
        TooOften."""
        if not model or len(model) > 256 or not model.isprintable():
            raise BadInput("Say which model it is for.")
        if not origin:
            raise NotAllowed("Such a key is for a page of ours, and nothing said which one asks for it (origin).")
        self._pace.demand(actor.user_id, self._clock.monotonic(), "you")
        key = await self._key(actor)
        now = self._now()
        _demand_working(key, now)
        expires_at = int(now.timestamp()) + LIVES_S
        narrowing = Narrowing(frozenset((model,)), None, origin, address if self._binds_address else "")
        act = Act(
            actor.name,
            "ephemeral_key.issue",
            key.public_id,
            actor_key_id=actor.key_id,
            after={"models": [model], "origin": origin, "expires_in_s": LIVES_S},
        )
        async with self._database.writing() as connection:
            await record(connection, act, now)
        return Minted(self._seal.issue(key.public_id, expires_at, narrowing), expires_at, key.public_id)

    async def limits(self, actor: Actor) -> Limits:
        """What the chat's key allows, or would if there were one."""
        found = await self._found(actor)
        return found.limits if found is not None else Limits()

    async def _key(self, actor: Actor) -> Key:
        found = await self._found(actor)
        if found is not None:
            return found
        async with self._making:  # two windows that begin at once
            found = await self._found(actor)
            if found is not None:
                return found
            if actor.reach("CreateKey") is Reach.NONE:
                raise NotAllowed(f"There is no key of {actor.name}'s for the chat, and they may make none.")
            order = admin_pb2.CreateKeyRequest(
                name=NAME,
                description="Chat in the browser counts as this key. Revoke it to end that; nobody holds its secret.",
                labels={LABEL: VALUE},
            )
            await self._people.create_key(order, actor)
            made = await self._found(actor)
            assert made is not None  # it was made a moment ago
            return made

    async def _found(self, actor: Actor) -> Key | None:
        """The oldest that was not revoked: another replica may have made one at the same moment."""
        if not actor.user_id:
            raise NotAllowed("The chat is for users, and this caller is none.")
        async with self._database.reading() as connection:
            own = await list_keys(connection, user_id=actor.user_id, include_revoked=False)
        return next((key for key in own if key.labels.get(LABEL) == VALUE), None)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _demand_working(key: Key, now: datetime) -> None:
    """What a gateway would say, said before there is a request. Raises NotAllowed."""
    if key.user_disabled:
        raise NotAllowed(f"The user {key.user_name} is disabled.")
    if key.block is not None and key.block.holds(now):
        raise NotAllowed(
            f"The key of your chat ({key.public_id}) is blocked: {key.block.reason.rstrip('.')}. Ask your administrator."
        )
    expires_at = key.limits.expires_at
    if expires_at is not None and now >= expires_at:
        raise NotAllowed(f"The key of your chat ({key.public_id}) has expired: renew it on the page of your keys.")
