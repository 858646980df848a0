"""Operators' calls about files of users and keys: read, looked at against what there is, shown; and made in one transaction
once the plan that was shown is confirmed. Each user and key is audited as if it had been made by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, ForebayError, NotAllowed
from forebay.keys import ForebayKey, new_key, seal_secret
from forebay.wire.v1 import bulk_pb2
from forebay_admin.audit.audit_store import Act, Facts, record_all
from forebay_admin.bulk.bulk_wire import flaws_to_wire, keys_to_wire, users_to_wire
from forebay_admin.bulk.key_lines import KeyFile, KeyLine, read_keys
from forebay_admin.bulk.plan import demand_same, digest_of_keys, digest_of_users, first_flaws
from forebay_admin.bulk.sheet import MOST_BYTES, Flaw
from forebay_admin.bulk.user_lines import UserFile, UserLine, read_users
from forebay_admin.changes import Change, Changes
from forebay_admin.keys import key_store
from forebay_admin.people import people_store
from forebay_admin.people.access import Actor
from forebay_admin.people.directory import Directory
from forebay_admin.people.people import User
from forebay_admin.people.people_desk import demand_may_hold, for_owner, key_facts, user_facts
from forebay_admin.people.rights import Rights, demand_no_wider
from forebay_admin.people.role_store import rights_of_each
from forebay_admin.quotas.member_store import start_members


class BulkDesk:
    def __init__(self, database: Database, changes: Changes, directory: Directory, pepper: bytes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._directory = directory
        self._pepper = pepper
        self._clock = clock

    async def import_users(self, request: bulk_pb2.ImportUsersRequest, actor: Actor) -> bulk_pb2.ImportUsersResponse:
        _demand_size(request.csv)
        file = await asyncio.to_thread(read_users, request.csv)
        async with self._database.reading() as connection:
            lines, new_groups, flaws = await _plan_users(connection, file, actor)
        if flaws:
            return bulk_pb2.ImportUsersResponse(problems=flaws_to_wire(first_flaws(flaws)))
        told = bulk_pb2.ImportUsersResponse(
            users=users_to_wire(lines), new_groups=new_groups, plan=digest_of_users(lines, new_groups)
        )
        if not request.plan:
            return told
        demand_same(request.plan, told.plan)
        async with self._changes.make(self._database) as change:
            lines, new_groups, flaws = await _plan_users(change.connection, file, actor)
            demand_same(request.plan, "" if flaws else digest_of_users(lines, new_groups))
            await self._add_users(change, lines, actor)
        told.done, told.version = True, change.version
        return told

    async def import_keys(self, request: bulk_pb2.ImportKeysRequest, actor: Actor) -> bulk_pb2.ImportKeysResponse:
        _demand_size(request.csv)
        file = await asyncio.to_thread(read_keys, request.csv, self._now())
        async with self._database.reading() as connection:
            lines, _, flaws = await _plan_keys(connection, file, actor)
        if flaws:
            return bulk_pb2.ImportKeysResponse(problems=flaws_to_wire(first_flaws(flaws)))
        told = bulk_pb2.ImportKeysResponse(keys=keys_to_wire(lines), plan=digest_of_keys(lines))
        if not request.plan:
            return told
        demand_same(request.plan, told.plan)
        made = [new_key() for _ in lines]
        async with self._changes.make(self._database) as change:
            lines, owners, flaws = await _plan_keys(change.connection, file, actor)
            demand_same(request.plan, "" if flaws else digest_of_keys(lines))
            await self._add_keys(change, lines, owners, made, actor)
        await self._directory.caught_up(change.version)
        told.done, told.version = True, change.version
        for planned, key in zip(told.keys, made, strict=True):
            planned.key_id, planned.secret = key.public_id, str(key)
        return told

    async def _add_users(self, change: Change, lines: Sequence[UserLine], actor: Actor) -> None:
        now = self._now()
        groups = await people_store.groups_named(change.connection, {line.order.group for line in lines})
        made = []
        for line in lines:
            lower = line.order.group.lower()
            if lower not in groups:
                groups[lower] = await people_store.group_or_new(change, line.order.group, now)
            made.append(people_store.made_of(line.order, *groups[lower], now))
        await people_store.insert_users(change, made)
        acts = [_act(actor, "user.add", user.name, user_facts(user)) for user in made]
        await record_all(change.connection, acts, now)
        await start_members(change, made, actor.name, now)

    async def _add_keys(
        self,
        change: Change,
        lines: Sequence[KeyLine],
        owners: Sequence[User],
        made: Sequence[ForebayKey],
        actor: Actor,
    ) -> None:
        now = self._now()
        keys = [
            key_store.made_of(one.public_id, line.order, owner, actor.name, now)
            for line, owner, one in zip(lines, owners, made, strict=True)
        ]
        sealed = [seal_secret(self._pepper, one.secret) for one in made]
        await key_store.insert_keys(change, list(zip(keys, sealed, strict=True)))
        acts = [_act(actor, "key.create", key.public_id, key_facts(key)) for key in keys]
        await record_all(change.connection, acts, now)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _plan_users(
    connection: AsyncConnection, file: UserFile, actor: Actor
) -> tuple[list[UserLine], list[str], list[Flaw]]:
    """What each line does, with the name of its group as it is written; the groups that are made; and what does not fit."""
    flaws = list(file.flaws)
    there = await people_store.users_named(connection, (line.order.name for line in file.lines))
    groups = await people_store.groups_named(connection, {line.order.group for line in file.lines})
    names = {lower: name for lower, (_, name) in groups.items()}
    too_wide = {
        role: _why(demand_no_wider, Rights(role), actor.rights, f"With the role {role} one")
        for role in {line.order.role for line in file.lines}
    }
    lines = []
    for line in file.lines:
        order = line.order
        if order.name.lower() in there:
            flaws.append(Flaw(line.number, "name", f"There is a user {order.name} already."))
        if (why := too_wide[order.role]) is not None:
            flaws.append(Flaw(line.number, "role", why))
        group = names.setdefault(order.group.lower(), order.group)
        lines.append(replace(line, order=replace(order, group=group)))
    new_groups = sorted(name for lower, name in names.items() if lower not in groups)
    return lines, new_groups, flaws


async def _plan_keys(
    connection: AsyncConnection, file: KeyFile, actor: Actor
) -> tuple[list[KeyLine], list[User], list[Flaw]]:
    """What each line does, with whose key it is; and what does not fit."""
    flaws = list(file.flaws)
    users = await people_store.users_named(connection, (line.order.user for line in file.lines))
    rights = await rights_of_each(connection, users.values())
    in_use = await key_store.names_in_use(connection, (user.id for user in users.values()))
    may_hold: set[tuple[Rights, bool]] = set()
    lines, owners = [], []
    for line in file.lines:
        order = line.order
        owner = users.get(order.user.lower())
        try:
            order = for_owner(order, actor, band_was_named=line.band_was_named)
            if owner is None:
                raise BadInput(f"There is no user {order.user[:64]!r}.")
            if owner.disabled:
                raise BadInput(f"The user {owner.name} is disabled; a key would not work.")
            known = (rights[owner.id], owner.id == actor.user_id)
            if known not in may_hold:  # most users are of a few kinds
                demand_may_hold(rights[owner.id], owner.id, actor, f"With a key of {owner.name} one")
                may_hold.add(known)
        except (BadInput, NotAllowed) as error:
            flaws.append(Flaw(line.number, "user", error.message))
            continue
        if (owner.id, order.name.lower()) in in_use:
            flaws.append(Flaw(line.number, "name", f"{owner.name} has a key {order.name} already."))
        lines.append(replace(line, order=replace(order, user=owner.name)))
        owners.append(owner)
    return lines, owners, flaws


def _why(demand: Callable[[Rights, Rights, str], None], wanted: Rights, held: Rights, what: str) -> str | None:
    try:
        demand(wanted, held, what)
    except ForebayError as error:
        return error.message
    return None


def _demand_size(csv: str) -> None:
    if len(csv) > MOST_BYTES:
        raise BadInput(f"The file is larger than {MOST_BYTES // 1024 // 1024} MB: divide it.")


def _act(actor: Actor, action: str, subject: str, after: Facts) -> Act:
    return Act(actor.name, action, subject, actor_key_id=actor.key_id, after=after)
