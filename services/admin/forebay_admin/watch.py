"""What the other services watch: a snapshot, then each change as it is committed. While Postgres is away the streams stay
open and silent, and go on where they stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.metrics import Number
from forebay.uncollected import uncollected
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_admin.changes import Changes
from forebay_admin.fleet.credential_store import CredentialStore
from forebay_admin.keys.principal_store import AT_ONCE, principals_since
from forebay_admin.models.fallbacks_store import all_fallbacks
from forebay_admin.models.fallbacks_wire import fallback_to_wire
from forebay_admin.models.model_rules_store import all_aliases, all_rules, rules_changed_at
from forebay_admin.models.model_rules_wire import alias_to_wire, rule_to_wire
from forebay_admin.models.terms_store import models_since, pools_since
from forebay_admin.money.balance_policy import tell_balances
from forebay_admin.money.price_policy import tell_prices
from forebay_admin.quotas.policy_store import budgets_of, groups_since, keys_since, users_since
from forebay_admin.quotas.policy_wire import (
    group_share_to_wire,
    key_share_to_wire,
    model_terms_to_wire,
    pool_terms_to_wire,
    user_share_to_wire,
)
from forebay_admin.quotas.spending import standings
from forebay_admin.recordings.policy_store import policies_by_group
from forebay_admin.recordings.telling import tell_policy
from forebay_admin.removals import Removable, removed_since
from forebay_admin.updates import Read, U, updates
from forebay_admin.versions import Since
from forebay_admin.wire_forms import credential_to_wire, principal_to_wire


class WatchServicer(admin_pb2_grpc.AdminServicer):
    def __init__(
        self,
        database: Database,
        changes: Changes,
        credentials: CredentialStore,
        clock: Clock,
        watchers: Callable[[str], Number],
    ) -> None:
        """`watchers`: stream → how many watch it now."""
        self._database = database
        self._changes = changes
        self._credentials = credentials
        self._clock = clock
        self._watchers = watchers
        self._one_reads = asyncio.Lock()
        self._newest: tuple[tuple[Since, int], admin_pb2.PrincipalsUpdate] | None = None
        """What changed of keys between two versions, as the last watcher was told it."""

    def WatchPrincipals(
        self, request: admin_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[admin_pb2.PrincipalsUpdate]:
        return self._stream("principals", request, self._read_principals)

    def WatchPolicy(self, request: admin_pb2.WatchRequest, context: Any) -> AsyncIterator[admin_pb2.PolicyUpdate]:
        return self._stream("policy", request, self._read_policy)

    def WatchCredentials(
        self, request: admin_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[admin_pb2.CredentialsUpdate]:
        return self._stream("credentials", request, self._read_credentials)

    def WatchModelRules(
        self, request: admin_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[admin_pb2.ModelRulesUpdate]:
        return self._stream("model_rules", request, read_model_rules)

    async def _stream(self, name: str, request: admin_pb2.WatchRequest, read: Read[U]) -> AsyncIterator[U]:
        watching = self._watchers(name)
        watching.value += 1
        try:
            async for update in updates(self._database, self._changes, request.known_version, read):
                yield update
        finally:
            watching.value -= 1

    async def _read_principals(
        self, connection: AsyncConnection, since: Since, current: int
    ) -> admin_pb2.PrincipalsUpdate:
        """All gateways hear of a change at once, and what it is is read for one of them. A snapshot nobody waits behind."""
        if since.is_snapshot:
            return await read_principals(connection, since, current)
        async with self._one_reads:
            if self._newest is None or self._newest[0] != (since, current):
                self._newest = (since, current), await read_principals(connection, since, current)
            return self._newest[1]

    async def _read_policy(self, connection: AsyncConnection, since: Since, current: int) -> admin_pb2.PolicyUpdate:
        return await read_policy(connection, since, current, datetime.fromtimestamp(self._clock.now(), UTC))

    async def _read_credentials(
        self, connection: AsyncConnection, since: Since, current: int
    ) -> admin_pb2.CredentialsUpdate:
        changed = await self._credentials.since(connection, since.after)
        return admin_pb2.CredentialsUpdate(
            version=current,
            snapshot=since.is_snapshot,
            credentials=[credential_to_wire(backend_id, bearers) for backend_id, bearers in changed.bearers.items()],
            removed_backend_ids=() if since.is_snapshot else changed.removed,
        )


async def read_principals(connection: AsyncConnection, since: Since, current: int) -> admin_pb2.PrincipalsUpdate:
    principals = await principals_since(connection, since.after)
    policies = await policies_by_group(connection)
    update = admin_pb2.PrincipalsUpdate(version=current, snapshot=since.is_snapshot)
    with uncollected():
        for first in range(0, len(principals), AT_ONCE):
            for principal in principals[first : first + AT_ONCE]:
                key = principal_to_wire(principal)
                tell_policy(key, policies.get(principal.group_id))
                update.keys.append(key)
            await asyncio.sleep(0)
    return update


async def read_model_rules(connection: AsyncConnection, since: Since, current: int) -> admin_pb2.ModelRulesUpdate:
    """All of them, or none when nothing has changed about them."""
    if not since.is_snapshot and await rules_changed_at(connection) <= since.after:
        return admin_pb2.ModelRulesUpdate(version=current)
    return admin_pb2.ModelRulesUpdate(
        version=current,
        snapshot=True,
        aliases=[alias_to_wire(alias) for alias in await all_aliases(connection)],
        rules=[rule_to_wire(rule) for rule in await all_rules(connection)],
        fallbacks=[fallback_to_wire(fallback) for fallback in await all_fallbacks(connection)],
        prices=[model_terms_to_wire(terms) for terms in await models_since(connection, 0)],
    )


async def read_policy(connection: AsyncConnection, since: Since, current: int, now: datetime) -> admin_pb2.PolicyUpdate:
    people, within = await users_since(connection, since.after), await groups_since(connection, since.after)
    keys = await keys_since(connection, since.after, is_snapshot=since.is_snapshot)
    held = await budgets_of(connection, people, within, keys.kept)
    counted = await standings(connection, held, now)
    update = admin_pb2.PolicyUpdate(
        version=current,
        snapshot=since.is_snapshot,
        users=[user_share_to_wire(share, held, counted) for share in people],
        groups=[group_share_to_wire(share, held, counted) for share in within],
        keys=[key_share_to_wire(share, held, counted) for share in keys.kept],
        models=[model_terms_to_wire(terms) for terms in await models_since(connection, since.after)],
        pools=[pool_terms_to_wire(terms) for terms in await pools_since(connection, since.after)],
    )
    await tell_balances(connection, update, now)
    await tell_prices(connection, update, since, now)
    if not since.is_snapshot:
        removed = await removed_since(connection, since.after)
        update.removed_key_ids.extend(keys.removed)
        update.removed_group_ids.extend(removed[Removable.GROUP])
        update.removed_models.extend(removed[Removable.MODEL])
        update.removed_pools.extend(removed[Removable.POOL])
    return update
