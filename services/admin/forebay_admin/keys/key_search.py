"""Lists of keys: which are wanted, in pages, and when each was used last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import and_, func, or_, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.keys.key_store import KEY, key_from, key_with_id
from forebay_admin.keys.keys import Key, KeyState
from forebay_admin.ledger.key_uses import last_uses
from forebay_admin.tables import keys, users

MOST = 1000


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What is empty or None does not narrow the list."""

    user_id: str = ""
    group_id: str = ""
    text: str = ""
    """In the id, the name, the description or the user's name, whatever its letters' case."""
    state: KeyState | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    include_revoked: bool = False
    limit: int = 0
    """0: all."""
    after: str = ""
    """Only those after the key with this id."""


async def find_keys(connection: AsyncConnection, wish: KeyWish) -> tuple[Sequence[Key], bool]:
    """Oldest first, and whether there are more. Raises NotFound when there is no key `after`."""
    query = KEY.order_by(keys.c.created_at, keys.c.public_id)
    for condition in _conditions(wish):
        query = query.where(condition)
    if wish.after:
        before = await _place(connection, wish.after)
        query = query.where(tuple_(keys.c.created_at, keys.c.public_id) > before)
    if wish.limit:
        query = query.limit(wish.limit + 1)
    found = [key_from(row) for row in await connection.execute(query)]
    uses = await last_uses(connection, [key.public_id for key in found])
    found = [replace(key, last_used_at=uses.get(key.public_id)) for key in found]
    return (found[: wish.limit], len(found) > wish.limit) if wish.limit else (found, False)


def _conditions(wish: KeyWish) -> list[Any]:
    conditions: list[Any] = []
    if wish.user_id:
        conditions.append(keys.c.user_id == wish.user_id)
    if wish.group_id:
        conditions.append(users.c.group_id == wish.group_id)
    if wish.labels:
        conditions.append(keys.c.labels.contains(dict(wish.labels)))
    if wish.text:
        places = (keys.c.public_id, keys.c.name, keys.c.description, users.c.name)
        conditions.append(or_(*(func.strpos(func.lower(place), wish.text.lower()) > 0 for place in places)))
    if wish.state is not None:
        conditions.append(_is(wish.state))
    elif not wish.include_revoked:
        conditions.append(keys.c.revoked_at.is_(None))
    return conditions


def _is(state: KeyState) -> Any:
    """As `state_of` decides it."""
    alive = keys.c.revoked_at.is_(None)
    match state:
        case KeyState.REVOKED:
            return keys.c.revoked_at.is_not(None)
        case KeyState.USER_DISABLED:
            return and_(alive, users.c.disabled)
        case KeyState.BLOCKED:
            return and_(alive, users.c.disabled.is_(False), keys.c.blocked)
        case KeyState.ACTIVE:
            return and_(alive, users.c.disabled.is_(False), keys.c.blocked.is_(False))


async def _place(connection: AsyncConnection, key_id: str) -> tuple[Any, str]:
    try:
        key = await key_with_id(connection, key_id)
    except NotFound as error:
        raise NotFound(f"There is no key {key_id} after which the list could go on.") from error
    return key.created_at, key.public_id
