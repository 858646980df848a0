"""Operators' calls about shares: groups and how they nest, the weights of users and keys, and who is paused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Change, Changes
from forebay_admin.keys.key_store import key_with_id, weigh_key
from forebay_admin.keys.keys import key_id_from
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import add_group, change_group, group_named, read_groups, remove_group
from forebay_admin.people.groups import Group, in_order, preset_named
from forebay_admin.people.people import User, demand_name
from forebay_admin.people.people_store import change_user, user_named
from forebay_admin.people.weights import demand_weight
from forebay_admin.quotas.policy_wire import group_to_wire
from forebay_admin.wire_forms import key_to_wire, user_to_wire

_MOST_QUEUED = 1_000_000


class SharesDesk:
    def __init__(
        self, database: Database, changes: Changes, moved: Callable[[Change, str], Awaitable[None]], clock: Clock
    ) -> None:
        """`moved` hears of a group, by its id, that has another parent, in the transaction of that: what holds for its
        members by the groups around it is to be told again."""
        self._database = database
        self._changes = changes
        self._moved = moved
        self._clock = clock
        self._note = Note(clock)

    async def change_user(self, request: admin_pb2.ChangeUserRequest, actor: Actor) -> admin_pb2.ChangeUserResponse:
        _demand_change(request)
        weight = demand_weight(request.weight_milli) if request.HasField("weight_milli") else None
        if request.max_queued > _MOST_QUEUED:
            raise BadInput(f"At most {_MOST_QUEUED} requests of one user wait.")
        async with self._changes.make(self._database) as change:
            before = await user_named(change.connection, request.name)
            after = await change_user(
                change,
                before,
                group=await group_named(change.connection, request.group) if request.HasField("group") else None,
                weight_milli=weight,
                max_queued=request.max_queued if request.HasField("max_queued") else None,
                paused=request.paused if request.HasField("paused") else None,
            )
            await self._note(change, actor, "user.set", after.name, before=_user(before), after=_user(after))
        return admin_pb2.ChangeUserResponse(user=user_to_wire(after), version=change.version)

    async def change_key(self, request: admin_pb2.ChangeKeyRequest, actor: Actor) -> admin_pb2.ChangeKeyResponse:
        _demand_change(request)
        weight = demand_weight(request.weight_milli)
        async with self._changes.make(self._database) as change:
            before = await key_with_id(change.connection, key_id_from(request.key_id))
            after = await weigh_key(change, before, weight)
            await self._note(
                change,
                actor,
                "key.set",
                after.public_id,
                before={"weight_milli": before.weight_milli},
                after={"weight_milli": after.weight_milli},
            )
        return admin_pb2.ChangeKeyResponse(key=key_to_wire(after), version=change.version)

    async def add_group(self, request: admin_pb2.AddGroupRequest, actor: Actor) -> admin_pb2.AddGroupResponse:
        name = demand_name(request.name, "A group's name")
        weight = demand_weight(request.weight_milli) if request.HasField("weight_milli") else None
        async with self._changes.make(self._database) as change:
            made = await add_group(change, name, request.parent, weight, self._now())
            names = await self._names(change)
            await self._note(change, actor, "group.add", made.name, after=_group(made, names))
        return admin_pb2.AddGroupResponse(group=group_to_wire(made, names), version=change.version)

    async def list_groups(self) -> admin_pb2.ListGroupsResponse:
        async with self._database.reading() as connection:
            known = await read_groups(connection)
        names = {group.id: group.name for group in known.values()}
        return admin_pb2.ListGroupsResponse(groups=[group_to_wire(group, names) for group in in_order(known.values())])

    async def change_group(self, request: admin_pb2.ChangeGroupRequest, actor: Actor) -> admin_pb2.ChangeGroupResponse:
        _demand_change(request)
        weight = demand_weight(request.weight_milli) if request.HasField("weight_milli") else None
        async with self._changes.make(self._database) as change:
            before, after = await change_group(
                change,
                request.name,
                parent=request.parent if request.HasField("parent") else None,
                weight_milli=weight,
                paused=request.paused if request.HasField("paused") else None,
            )
            if after.parent_id != before.parent_id:
                await self._moved(change, after.id)
            names = await self._names(change)
            await self._note(
                change, actor, "group.set", after.name, before=_group(before, names), after=_group(after, names)
            )
        return admin_pb2.ChangeGroupResponse(group=group_to_wire(after, names), version=change.version)

    async def remove_group(self, request: admin_pb2.RemoveGroupRequest, actor: Actor) -> admin_pb2.RemoveGroupResponse:
        async with self._changes.make(self._database) as change:
            names = await self._names(change)
            gone = await remove_group(change, request.name)
            await self._note(change, actor, "group.remove", gone.name, before=_group(gone, names))
        return admin_pb2.RemoveGroupResponse(group=group_to_wire(gone, names), version=change.version)

    async def preset_groups(
        self, request: admin_pb2.PresetGroupsRequest, actor: Actor
    ) -> admin_pb2.PresetGroupsResponse:
        """All of them in one change. Groups of these names that are there keep their members and where they stand."""
        preset = preset_named(request.preset)
        groups: list[Group] = []
        async with self._changes.make(self._database) as change:
            known = {group.name.lower() for group in (await read_groups(change.connection)).values()}
            for name, weight in preset.items():
                if name in known:
                    _, group = await change_group(change, name, parent=None, weight_milli=weight, paused=None)
                else:
                    group = await add_group(change, name, "", weight, self._now())
                groups.append(group)
            names = await self._names(change)
            facts: Facts = {group.name: group.weight_milli for group in groups}
            await self._note(change, actor, "group.preset", request.preset, after=facts)
        return admin_pb2.PresetGroupsResponse(
            groups=[group_to_wire(group, names) for group in groups], version=change.version
        )

    async def _names(self, change: Change) -> dict[str, str]:
        return {group.id: group.name for group in (await read_groups(change.connection)).values()}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _demand_change(
    request: admin_pb2.ChangeUserRequest | admin_pb2.ChangeKeyRequest | admin_pb2.ChangeGroupRequest,
) -> None:
    """Raises BadInput when there is nothing in it but a name."""
    if len(request.ListFields()) < 2:
        raise BadInput("Say what is to be changed; nothing was named.")


def _user(user: User) -> Facts:
    return {
        "group": user.group_name,
        "weight_milli": user.weight_milli,
        "max_queued": user.max_queued,
        "paused": user.paused,
    }


def _group(group: Group, names: dict[str, str]) -> Facts:
    return {
        "parent": names.get(group.parent_id) if group.parent_id is not None else None,
        "weight_milli": group.weight_milli,
        "paused": group.paused,
    }
