"""Lists of addresses and bans in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.address_gate import Mode
from forebay.brute_force import FORGOTTEN_S, BanPolicy
from forebay.client_addresses import Network, parse_network
from forebay_admin.changes import Change
from forebay_admin.security.rules import HeldBan, Listed, Lists, Policy, Rule
from forebay_admin.security.tables import address_bans, address_policy, address_rules
from forebay_admin.versions import Since

_bans = address_bans.c

MOST_REMEMBERED = 20_000
"""Bans that Forebay made and that are over, so that the next one is longer."""


@dataclass(frozen=True, slots=True)
class RulesUpdate:
    """What a watcher of them is told."""

    version: int
    is_snapshot: bool
    lists: Lists | None
    """None: nothing about them has changed."""
    bans: Sequence[HeldBan]
    """All that hold, or those that changed, lifted ones among them."""


async def rules_since(connection: AsyncConnection, since: Since, current: int, now: datetime) -> RulesUpdate:
    changed_at = int(await connection.scalar(select(address_policy.c.version)) or 0)
    lists = await read_lists(connection) if since.is_snapshot or changed_at > since.after else None
    query = select(address_bans).where(_bans.version > since.after).order_by(_bans.version)
    if since.is_snapshot:
        query = select(address_bans).where(_holds(now)).order_by(_bans.version)
    return RulesUpdate(current, since.is_snapshot, lists, [_ban(row) for row in await connection.execute(query)])


async def read_lists(connection: AsyncConnection) -> Lists:
    row = (await connection.execute(select(address_policy))).one()
    rules = await connection.execute(select(address_rules).order_by(address_rules.c.list, address_rules.c.network))
    return Lists(
        Policy(Mode(row.mode), BanPolicy(row.ban_after, row.ban_window_s, row.ban_first_s, row.ban_longest_s)),
        tuple(
            Rule(Listed(rule.list), _network(rule.network), rule.note, rule.created_by, rule.created_at)
            for rule in rules
        ),
    )


async def keep_policy(change: Change, policy: Policy) -> None:
    bans = policy.bans
    await change.connection.execute(
        update(address_policy).values(
            mode=policy.mode.value,
            ban_after=bans.after,
            ban_window_s=bans.window_s,
            ban_first_s=bans.first_s,
            ban_longest_s=bans.longest_s,
            version=change.version,
        )
    )


async def keep_rule(change: Change, rule: Rule) -> None:
    values = {"note": rule.note, "created_by": rule.created_by, "created_at": rule.created_at}
    await change.connection.execute(
        insert(address_rules)
        .values(list=rule.list.value, network=str(rule.network), **values)
        .on_conflict_do_update(index_elements=[address_rules.c.list, address_rules.c.network], set_=values)
    )
    await _note_lists(change)


async def remove_rule(change: Change, rule: Rule) -> None:
    await change.connection.execute(
        delete(address_rules).where(
            address_rules.c.list == rule.list.value, address_rules.c.network == str(rule.network)
        )
    )
    await _note_lists(change)


async def all_bans(connection: AsyncConnection, now: datetime, *, over: bool = False) -> list[HeldBan]:
    """The newest first. `over`: also those that are over, as long as they are remembered."""
    query = select(address_bans).order_by(_bans.begun_at.desc(), _bans.network)
    if not over:
        query = query.where(_holds(now))
    else:
        query = query.where(or_(_bans.lifted_at.is_(None), _bans.lifted_at > now - timedelta(seconds=FORGOTTEN_S)))
    return [_ban(row) for row in await connection.execute(query)]


async def find_ban(connection: AsyncConnection, network: Network) -> HeldBan | None:
    row = (await connection.execute(select(address_bans).where(_bans.network == str(network)))).first()
    return _ban(row) if row is not None else None


async def count_bans(connection: AsyncConnection, now: datetime, *, by_people: bool) -> int:
    """That hold."""
    made_by = _bans.made_by != "" if by_people else _bans.made_by == ""
    query = select(func.count()).where(made_by, _holds(now))
    return int(await connection.scalar(query) or 0)


async def held_among(connection: AsyncConnection, networks: Iterable[Network], now: datetime) -> set[Network]:
    """Those of them that are banned."""
    query = select(_bans.network).where(_bans.network.in_([str(network) for network in networks]), _holds(now))
    return {_network(network) for network in await connection.scalars(query)}


async def keep_ban(change: Change, ban: HeldBan) -> None:
    values: dict[str, Any] = {
        "begun_at": ban.begun_at,
        "until": ban.until,
        "reason": ban.reason,
        "made_by": ban.made_by,
        "strikes": ban.strikes,
        "spares_valid": ban.spares_valid,
        "lifted_at": ban.lifted_at,
        "lifted_by": ban.lifted_by,
        "version": change.version,
    }
    await change.connection.execute(
        insert(address_bans)
        .values(network=str(ban.network), **values)
        .on_conflict_do_update(index_elements=[_bans.network], set_=values)
    )


async def forget_bans(connection: AsyncConnection, now: datetime) -> None:
    """Those that nobody goes by any more, since every watcher sees by its clock that they have ended. One that was lifted
    stays until then: a gateway that was away goes by what it heard last."""
    await connection.execute(delete(address_bans).where(_bans.until < now - timedelta(seconds=FORGOTTEN_S)))
    over = select(_bans.network).where(_bans.made_by == "", _bans.until < now)
    oldest = over.order_by(_bans.until.desc()).offset(MOST_REMEMBERED)
    await connection.execute(delete(address_bans).where(_bans.network.in_(oldest)))


async def _note_lists(change: Change) -> None:
    """Watchers are to hear all of them again."""
    await change.connection.execute(update(address_policy).values(version=change.version))


def _holds(now: datetime) -> Any:
    return and_(_bans.lifted_at.is_(None), or_(_bans.until.is_(None), _bans.until > now))


def _ban(row: Any) -> HeldBan:
    return HeldBan(
        _network(row.network),
        row.begun_at,
        row.until,
        row.reason,
        row.made_by,
        row.strikes,
        row.spares_valid,
        row.lifted_at,
        row.lifted_by,
    )


def _network(text: str) -> Network:
    network = parse_network(text)
    assert network is not None, text  # only networks are kept
    return network
