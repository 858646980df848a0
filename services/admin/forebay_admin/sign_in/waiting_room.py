"""Devices at the door: each gets two codes, waits for somebody to confirm it, and then a session of theirs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.keys import seal_secret
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import Bearer, BearerKind, new_bearer, parse_bearer
from forebay_admin.sign_in.device_store import (
    add_device,
    decide_device,
    device_asking,
    device_with_code,
    forget_device,
    note_asked,
)
from forebay_admin.sign_in.devices import LIFE, Device, Standing, new_user_code, parse_user_code, standing
from forebay_admin.sign_in.door import Door, Entry
from forebay_admin.sign_in.session_store import session_with_id
from forebay_admin.sign_in.sessions import Badge, SessionKind, Visitor


@dataclass(frozen=True, slots=True)
class Asked:
    device: Device
    bearer: Bearer = field(repr=False)


class WaitingRoom:
    def __init__(
        self, database: Database, changes: Changes, badges: Badges, door: Door, pepper: bytes, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._badges = badges
        self._door = door
        self._pepper = pepper
        self._clock = clock

    async def begin(self, visitor: Visitor) -> Asked:
        """Raises NotPossible when too many wait."""
        now = self._now()
        made = new_bearer(BearerKind.DEVICE)
        device = Device(new_user_code(), visitor.address, visitor.told_agent, now + LIFE)
        async with self._database.writing() as connection:
            await add_device(connection, seal_secret(self._pepper, made.secret), device, now)
        return Asked(device, made)

    async def ask(self, device_code: str, visitor: Visitor) -> Standing | Entry:
        """What a device is told that asks again: the session, this once, when somebody has confirmed it."""
        bearer = parse_bearer(device_code)
        if bearer is None or bearer.kind is not BearerKind.DEVICE:
            return Standing.EXPIRED
        mac, now = seal_secret(self._pepper, bearer.secret), self._now()
        async with self._database.writing() as connection:
            device = await device_asking(connection, mac)
            found = standing(device, now)
            if found in (Standing.PENDING, Standing.SLOW_DOWN):
                await note_asked(connection, mac, now)
            elif found is not Standing.CONFIRMED:
                await forget_device(connection, mac)
        if found is not Standing.CONFIRMED:
            return found
        async with self._changes.make(self._database) as change:
            device = await device_asking(change.connection, mac)
            if device is None or device.user_id is None:  # another asked in this moment, and has it
                return Standing.EXPIRED
            await forget_device(change.connection, mac)
            who = Visitor(SessionKind.PROGRAM, device.address, device.user_agent)
            entry = await self._door.admit_within(change, device.user_id, device.way, who)
        await self._badges.caught_up(change.version)
        return entry

    async def look(self, code: str) -> Device:
        """The device with this code, for somebody who is to confirm it. Raises BadInput, NotFound."""
        async with self._database.reading() as connection:
            return await device_with_code(connection, parse_user_code(code), self._now())

    async def decide(self, code: str, badge: Badge, *, is_confirmed: bool) -> Device:
        """Raises BadInput, NotFound."""
        user_code, now = parse_user_code(code), self._now()
        async with self._database.writing() as connection:
            device = await device_with_code(connection, user_code, now)
            way = (await session_with_id(connection, badge.id, user_id=badge.user_id)).way
            user_id = badge.user_id if is_confirmed else None
            await decide_device(connection, user_code, user_id=user_id, way=way, now=now)
            facts: Facts = {"address": device.address, "user_agent": device.user_agent, "confirmed": is_confirmed}
            act = Act(badge.user_name, "device.decide", badge.user_name, actor_key_id=badge.name, after=facts)
            await record(connection, act, now)
        return device

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
