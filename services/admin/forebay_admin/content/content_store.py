"""What clients let Forebay keep, in Postgres; the bytes of files are the blob store's. Each function works on the caller's
transaction, sees what belongs to the user it is told, and takes what has expired for gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Text, func, literal, or_, select, text, tuple_, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists, NotFound, NotPossible
from forebay_admin.content.content import (
    Blob,
    BlobName,
    ContentLimits,
    Held,
    Kind,
    Page,
    Place,
    Thing,
    demand_room,
    responses_in_the_way,
)
from forebay_admin.tables import chat_attachments, content, users

MOST_AT_ONCE_BYTES = 48 * 1024**2
"""Of a page or a chain: it crosses as one gRPC message, of which forebay.rpc takes 64 MiB."""

_THING = select(
    content.c.kind,
    content.c.id,
    content.c.user_id,
    content.c.parent_id,
    content.c.created_at,
    content.c.expires_at,
    content.c.body,
    content.c.blob_path,
    content.c.blob_bytes,
)

_CHAIN = """
    WITH RECURSIVE chain AS (
        SELECT id, parent_id, bytes, 1 AS depth FROM admin.content
        WHERE kind = :kind AND id = :id AND user_id = :user_id AND (expires_at IS NULL OR expires_at > :now)
        UNION ALL
        SELECT before.id, before.parent_id, before.bytes, chain.depth + 1
        FROM chain JOIN admin.content AS before ON before.kind = :kind AND before.id = chain.parent_id
        WHERE before.user_id = :user_id AND (before.expires_at IS NULL OR before.expires_at > :now)
            -- One more than was asked for, to tell that there are more; which also ends a ring.
            AND chain.depth <= :most
    )
    SELECT id, parent_id, bytes FROM chain ORDER BY depth
"""

# A conversation takes its items with it. A response takes nothing: its parent is only what it follows.
_REMOVE = """
    WITH gone AS (
        DELETE FROM admin.content WHERE (kind, id) IN (SELECT kind, id FROM admin.content WHERE {which})
        RETURNING kind, id, user_id, blob_path
    ), inside AS (
        DELETE FROM admin.content AS item USING gone
        WHERE gone.kind = 'conversation' AND item.kind = 'item' AND item.parent_id = gone.id
            AND item.user_id = gone.user_id
        RETURNING item.blob_path
    )
    SELECT blob_path FROM gone UNION ALL SELECT blob_path FROM inside
"""
_ONE = """
    kind = :kind AND id = :id AND user_id = :user_id AND (expires_at IS NULL OR expires_at > :now) FOR UPDATE
"""
_ONE_EXPIRED = "kind = :kind AND id = :id AND expires_at <= :now FOR UPDATE"
_OLDEST_RESPONSES = """
    kind = 'response' AND user_id = :user_id ORDER BY created_at, id LIMIT :most FOR UPDATE SKIP LOCKED
"""
# Past what a client is just now replacing or deleting: the next sweep finds it.
_EXPIRED = "expires_at <= :now LIMIT :most FOR UPDATE SKIP LOCKED"


@dataclass(frozen=True, slots=True)
class Removed:
    things: int
    """What lay in them, too."""
    blobs: Sequence[BlobName]
    """To be deleted once the transaction is committed."""


@dataclass(frozen=True, slots=True)
class Stored:
    thing: Thing
    blobs: Sequence[BlobName]
    """Replaced, to be deleted once the transaction is committed."""


async def demand_place(connection: AsyncConnection, thing: Thing, limits: ContentLimits, now: datetime) -> Stored:
    """What the thing would be when it is put now, with the blob that it has already when it brings none. The user's row is
    locked from here on, so that a user's things are counted and put one after the other.
    Raises NotFound (no such user), AlreadyExists (another's), NotPossible (no room)."""
    user = select(users.c.id).where(users.c.id == thing.user_id).with_for_update(key_share=True)
    if await connection.scalar(user) is None:
        raise NotFound(f"There is no user {thing.user_id}.")
    removed = await _remove(connection, _ONE_EXPIRED, kind=thing.kind.value, id=thing.id, now=now)
    found = await connection.execute(
        select(content.c.user_id, content.c.bytes, content.c.blob_path, content.c.blob_bytes)
        .where(content.c.kind == thing.kind.value, content.c.id == thing.id)
        .with_for_update()
    )
    before = found.first()
    if before is not None and before.user_id != thing.user_id:
        raise _taken(thing)
    replaced = _blob(before) if before is not None else None
    after = replace(thing, blob=thing.blob or replaced)
    held = await _held(connection, thing.user_id, now)
    if before is None and (giving_way := responses_in_the_way(thing.kind, held, limits)):
        old = await _remove(connection, _OLDEST_RESPONSES, user_id=thing.user_id, most=giving_way)
        removed = Removed(removed.things + old.things, [*removed.blobs, *old.blobs])
        held = await _held(connection, thing.user_id, now)
    demand_room(
        held,
        more_things=1 if before is None else 0,
        more_bytes=after.size_bytes - (before.bytes if before is not None else 0),
        limits=limits,
    )
    freed = [replaced.name] if replaced is not None and thing.blob is not None else []
    return Stored(after, [*removed.blobs, *freed])


async def put_thing(connection: AsyncConnection, thing: Thing, limits: ContentLimits, now: datetime) -> Stored:
    """Adds it or replaces the one of its kind and id. Raises NotFound, AlreadyExists, NotPossible as demand_place does."""
    stored = await demand_place(connection, thing, limits, now)
    blob = stored.thing.blob
    changed = {
        "parent_id": thing.parent_id,
        "created_at": thing.created_at,
        "expires_at": thing.expires_at,
        "body": thing.body,
        "blob_path": blob.name if blob is not None else None,
        "blob_bytes": blob.size_bytes if blob is not None else 0,
    }
    # Somebody else may have taken the id since we looked: the user's lock keeps out only the same user.
    written = await connection.scalar(
        insert(content)
        .values(kind=thing.kind.value, id=thing.id, user_id=thing.user_id, **changed)
        .on_conflict_do_update(
            index_elements=[content.c.kind, content.c.id], set_=changed, where=content.c.user_id == thing.user_id
        )
        .returning(content.c.id)
    )
    if written is None:
        raise _taken(thing)
    return stored


async def thing_at(connection: AsyncConnection, place: Place, now: datetime) -> Thing:
    """Raises NotFound."""
    row = (await connection.execute(_THING.where(*_visible(place, now), content.c.id == place.id))).first()
    if row is None:
        raise _no_such(place.kind, place.id)
    return _thing(row)


async def chain_at(connection: AsyncConnection, place: Place, most: int, now: datetime) -> list[Thing]:
    """The thing and what it follows, the oldest first. Raises NotFound, also when one of them is gone, and NotPossible when
    there are more than `most` or more bytes than cross at once."""
    asked = {"kind": place.kind.value, "id": place.id, "user_id": place.user_id, "now": now, "most": most}
    links = (await connection.execute(text(_CHAIN), asked)).all()
    if not links:
        raise _no_such(place.kind, place.id)
    if len(links) > most:
        raise NotPossible(f"The {place.kind} {place.id} and those before it are more than {most}.")
    if links[-1].parent_id is not None:
        raise NotFound(
            f"There is no {place.kind} {links[-1].parent_id}, which {links[-1].id} follows: "
            "it was deleted or has expired."
        )
    if sum(link.bytes for link in links) > MOST_AT_ONCE_BYTES:
        raise NotPossible(
            f"The {place.kind} {place.id} and those before it have more than {MOST_AT_ONCE_BYTES} bytes together."
        )
    found = await _with_ids(connection, place.user_id, place.kind, [link.id for link in links])
    for link in links:
        if link.id not in found:  # deleted since
            raise _no_such(place.kind, link.id)
    return [found[link.id] for link in reversed(links)]


async def list_things(connection: AsyncConnection, page: Page, now: datetime) -> tuple[list[Thing], bool]:
    """In the order of their creation, then of their ids; and whether there are more. A page of large things is shorter than
    was asked. Raises NotFound when what it begins after is gone."""
    mine = [content.c.user_id == page.user_id, content.c.kind == page.kind.value]
    if page.parent_id is not None:
        mine.append(content.c.parent_id == page.parent_id)
    key = tuple_(content.c.created_at, content.c.id)
    query = select(content.c.id, content.c.bytes).where(*mine, _is_alive(now)).limit(page.limit + 1)
    if page.after is not None:
        # One that has expired will do: it still has its place in the order.
        at = await connection.scalar(select(content.c.created_at).where(*mine, content.c.id == page.after))
        if at is None:
            raise NotFound(f"There is no {page.kind} {page.after} after which a page could begin.")
        turn = tuple_(literal(at, DateTime(timezone=True)), literal(page.after, Text()))
        query = query.where(key < turn if page.is_descending else key > turn)
    order = (content.c.created_at, content.c.id)
    rows = (
        await connection.execute(query.order_by(*((c.desc() for c in order) if page.is_descending else order)))
    ).all()
    ids = _first_that_cross(rows[: page.limit])
    found = await _with_ids(connection, page.user_id, page.kind, ids)
    return [found[one] for one in ids if one in found], len(rows) > len(ids)


async def remove_thing(connection: AsyncConnection, place: Place, now: datetime) -> Removed:
    """And, of a conversation, its items."""
    return await _remove(connection, _ONE, kind=place.kind.value, id=place.id, user_id=place.user_id, now=now)


async def remove_expired(connection: AsyncConnection, now: datetime, most: int) -> Removed:
    """At most so many, and what lies in them."""
    return await _remove(connection, _EXPIRED, now=now, most=most)


async def blobs_with_rows(connection: AsyncConnection, names: Sequence[BlobName]) -> set[BlobName]:
    """Of clients' files, and of those in the chat's conversations, which lie beside them."""
    rows = await connection.execute(
        union_all(*(select(one.c.blob_path).where(one.c.blob_path.in_(names)) for one in (content, chat_attachments)))
    )
    return {BlobName(row.blob_path) for row in rows}


async def _remove(connection: AsyncConnection, which: str, **asked: object) -> Removed:
    rows = (await connection.execute(text(_REMOVE.format(which=which)), asked)).all()
    return Removed(len(rows), [BlobName(row.blob_path) for row in rows if row.blob_path is not None])


async def _held(connection: AsyncConnection, user_id: str, now: datetime) -> dict[str, Held]:
    rows = await connection.execute(
        select(content.c.kind, func.count().label("things"), func.sum(content.c.bytes).label("size_bytes"))
        .where(content.c.user_id == user_id, _is_alive(now))
        .group_by(content.c.kind)
    )
    return {row.kind: Held(row.things, int(row.size_bytes)) for row in rows}


async def _with_ids(connection: AsyncConnection, user_id: str, kind: Kind, ids: Sequence[str]) -> dict[str, Thing]:
    rows = await connection.execute(
        _THING.where(content.c.user_id == user_id, content.c.kind == kind.value, content.c.id.in_(ids))
    )
    return {row.id: _thing(row) for row in rows}


def _first_that_cross(rows: Sequence[Any]) -> list[str]:
    ids: list[str] = []
    size_bytes = 0
    for row in rows:
        size_bytes += row.bytes
        if ids and size_bytes > MOST_AT_ONCE_BYTES:
            break
        ids.append(row.id)
    return ids


def _visible(place: Place, now: datetime) -> list[ColumnElement[bool]]:
    return [content.c.user_id == place.user_id, content.c.kind == place.kind.value, _is_alive(now)]


def _is_alive(now: datetime) -> ColumnElement[bool]:
    return or_(content.c.expires_at.is_(None), content.c.expires_at > now)


def _no_such(kind: Kind, id: str) -> NotFound:
    return NotFound(f"There is no {kind} {id}.")


def _taken(thing: Thing) -> AlreadyExists:
    return AlreadyExists(f"The id {thing.id} is taken for another {thing.kind}.")


def _blob(row: Any) -> Blob | None:
    return Blob(BlobName(row.blob_path), row.blob_bytes) if row.blob_path is not None else None


def _thing(row: Any) -> Thing:
    return Thing(
        Kind(row.kind),
        row.id,
        row.user_id,
        row.parent_id,
        row.created_at,
        row.expires_at,
        row.body,
        _blob(row),
    )
