"""Aliases and rules of models in Postgres, and when they last changed. Each function works on the caller's transaction."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.models.model_rules import Alias, Rule, Scope, ScopeKind, Structured, Thinking, in_order
from forebay_admin.tables import model_aliases, model_rules, model_rules_version


async def rules_changed_at(connection: AsyncConnection) -> int:
    """The version at which the last alias or rule was made, changed or removed."""
    return int(await connection.scalar(select(model_rules_version.c.value)) or 0)


async def all_aliases(connection: AsyncConnection) -> list[Alias]:
    """By name."""
    query = select(model_aliases).order_by(model_aliases.c.alias, model_aliases.c.pool)
    return [_alias(row) for row in await connection.execute(query)]


async def all_rules(connection: AsyncConnection) -> list[Rule]:
    """In the order in which they apply."""
    return in_order([_rule(row) for row in await connection.execute(select(model_rules))])


async def find_alias(connection: AsyncConnection, alias: str, pool: str) -> Alias | None:
    query = select(model_aliases).where(model_aliases.c.alias == alias, model_aliases.c.pool == pool)
    row = (await connection.execute(query)).first()
    return _alias(row) if row is not None else None


async def keep_alias(change: Change, alias: Alias) -> None:
    values = {"model": alias.model, "version": change.version}
    await change.connection.execute(
        insert(model_aliases)
        .values(alias=alias.alias, pool=alias.pool, **values)
        .on_conflict_do_update(index_elements=[model_aliases.c.alias, model_aliases.c.pool], set_=values)
    )
    await note_rules_change(change)


async def remove_alias(change: Change, alias: str, pool: str) -> Alias:
    """As it was. Raises NotFound."""
    before = await find_alias(change.connection, alias, pool)
    if before is None:
        raise NotFound(f"There is no alias {alias} {f'in the pool {pool}' if pool else 'of every pool'}.")
    await change.connection.execute(
        delete(model_aliases).where(model_aliases.c.alias == alias, model_aliases.c.pool == pool)
    )
    await note_rules_change(change)
    return before


async def find_rule(connection: AsyncConnection, scope: Scope) -> Rule | None:
    row = (await connection.execute(select(model_rules).where(*_of(scope)))).first()
    return _rule(row) if row is not None else None


async def keep_rule(change: Change, rule: Rule) -> None:
    values = {
        "defaults": orjson.dumps(dict(rule.defaults)).decode(),
        "pinned": orjson.dumps(dict(rule.pinned)).decode(),
        "max_output_tokens": rule.max_output_tokens,
        "num_ctx": rule.num_ctx,
        "keep_alive_s": rule.keep_alive_s,
        "thinking": rule.thinking.value if rule.thinking is not None else None,
        "max_context_tokens": rule.max_context_tokens,
        "structured": rule.structured.value if rule.structured is not None else None,
        "version": change.version,
    }
    await change.connection.execute(
        insert(model_rules)
        .values(kind=rule.scope.kind.value, name=rule.scope.name, **values)
        .on_conflict_do_update(index_elements=[model_rules.c.kind, model_rules.c.name], set_=values)
    )
    await note_rules_change(change)


async def remove_rule(change: Change, scope: Scope) -> Rule:
    """As it was. Raises NotFound."""
    before = await find_rule(change.connection, scope)
    if before is None:
        raise NotFound(f"There is no rule for {scope}.")
    await change.connection.execute(delete(model_rules).where(*_of(scope)))
    await note_rules_change(change)
    return before


async def note_rules_change(change: Change) -> None:
    """Gateways are to hear all of it again."""
    await change.connection.execute(update(model_rules_version).values(value=change.version))


def _of(scope: Scope) -> tuple[Any, Any]:
    return model_rules.c.kind == scope.kind.value, model_rules.c.name == scope.name


def _alias(row: Any) -> Alias:
    return Alias(row.alias, row.model, row.pool)


def _rule(row: Any) -> Rule:
    return Rule(
        Scope(ScopeKind(row.kind), row.name),
        orjson.loads(row.defaults),
        orjson.loads(row.pinned),
        row.max_output_tokens,
        row.num_ctx,
        row.keep_alive_s,
        Thinking(row.thinking) if row.thinking is not None else None,
        max_context_tokens=row.max_context_tokens,
        structured=Structured(row.structured) if row.structured is not None else None,
    )
