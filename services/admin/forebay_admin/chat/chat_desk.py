"""What people do with their conversations: each sees and changes their own, and reads what others share."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed, NotFound, NotPossible
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.chat import chat_store as store
from forebay_admin.chat.at_once import AtOnce
from forebay_admin.chat.conversation import (
    LISTED,
    UNTITLED,
    Attachment,
    ChatLimits,
    Conversation,
    Message,
    Role,
    Whole,
    demand_conversation_room,
    demand_digest,
    demand_file,
    demand_id,
    demand_message,
    demand_room,
    demand_settings,
    demand_text_room,
    demand_title,
    title_of,
)
from forebay_admin.content.blob_store import BlobStore
from forebay_admin.content.content import BlobName
from forebay_admin.people.access import Actor

IN_ROW_BYTES = 64 * 1024
"""A smaller file stands in its row, and needs no blob store."""
MOST_IN_ROW_BYTES = 1024**2
"""Where there is no blob store."""
_SWEPT_AT_ONCE = 100
SEARCHES, _SEARCHES_OF_USER = 2, 3
"""Under way at once; of one user, with those that wait. Each holds a connection, of which admin has few."""
LONGEST_SEARCH_S = 5.0
_CANCELLED = "57014"
"""What Postgres says of a statement whose time is over."""


@dataclass(frozen=True, slots=True)
class Shared:
    whole: Whole
    user_name: str
    """Whose it is."""


class ChatDesk:
    def __init__(
        self, database: Database, blobs: BlobStore, limits: ChatLimits, clock: Clock, *, has_blobs: bool
    ) -> None:
        """`has_blobs`: there is a place for files (content_dir)."""
        self._database = database
        self._blobs = blobs
        self._has_blobs = has_blobs
        self._limits = limits
        self._clock = clock
        self._searches = asyncio.Semaphore(SEARCHES)
        self._searching = AtOnce(_SEARCHES_OF_USER)

    async def list_own(self, actor: Actor, *, text: str = "", after: str = "") -> tuple[list[Conversation], bool]:
        """LISTED of them, those changed last first; whether there are more. Raises BadInput, NotPossible, TooOften."""
        if len(text) > 200 or "\0" in text:
            raise BadInput("What is looked for has at most 200 characters.")
        text, after = text.strip(), demand_id(after, "`after`") if after else ""
        if text:
            with self._searching.one_more(_user(actor)):
                async with self._searches:
                    return await self._search(_user(actor), text, after)
        async with self._database.reading() as connection:
            return await store.list_conversations(connection, _user(actor), text="", after=after, limit=LISTED)

    async def begin(self, actor: Actor, told: dict[str, Any]) -> Conversation:
        """A conversation in which nothing was said yet. Raises BadInput, NotPossible."""
        now = self._now()
        made = Conversation(
            secrets.token_urlsafe(12),
            _user(actor),
            demand_title(told["title"]) if "title" in told else UNTITLED,
            demand_settings(told.get("settings", {})),
            now,
            now,
        )
        async with self._database.writing() as connection:
            await store.lock_user(connection, made.user_id)
            demand_room(await store.held(connection, made.user_id), self._limits, more_conversations=1)
            await store.add_conversation(connection, made)
        return made

    async def read(self, actor: Actor, id: str) -> Whole:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            conversation = await store.conversation_at(connection, _user(actor), _conversation_id(id))
            return Whole(conversation, await store.messages_of(connection, conversation.id))

    async def change(self, actor: Actor, id: str, told: dict[str, Any]) -> Conversation:
        """Its title, its settings. Raises BadInput, NotFound."""
        changed: dict[str, Any] = {}
        if "title" in told:
            changed["title"] = demand_title(told["title"])
        if "settings" in told:
            changed["settings"] = dict(demand_settings(told["settings"]))
        async with self._database.writing() as connection:
            before = await store.conversation_at(connection, _user(actor), _conversation_id(id), for_change=True)
            if changed:
                await store.change_conversation(connection, before.id, **changed)
        return replace(before, **changed)

    async def remove(self, actor: Actor, id: str) -> None:
        """With all that was said in it. Raises NotFound."""
        async with self._database.writing() as connection:
            blobs = await store.remove_conversation(connection, _user(actor), _conversation_id(id))
        await self._delete(blobs)

    async def say(self, actor: Actor, id: str, message_id: str, told: object) -> Message:
        """A message, in the place of the one with its id: an answer is kept again when there is more of it. Raises BadInput,
        NotFound, NotPossible."""
        now = self._now()
        message = demand_message(message_id, told, now)
        async with self._database.writing() as connection:
            await store.lock_user(connection, _user(actor))
            conversation = await store.conversation_at(connection, _user(actor), _conversation_id(id), for_change=True)
            before = await store.message_at(connection, conversation.id, message.id)
            if before is not None and (before.role is not message.role or before.parent_id != message.parent_id):
                raise BadInput("A message stays where it is; say another one beside it.")
            if message.parent_id is not None and message.parent_id != message.id:
                if await store.message_at(connection, conversation.id, message.parent_id) is None:
                    raise BadInput("What this message follows is not in the conversation.")
            elif message.parent_id is not None:
                raise BadInput("A message does not follow itself.")
            for part in message.files:
                if not await store.has_attachment(connection, conversation.id, demand_digest(part["digest"])):
                    raise BadInput(f"The file {part['name'][:80]!r} was not put into this conversation.")
            more_bytes = message.size_bytes - (before.size_bytes if before is not None else 0)
            said = await store.count_messages(connection, conversation.id)
            demand_text_room(*said, more_bytes=more_bytes, more_messages=int(before is None))
            await self._demand_room(connection, conversation, more_bytes)
            await store.put_message(connection, conversation.id, message)
            changed: dict[str, Any] = {"bytes": conversation.size_bytes + more_bytes, "changed_at": now}
            if conversation.title == UNTITLED and message.role is Role.USER:
                changed["title"] = title_of(message.text or _names(message))
            await store.change_conversation(connection, conversation.id, **changed)
        return message

    async def attach(self, actor: Actor, id: str, kind: str, body: bytes) -> Attachment:
        """A file for its messages; the same one twice is one. Raises BadInput, NotFound, NotPossible."""
        kept_as = demand_file(kind, body)
        made = Attachment(hashlib.sha256(body).hexdigest(), kept_as, len(body))
        is_in_row = made.size_bytes <= (IN_ROW_BYTES if self._has_blobs else MOST_IN_ROW_BYTES)
        if not is_in_row and not self._has_blobs:
            raise NotPossible(
                f"Files of more than {MOST_IN_ROW_BYTES // 1024**2} MiB are not kept here: admin's content_dir is not set."
            )
        async with self._database.reading() as connection:
            conversation = await store.conversation_at(connection, _user(actor), _conversation_id(id))
            if await store.has_attachment(connection, conversation.id, made.digest):
                return made
        if is_in_row:
            await self._enter(actor, conversation.id, made, body, None)
            return made
        async with self._blobs.writing() as writer:
            await writer.write(body)
            await writer.keep()
            if not await self._enter(actor, conversation.id, made, None, writer.name):
                await self._blobs.delete(writer.name)
        return made

    async def file(self, actor: Actor, id: str, digest: str) -> tuple[Attachment, bytes]:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            conversation = await store.conversation_at(connection, _user(actor), _conversation_id(id))
            found, body, blob = await store.attachment_at(connection, conversation.id, demand_digest(digest))
        return found, body if body is not None else await self._bytes_of(blob)

    async def share(self, actor: Actor, id: str) -> str:
        """The id of the link under which whoever is signed in reads it as it is at that time. Raises NotFound."""
        async with self._database.writing() as connection:
            before = await store.conversation_at(connection, _user(actor), _conversation_id(id), for_change=True)
            if before.share_id is not None:
                return before.share_id
            share_id = secrets.token_urlsafe(16)
            await store.change_conversation(connection, before.id, share_id=share_id, shared_at=self._now())
            await record(connection, _act(actor, "conversation.share", before.id), self._now())
        return share_id

    async def share_no_more(self, actor: Actor, id: str) -> None:
        """Raises NotFound."""
        async with self._database.writing() as connection:
            before = await store.conversation_at(connection, _user(actor), _conversation_id(id), for_change=True)
            if before.share_id is None:
                return
            await store.change_conversation(connection, before.id, share_id=None, shared_at=None)
            await record(connection, _act(actor, "conversation.unshare", before.id), self._now())

    async def shared(self, share_id: str) -> Shared:
        """For whoever is signed in. Raises NotFound."""
        async with self._database.reading() as connection:
            conversation, user_name = await store.shared_at(connection, _link(share_id))
            return Shared(Whole(conversation, await store.messages_of(connection, conversation.id)), user_name)

    async def shared_file(self, share_id: str, digest: str) -> tuple[Attachment, bytes]:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            conversation, _ = await store.shared_at(connection, _link(share_id))
            found, body, blob = await store.attachment_at(connection, conversation.id, demand_digest(digest))
        return found, body if body is not None else await self._bytes_of(blob)

    async def sweep(self) -> int:
        """Removes what nobody has touched for as long as conversations are kept; how many. In short transactions."""
        if not self._limits.days:
            return 0
        before, total = self._now() - timedelta(days=self._limits.days), 0
        while True:
            async with self._database.writing() as connection:
                gone = await store.remove_unchanged_since(connection, before, _SWEPT_AT_ONCE)
            total += gone
            if gone < _SWEPT_AT_ONCE:
                return total

    async def _search(self, user_id: str, text: str, after: str) -> tuple[list[Conversation], bool]:
        """Raises NotPossible."""
        async with self._database.reading() as connection:
            await connection.execute(sql(f"SET LOCAL statement_timeout = {round(LONGEST_SEARCH_S * 1000)}"))
            try:
                return await store.list_conversations(connection, user_id, text=text, after=after, limit=LISTED)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _CANCELLED:
                    raise
                raise NotPossible("There is too much to look through: delete conversations that are old.") from error

    async def _enter(self, actor: Actor, id: str, made: Attachment, body: bytes | None, blob: BlobName | None) -> bool:
        """False: somebody did so meanwhile."""
        async with self._database.writing() as connection:
            await store.lock_user(connection, _user(actor))
            conversation = await store.conversation_at(connection, _user(actor), id, for_change=True)
            if await store.has_attachment(connection, conversation.id, made.digest):
                return False
            await self._demand_room(connection, conversation, made.size_bytes)
            await store.add_attachment(connection, conversation.id, made, self._now(), body=body, blob=blob)
            await store.change_conversation(
                connection, conversation.id, bytes=conversation.size_bytes + made.size_bytes
            )
        return True

    async def _demand_room(self, connection: AsyncConnection, conversation: Conversation, more_bytes: int) -> None:
        demand_conversation_room(conversation.size_bytes, more_bytes=more_bytes)
        demand_room(await store.held(connection, conversation.user_id), self._limits, more_bytes=more_bytes)

    async def _bytes_of(self, blob: BlobName | None) -> bytes:
        assert blob is not None  # a row has the one or the other
        async with aclosing(self._blobs.read(blob)) as pieces:
            return b"".join(await _all(pieces))

    async def _delete(self, blobs: Sequence[BlobName]) -> None:
        for name in blobs:
            await self._blobs.delete(name)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _all(pieces: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in pieces]


def _user(actor: Actor) -> str:
    """Raises NotAllowed."""
    if not actor.user_id:
        raise NotAllowed("Conversations are kept for users, and this caller is none.")
    return actor.user_id


def _conversation_id(text: str) -> str:
    """Raises NotFound: what is none there cannot be."""
    try:
        return demand_id(text, "A conversation's id")
    except BadInput as error:
        raise NotFound("There is no such conversation of yours.") from error


def _link(text: str) -> str:
    """Raises NotFound."""
    try:
        return demand_id(text, "A link")
    except BadInput as error:
        raise NotFound("There is no such conversation, or it is no longer shared.") from error


def _names(message: Message) -> str:
    return ", ".join(str(part["name"]) for part in message.files)


def _act(actor: Actor, action: str, subject: str) -> Act:
    return Act(actor.name, action, subject, actor_key_id=actor.key_id)
