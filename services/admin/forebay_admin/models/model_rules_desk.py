"""Operators' calls about other names of models, and about what gateways do to requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.keys.key_store import key_with_id
from forebay_admin.keys.keys import key_id_from
from forebay_admin.models.fallbacks_store import all_fallbacks
from forebay_admin.models.fallbacks_wire import fallback_to_wire
from forebay_admin.models.model_rules import (
    Alias,
    Rule,
    Scope,
    ScopeKind,
    changed_fields,
    demand_alias,
    demand_fields,
    demand_rule,
    demand_scope,
)
from forebay_admin.models.model_rules_store import (
    all_aliases,
    all_rules,
    find_alias,
    find_rule,
    keep_alias,
    keep_rule,
    remove_alias,
    remove_rule,
)
from forebay_admin.models.model_rules_wire import (
    alias_from,
    alias_to_wire,
    rule_to_wire,
    scope_from,
    structured_from,
    thinking_from,
)
from forebay_admin.people.access import Actor


class ModelRulesDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._note = Note(clock)

    async def set_alias(self, request: admin_pb2.SetModelAliasRequest, actor: Actor) -> admin_pb2.SetModelAliasResponse:
        wanted = demand_alias(alias_from(request.alias), ())
        async with self._changes.make(self._database) as change:
            demand_alias(wanted, await all_aliases(change.connection))
            before = await find_alias(change.connection, wanted.alias, wanted.pool)
            await keep_alias(change, wanted)
            facts = _alias(before) if before is not None else None
            await self._note(change, actor, "model.alias", wanted.alias, before=facts, after=_alias(wanted))
        return admin_pb2.SetModelAliasResponse(alias=alias_to_wire(wanted), version=change.version)

    async def remove_alias(
        self, request: admin_pb2.RemoveModelAliasRequest, actor: Actor
    ) -> admin_pb2.RemoveModelAliasResponse:
        async with self._changes.make(self._database) as change:
            before = await remove_alias(change, request.alias, request.pool)
            await self._note(change, actor, "model.alias", before.alias, before=_alias(before))
        return admin_pb2.RemoveModelAliasResponse(alias=alias_to_wire(before), version=change.version)

    async def set_rule(self, request: admin_pb2.SetModelRuleRequest, actor: Actor) -> admin_pb2.SetModelRuleResponse:
        scope = demand_scope(scope_from(request.scope))
        if not any(field.name != "scope" for field, _ in request.ListFields()):
            raise BadInput("Say what the rule is to do; nothing was named.")
        defaults, pinned = demand_fields(request.defaults), demand_fields(request.pinned)
        async with self._changes.make(self._database) as change:
            scope = await _found(change.connection, scope)
            before = await find_rule(change.connection, scope)
            after = demand_rule(_changed(before or Rule(scope), request, defaults, pinned))
            await keep_rule(change, after)
            facts = _rule(before) if before is not None else None
            await self._note(change, actor, "model.rule", str(scope), before=facts, after=_rule(after))
        return admin_pb2.SetModelRuleResponse(rule=rule_to_wire(after), version=change.version)

    async def remove_rule(
        self, request: admin_pb2.RemoveModelRuleRequest, actor: Actor
    ) -> admin_pb2.RemoveModelRuleResponse:
        scope = scope_from(request.scope)
        async with self._changes.make(self._database) as change:
            before = await remove_rule(change, await _found(change.connection, scope))
            await self._note(change, actor, "model.rule", str(before.scope), before=_rule(before))
        return admin_pb2.RemoveModelRuleResponse(rule=rule_to_wire(before), version=change.version)

    async def list_all(self) -> admin_pb2.ListModelRulesResponse:
        async with self._database.reading() as connection:
            return admin_pb2.ListModelRulesResponse(
                aliases=[alias_to_wire(alias) for alias in await all_aliases(connection)],
                rules=[rule_to_wire(rule) for rule in await all_rules(connection)],
                fallbacks=[fallback_to_wire(fallback) for fallback in await all_fallbacks(connection)],
            )


async def _found(connection: AsyncConnection, scope: Scope) -> Scope:
    """With the public id of the key that was named. Raises NotFound, BadInput."""
    if scope.kind is not ScopeKind.KEY:
        return scope
    return Scope(scope.kind, (await key_with_id(connection, key_id_from(scope.name))).public_id)


def _changed(
    before: Rule, request: admin_pb2.SetModelRuleRequest, defaults: dict[str, str], pinned: dict[str, str]
) -> Rule:
    """Raises BadInput."""
    caps: dict[str, Any] = {
        name: cap.most if cap.HasField("most") else None
        for name, cap in (
            ("max_output_tokens", request.max_output_tokens),
            ("num_ctx", request.num_ctx),
            ("keep_alive_s", request.keep_alive_s),
            ("max_context_tokens", request.max_context_tokens),
        )
        if request.HasField(name)  # type: ignore[arg-type]
    }
    return replace(
        before,
        defaults=changed_fields(before.defaults, defaults, request.removed_defaults),
        pinned=changed_fields(before.pinned, pinned, request.removed_pins),
        thinking=thinking_from(request.thinking) if request.HasField("thinking") else before.thinking,
        structured=structured_from(request.structured) if request.HasField("structured") else before.structured,
        **caps,
    )


def _alias(alias: Alias) -> Facts:
    return {"model": alias.model, "pool": alias.pool}


def _rule(rule: Rule) -> Facts:
    return {
        "defaults": [f"{name}={text}" for name, text in sorted(rule.defaults.items())],
        "pinned": [f"{name}={text}" for name, text in sorted(rule.pinned.items())],
        "max_output_tokens": rule.max_output_tokens,
        "num_ctx": rule.num_ctx,
        "keep_alive_s": rule.keep_alive_s,
        "thinking": rule.thinking.value if rule.thinking is not None else None,
        "max_context_tokens": rule.max_context_tokens,
        "structured": rule.structured.value if rule.structured is not None else None,
    }
