"""Operators' calls about public keys that sign calls: which API key trusts them."""

from __future__ import annotations

from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.keys.signing_key_store import (
    add_signing_key,
    count_signing_keys,
    find_signing_key,
    list_signing_keys,
    remove_signing_key,
)
from forebay_admin.keys.signing_keys import SigningKey, demand_free, demand_no_wider, demand_trusting, order_trust
from forebay_admin.people.access import Actor
from forebay_admin.people.people_desk import reachable_key, whose
from forebay_admin.people.people_store import user_named
from forebay_admin.people.roles import Reach
from forebay_admin.wire_forms import signing_key_to_wire


class SigningDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def add(self, request: admin_pb2.AddSigningKeyRequest, actor: Actor) -> admin_pb2.AddSigningKeyResponse:
        now = self._now()
        order = order_trust(request.key_id, request.public_key, request.name)
        sees_all = actor.reach("AddSigningKey") is Reach.ALL
        async with self._changes.make(self._database) as change:
            key = await reachable_key(change.connection, order.key_id, actor, "AddSigningKey")
            if not sees_all:
                demand_no_wider(key.limits, actor.limits)
            demand_trusting(key, await count_signing_keys(change.connection, key), now)
            before = await find_signing_key(change.connection, order.fingerprint)
            if before is not None:
                demand_free(before, key, sees_all=sees_all)
                await remove_signing_key(change, before)
            after = await add_signing_key(change, order, key, created_by=actor.name, now=now)
            act = _act(actor, "key.trust", after, before=before, after=after)
            await record(change.connection, act, now)
        return admin_pb2.AddSigningKeyResponse(signing_key=signing_key_to_wire(after), version=change.version)

    async def list_all(
        self, request: admin_pb2.ListSigningKeysRequest, actor: Actor
    ) -> admin_pb2.ListSigningKeysResponse:
        name = whose(request.user, actor, "ListSigningKeys")
        async with self._database.reading() as connection:
            user_id = (await user_named(connection, name)).id if name else None
            found = await list_signing_keys(connection, user_id)
        return admin_pb2.ListSigningKeysResponse(signing_keys=[signing_key_to_wire(one) for one in found])

    async def remove(
        self, request: admin_pb2.RemoveSigningKeyRequest, actor: Actor
    ) -> admin_pb2.RemoveSigningKeyResponse:
        sees_all = actor.reach("RemoveSigningKey") is Reach.ALL
        async with self._changes.make(self._database) as change:
            gone = await find_signing_key(change.connection, request.fingerprint)
            if gone is None or not (sees_all or gone.key.user_id == actor.user_id):
                which = "key" if sees_all else "key of yours"  # the same words, whether or not somebody else's does
                raise NotFound(f"No {which} trusts the public key {request.fingerprint[:60]!r}.")
            await remove_signing_key(change, gone)
            await record(change.connection, _act(actor, "key.untrust", gone, before=gone), self._now())
        return admin_pb2.RemoveSigningKeyResponse(signing_key=signing_key_to_wire(gone), version=change.version)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _act(
    actor: Actor, action: str, about: SigningKey, *, before: SigningKey | None = None, after: SigningKey | None = None
) -> Act:
    return Act(
        actor.name,
        action,
        about.fingerprint,
        actor_key_id=actor.key_id,
        before=_facts(before) if before is not None else None,
        after=_facts(after) if after is not None else None,
    )


def _facts(signing_key: SigningKey) -> Facts:
    key = signing_key.key
    return {"name": signing_key.name, "key": key.public_id, "key_name": key.name, "user": key.user_name}
