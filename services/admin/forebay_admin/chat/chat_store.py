"""Conversations in Postgres; the bytes of their larger files are the blob store's. Each function works on the caller's
transaction, and finds only what belongs to the user that it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.chat.conversation import Attachment, Conversation, Held, Message, Role
from forebay_admin.content.content import BlobName
from forebay_admin.tables import chat_attachments, chat_conversations, chat_messages, users

_C, _M, _A = chat_conversations.c, chat_messages.c, chat_attachments.c
_CONVERSATION = select(
    _C.id,
    _C.user_id,
    _C.title,
    _C.settings,
    _C.created_at,
    _C.changed_at,
    _C.share_id,
    _C.shared_at,
    _C.bytes,
)


async def lock_user(connection: AsyncConnection, user_id: str) -> None:
    """Until the transaction ends, so that what they have is counted and added one after the other. Raises NotFound."""
    if await connection.scalar(select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True)) is None:
        raise NotFound(f"There is no user {user_id}.")


async def held(connection: AsyncConnection, user_id: str) -> Held:
    row = (
        await connection.execute(
            select(func.count().label("conversations"), func.coalesce(func.sum(_C.bytes), 0).label("bytes")).where(
                _C.user_id == user_id
            )
        )
    ).one()
    return Held(row.conversations, int(row.bytes))


async def add_conversation(connection: AsyncConnection, made: Conversation) -> None:
    await connection.execute(
        insert(chat_conversations).values(
            id=made.id,
            user_id=made.user_id,
            title=made.title,
            settings=dict(made.settings),
            created_at=made.created_at,
            changed_at=made.changed_at,
            bytes=0,
        )
    )


async def conversation_at(
    connection: AsyncConnection, user_id: str, id: str, *, for_change: bool = False
) -> Conversation:
    """Raises NotFound, in the same words for somebody else's."""
    query = _CONVERSATION.where(_C.id == id, _C.user_id == user_id)
    row = (await connection.execute(query.with_for_update() if for_change else query)).first()
    if row is None:
        raise NotFound("There is no such conversation of yours.")
    return _conversation(row)


async def shared_at(connection: AsyncConnection, share_id: str) -> tuple[Conversation, str]:
    """With the name of whose it is. Raises NotFound."""
    row = (
        await connection.execute(
            _CONVERSATION.add_columns(users.c.name.label("user_name"))
            .join_from(chat_conversations, users, users.c.id == _C.user_id)
            .where(_C.share_id == share_id)
        )
    ).first()
    if row is None:
        raise NotFound("There is no such conversation, or it is no longer shared.")
    return _conversation(row), row.user_name


async def list_conversations(
    connection: AsyncConnection, user_id: str, *, text: str, after: str, limit: int
) -> tuple[list[Conversation], bool]:
    """The newest first, those after the one with that id; whether there are more. `text`: in the title or in what was
    said."""
    query = _CONVERSATION.where(_C.user_id == user_id)
    if after:
        last = select(_C.changed_at, _C.id).where(_C.id == after, _C.user_id == user_id).subquery()
        query = query.join(last, last.c.changed_at.is_not(None)).where(
            or_(_C.changed_at < last.c.changed_at, (_C.changed_at == last.c.changed_at) & (_C.id < last.c.id))
        )
    if text:
        like = f"%{_escaped(text)}%"
        said = (
            select(_M.id)
            .where(_M.conversation_id == _C.id, _M.content["parts"].astext.ilike(like))
            .correlate(chat_conversations)
        )
        query = query.where(or_(_C.title.ilike(like), said.exists()))
    rows = (await connection.execute(query.order_by(_C.changed_at.desc(), _C.id.desc()).limit(limit + 1))).all()
    return [_conversation(row) for row in rows[:limit]], len(rows) > limit


async def messages_of(connection: AsyncConnection, id: str) -> list[Message]:
    """In the order in which they were written."""
    rows = await connection.execute(
        select(chat_messages).where(_M.conversation_id == id).order_by(_M.created_at, _M.id)
    )
    return [_message(row) for row in rows]


async def count_messages(connection: AsyncConnection, id: str) -> tuple[int, int]:
    """And their bytes."""
    sums = select(func.count(), func.coalesce(func.sum(_M.bytes), 0)).where(_M.conversation_id == id)
    row: Any = (await connection.execute(sums)).one()
    return int(row[0]), int(row[1])


async def message_at(connection: AsyncConnection, id: str, message_id: str) -> Message | None:
    row = (await connection.execute(select(chat_messages).where(_M.conversation_id == id, _M.id == message_id))).first()
    return _message(row) if row is not None else None


async def put_message(connection: AsyncConnection, id: str, message: Message) -> None:
    """In the place of the one with its id."""
    said = {
        "content": dict(message.content),
        "model": message.model,
        "told": dict(message.told),
        "bytes": message.size_bytes,
    }
    await connection.execute(
        upsert(chat_messages)
        .values(
            conversation_id=id,
            id=message.id,
            parent_id=message.parent_id,
            role=message.role.value,
            created_at=message.created_at,
            **said,
        )
        .on_conflict_do_update(index_elements=[_M.conversation_id, _M.id], set_=said)
    )


async def change_conversation(connection: AsyncConnection, id: str, **values: Any) -> None:
    await connection.execute(update(chat_conversations).where(_C.id == id).values(**values))


async def remove_conversation(connection: AsyncConnection, user_id: str, id: str) -> Sequence[BlobName]:
    """The blobs of its files, to be deleted once the transaction is committed. Raises NotFound."""
    await conversation_at(connection, user_id, id, for_change=True)
    rows = await connection.execute(select(_A.blob_path).where(_A.conversation_id == id, _A.blob_path.is_not(None)))
    blobs = [BlobName(row.blob_path) for row in rows]
    await connection.execute(delete(chat_conversations).where(_C.id == id))
    return blobs


async def remove_unchanged_since(connection: AsyncConnection, moment: datetime, most: int) -> int:
    """Those of everybody, past what is being changed; the files' blobs are left to the sweep."""
    old = (
        select(_C.id)
        .where(_C.changed_at < moment)
        .order_by(_C.changed_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    gone = await connection.execute(delete(chat_conversations).where(_C.id.in_(old)).returning(_C.id))
    return len(gone.all())


async def attachment_at(
    connection: AsyncConnection, id: str, digest: str
) -> tuple[Attachment, bytes | None, BlobName | None]:
    """With its bytes, or where they lie. Raises NotFound."""
    row = (
        await connection.execute(
            select(chat_attachments).where(_A.conversation_id == id, _A.digest == bytes.fromhex(digest))
        )
    ).first()
    if row is None:
        raise NotFound("There is no such file in this conversation.")
    blob = BlobName(row.blob_path) if row.blob_path is not None else None
    return Attachment(row.digest.hex(), row.kind, row.bytes), row.body, blob


async def has_attachment(connection: AsyncConnection, id: str, digest: str) -> bool:
    found = select(_A.kind).where(_A.conversation_id == id, _A.digest == bytes.fromhex(digest))
    return await connection.scalar(found) is not None


async def add_attachment(
    connection: AsyncConnection, id: str, made: Attachment, now: datetime, *, body: bytes | None, blob: BlobName | None
) -> None:
    await connection.execute(
        insert(chat_attachments).values(
            conversation_id=id,
            digest=bytes.fromhex(made.digest),
            kind=made.kind,
            bytes=made.size_bytes,
            body=body,
            blob_path=blob,
            created_at=now,
        )
    )


def _conversation(row: Any) -> Conversation:
    settings: Mapping[str, Any] = row.settings
    return Conversation(
        row.id,
        row.user_id,
        row.title,
        settings,
        row.created_at,
        row.changed_at,
        row.share_id,
        row.shared_at,
        row.bytes,
    )


def _message(row: Any) -> Message:
    return Message(row.id, row.parent_id, Role(row.role), row.content, row.created_at, row.model, row.told, row.bytes)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
