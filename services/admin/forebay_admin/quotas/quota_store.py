"""Limits and budgets in Postgres. Each function works on the caller's transaction. A budget changes with the user, group or
key that it is for: it is their version that moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Table,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.keys.key_store import key_with_id
from forebay_admin.keys.keys import key_id_from
from forebay_admin.people.group_store import group_named
from forebay_admin.people.people_store import user_named
from forebay_admin.quotas.carry import Carried
from forebay_admin.quotas.periods import Period
from forebay_admin.quotas.quotas import Budget, BudgetUnit, Caps, Subject, SubjectKind
from forebay_admin.tables import budgets, groups, is_one_of, keys, users

_TABLES: Mapping[SubjectKind, Table] = {
    SubjectKind.USER: users,
    SubjectKind.GROUP: groups,
    SubjectKind.KEY: keys,
}
_IDS: Mapping[SubjectKind, Column[Any]] = {
    SubjectKind.USER: users.c.id,
    SubjectKind.GROUP: groups.c.id,
    SubjectKind.KEY: keys.c.public_id,
}
_OF: Mapping[SubjectKind, Column[Any]] = {
    SubjectKind.USER: budgets.c.user_id,
    SubjectKind.GROUP: budgets.c.group_id,
    SubjectKind.KEY: budgets.c.key_id,
}


async def find_subject(connection: AsyncConnection, kind: SubjectKind, name: str) -> Subject:
    """By the name of a user or group, by the public id of a key or the whole key. Raises NotFound, BadInput."""
    if kind is SubjectKind.USER:
        user = await user_named(connection, name)
        return Subject(kind, user.id, user.name)
    if kind is SubjectKind.GROUP:
        group = await group_named(connection, name)
        return Subject(kind, group.id, group.name)
    key = await key_with_id(connection, key_id_from(name))
    return Subject(kind, key.public_id, key.name, key.user_name)


async def caps_of(connection: AsyncConnection, subject: Subject) -> Caps:
    columns = _TABLES[subject.kind].c
    row = (
        await connection.execute(
            select(columns.requests_per_minute, columns.tokens_per_minute, columns.concurrency).where(
                _IDS[subject.kind] == subject.id
            )
        )
    ).one()
    return Caps(row.requests_per_minute, row.tokens_per_minute, row.concurrency)


async def keep_caps(change: Change, subject: Subject, caps: Caps) -> None:
    await _touch(
        change,
        subject,
        requests_per_minute=caps.requests_per_minute,
        tokens_per_minute=caps.tokens_per_minute,
        concurrency=caps.concurrency,
    )


async def add_budget(change: Change, subject: Subject, budget: Budget, created_by: str) -> None:
    await change.connection.execute(
        insert(budgets).values(
            {
                _OF[subject.kind]: subject.id,
                budgets.c.id: budget.id,
                budgets.c.unit: budget.unit.value,
                budgets.c.amount: budget.amount,
                budgets.c.period: budget.period.value,
                budgets.c.time_zone: budget.time_zone,
                budgets.c.created_by: created_by,
                budgets.c.created_at: budget.created_at,
                budgets.c.window_s: budget.window_s,
                budgets.c.carry_most: budget.carry_most,
                **_carried_columns(budget.carried),
            }
        )
    )
    await _touch(change, subject)


async def change_budget(change: Change, subject: Subject, budget: Budget) -> None:
    values = {
        budgets.c.amount: budget.amount,
        budgets.c.carry_most: budget.carry_most,
        **_carried_columns(budget.carried),
    }
    await change.connection.execute(update(budgets).where(budgets.c.id == budget.id).values(values))
    await _touch(change, subject)


def _carried_columns(carried: Carried | None) -> dict[Column[Any], Any]:
    return {
        budgets.c.carried: carried.amount if carried else 0,
        budgets.c.carried_since: carried.since if carried else None,
        budgets.c.carried_of: carried.of if carried else None,
    }


async def keep_carried(change: Change, kind: SubjectKind, subject_id: str, budget: Budget) -> None:
    await change.connection.execute(
        update(budgets).where(budgets.c.id == budget.id).values(_carried_columns(budget.carried))
    )
    await _touch(change, Subject(kind, subject_id, ""))


async def carrying_budgets(
    connection: AsyncConnection, ids: Sequence[str] | None = None
) -> list[tuple[SubjectKind, str, Budget]]:
    """Those that carry over what is left, with whom they are for; of all, or of these."""
    query = select(budgets).where(budgets.c.carry_most.is_not(None)).order_by(budgets.c.created_at, budgets.c.id)
    if ids is not None:
        query = query.where(is_one_of(budgets.c.id, ids))
    return [(*_subject_of(row), _budget(row)) for row in await connection.execute(query)]


async def remove_budget(change: Change, subject: Subject, budget: Budget) -> None:
    await change.connection.execute(delete(budgets).where(budgets.c.id == budget.id))
    await _touch(change, subject)


async def budget_with_id(connection: AsyncConnection, budget_id: str) -> tuple[Subject, Budget]:
    """Raises NotFound."""
    row = (await connection.execute(select(budgets).where(budgets.c.id == budget_id))).first()
    if row is None:
        raise NotFound(f"There is no budget {budget_id}; `forebay quota list` shows those that there are.")
    kind, subject_id = _subject_of(row)
    found = await subjects_with(connection, {kind: [subject_id]})
    return found[kind, subject_id], _budget(row)


async def read_budgets(
    connection: AsyncConnection, wanted: Mapping[SubjectKind, Sequence[str]] | None = None
) -> dict[tuple[SubjectKind, str], list[Budget]]:
    """By whom they are for, oldest first; of all, or of those ids that are wanted."""
    query = select(budgets).order_by(budgets.c.created_at, budgets.c.id)
    if wanted is not None:
        query = query.where(or_(*(is_one_of(_OF[kind], ids) for kind, ids in wanted.items())))
    found: dict[tuple[SubjectKind, str], list[Budget]] = defaultdict(list)
    for row in await connection.execute(query):
        found[_subject_of(row)].append(_budget(row))
    return dict(found)


async def limited_subjects(connection: AsyncConnection) -> list[Subject]:
    """Users, groups, and keys that are not revoked, who have a limit or a budget; by kind and name."""
    found: list[Subject] = []
    for kind in SubjectKind:
        columns = _TABLES[kind].c
        has_budget = select(budgets.c.id).where(_OF[kind] == _IDS[kind]).exists()
        limited = or_(
            columns.requests_per_minute.is_not(None),
            columns.tokens_per_minute.is_not(None),
            columns.concurrency.is_not(None),
            has_budget,
        )
        query = _subject_query(kind).where(limited)
        if kind is SubjectKind.KEY:
            query = query.where(keys.c.revoked_at.is_(None))
        rows = await connection.execute(query.order_by(func.lower(columns.name), _IDS[kind]))
        found += [Subject(kind, row.id, row.name, row.user_name) for row in rows]
    return found


async def subjects_with(
    connection: AsyncConnection, wanted: Mapping[SubjectKind, Sequence[str]]
) -> dict[tuple[SubjectKind, str], Subject]:
    """By kind and id."""
    found: dict[tuple[SubjectKind, str], Subject] = {}
    for kind, ids in wanted.items():
        for row in await connection.execute(_subject_query(kind).where(is_one_of(_IDS[kind], ids))):
            found[kind, row.id] = Subject(kind, row.id, row.name, row.user_name)
    return found


def _subject_query(kind: SubjectKind) -> Any:
    if kind is SubjectKind.KEY:
        return select(keys.c.public_id.label("id"), keys.c.name, users.c.name.label("user_name")).join_from(
            keys, users, keys.c.user_id == users.c.id
        )
    columns = _TABLES[kind].c
    return select(columns.id, columns.name, literal("").label("user_name"))


async def _touch(change: Change, subject: Subject, **values: int | None) -> None:
    """The row of whom it is for, with its version moved."""
    column = "version" if subject.kind is SubjectKind.GROUP else "terms_version"
    await change.connection.execute(
        update(_TABLES[subject.kind])
        .where(_IDS[subject.kind] == subject.id)
        .values(**values, **{column: change.version})
    )


def _subject_of(row: Any) -> tuple[SubjectKind, str]:
    if row.user_id is not None:
        return SubjectKind.USER, row.user_id
    if row.group_id is not None:
        return SubjectKind.GROUP, row.group_id
    return SubjectKind.KEY, row.key_id


def _budget(row: Any) -> Budget:
    carried = Carried(row.carried_since, row.carried, row.carried_of or 0) if row.carried_since is not None else None
    return Budget(
        row.id,
        BudgetUnit(row.unit),
        row.amount,
        Period(row.period),
        row.time_zone,
        row.created_at,
        row.window_s,
        row.carry_most,
        carried,
    )
