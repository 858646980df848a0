"""Operators' calls about what becomes of a key, and owners' about their own: what it may, how long, with which secret."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.keys import ForebayKey, new_key, seal_secret
from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.changes import Change, Changes
from forebay_admin.keys.change_wire import change_from
from forebay_admin.keys.key_life import KeyChange, blocked, demand_no_wider, renewed, revised, rotated, unblocked
from forebay_admin.keys.key_store import keep_key, keep_secret
from forebay_admin.keys.keys import Key, key_id_from
from forebay_admin.people.access import Actor
from forebay_admin.people.directory import Directory
from forebay_admin.people.people_desk import demand_may_be, key_facts, reachable_key
from forebay_admin.people.roles import Reach
from forebay_admin.wire_forms import key_to_wire


class KeysDesk:
    def __init__(self, database: Database, changes: Changes, directory: Directory, pepper: bytes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._directory = directory
        self._pepper = pepper
        self._clock = clock

    async def set_terms(self, request: key_terms_pb2.SetKeyTermsRequest, actor: Actor) -> admin_pb2.SetKeyTermsResponse:
        key_id, change_of_key = key_id_from(request.key_id), change_from(request)
        only_narrower = actor.reach("SetKeyTerms") is not Reach.ALL
        async with self._changes.make(self._database) as change:
            before = await reachable_key(change.connection, key_id, actor, "SetKeyTerms")
            after = await self.revise(change, before, change_of_key, actor, only_narrower=only_narrower)
        return admin_pb2.SetKeyTermsResponse(key=key_to_wire(after), version=change.version)

    async def revise(
        self, change: Change, before: Key, change_of_key: KeyChange, actor: Actor, *, only_narrower: bool
    ) -> Key:
        """In the caller's transaction; audited. Raises BadInput, NotAllowed."""
        after = revised(before, change_of_key, only_narrower=only_narrower)
        await keep_key(change, after)
        await self._note(change, actor, "key.terms", before, after)
        return after

    async def renew(self, request: key_terms_pb2.RenewKeyRequest, actor: Actor) -> admin_pb2.RenewKeyResponse:
        expires_in_s = request.expires_in_s if request.HasField("expires_in_s") else None
        after, version = await self._change(
            request.key_id, actor, "RenewKey", "key.renew", lambda key, now: renewed(key, expires_in_s, now)
        )
        return admin_pb2.RenewKeyResponse(key=key_to_wire(after), version=version)

    async def rotate(self, request: key_terms_pb2.RotateKeyRequest, actor: Actor) -> admin_pb2.RotateKeyResponse:
        key_id, now = key_id_from(request.key_id), self._now()
        async with self._changes.make(self._database) as change:
            before = await reachable_key(change.connection, key_id, actor, "RotateKey")
            after = rotated(before, request.overlap_s, now)
            if actor.reach("RotateKey") is not Reach.ALL:
                demand_no_wider(after.limits, actor.limits)
            await demand_may_be(change.connection, before.user_id, actor, "With this key one")
            made = ForebayKey(before.public_id, new_key().secret)
            await keep_secret(change, after, seal_secret(self._pepper, made.secret))
            await self._note(change, actor, "key.rotate", before, after)
        await self._directory.caught_up(change.version)
        return admin_pb2.RotateKeyResponse(key=key_to_wire(after), secret=str(made), version=change.version)

    async def block(self, request: key_terms_pb2.BlockKeyRequest, actor: Actor) -> admin_pb2.BlockKeyResponse:
        for_s = request.for_s if request.HasField("for_s") else None
        after, version = await self._change(
            request.key_id, actor, "BlockKey", "key.block", lambda key, now: blocked(key, request.reason, for_s, now)
        )
        return admin_pb2.BlockKeyResponse(key=key_to_wire(after), version=version)

    async def unblock(self, request: key_terms_pb2.UnblockKeyRequest, actor: Actor) -> admin_pb2.UnblockKeyResponse:
        after, version = await self._change(
            request.key_id, actor, "UnblockKey", "key.unblock", lambda key, now: unblocked(key)
        )
        return admin_pb2.UnblockKeyResponse(key=key_to_wire(after), version=version)

    async def _change(
        self, named: str, actor: Actor, call: str, action: str, decide: Callable[[Key, datetime], Key]
    ) -> tuple[Key, int]:
        key_id, now = key_id_from(named), self._now()
        async with self._changes.make(self._database) as change:
            before = await reachable_key(change.connection, key_id, actor, call)
            after = decide(before, now)
            if actor.reach(call) is not Reach.ALL:
                demand_no_wider(after.limits, actor.limits)
            await keep_key(change, after)
            await self._note(change, actor, action, before, after)
        return after, change.version

    async def _note(self, change: Change, actor: Actor, action: str, before: Key, after: Key) -> None:
        act = Act(
            actor.name,
            action,
            after.public_id,
            actor_key_id=actor.key_id,
            before=key_facts(before),
            after=key_facts(after),
        )
        await record(change.connection, act, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
