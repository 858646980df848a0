"""JetStream's streams by its own snapshots: messages, settings and how far each consumer was, as of one moment.

What a stream is for, nobody needs to know here."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import nats
import nats.errors

from forebay.errors import ForebayError, Unavailable

USER = "backup"
"""Its user on NATS, who may do this and nothing else."""
_CALL_S = 15.0
_QUIET_S = 30.0
_CHUNK = 128 * 1024
_LENGTH = struct.Struct(">I")
_NO_STREAM = 10059


class StreamNotCopied(ForebayError):
    """A stream of NATS could not be copied."""


@asynccontextmanager
async def open_streams(url: str, seed_file: Path, tls: ssl.SSLContext | None) -> AsyncIterator[Any]:
    """A connection for the calls below. Raises Unavailable."""
    try:
        connection = await nats.connect(
            url,
            name=USER,
            nkeys_seed=str(seed_file),
            inbox_prefix=f"_INBOX_{USER}".encode(),
            tls=tls,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=5,
            error_cb=_heard,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS cannot be asked for its streams ({error or type(error).__name__}).") from error
    try:
        yield connection
    finally:
        await connection.close()


class Takes(Protocol):
    """Of a file, what is needed here."""

    def write(self, content: bytes, /) -> object: ...


async def copy_stream(connection: Any, stream: str, to: Takes) -> int | None:
    """Writes it there; gives the number of messages, or None when there is no such stream. Raises StreamNotCopied."""
    inbox = connection.new_inbox()
    arriving: asyncio.Queue[Any] = asyncio.Queue()
    listening = await connection.subscribe(inbox, cb=arriving.put)
    try:
        asked = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": _CHUNK}
        answer = await _ask(connection, f"$JS.API.STREAM.SNAPSHOT.{stream}", asked)
        if answer.get("error", {}).get("err_code") == _NO_STREAM:
            return None
        _demand(answer, stream)
        head = json.dumps({"config": answer["config"], "state": answer["state"]}).encode()
        to.write(_LENGTH.pack(len(head)) + head)
        while True:
            async with asyncio.timeout(_QUIET_S):
                message = await arriving.get()
            if not message.data:
                _demand_end(message, stream)
                break
            to.write(_LENGTH.pack(len(message.data)) + message.data)
            if message.reply:
                await connection.publish(message.reply, b"")  # only so much is sent ahead of us
        messages: int = answer["state"]["messages"]
        return messages
    except (nats.errors.Error, TimeoutError) as error:
        raise StreamNotCopied(f"The stream {stream} could not be copied ({error or 'NATS fell silent'}).") from error
    finally:
        await listening.unsubscribe()


async def put_stream_back(connection: Any, stream: str, copied: Path) -> int:
    """Makes it anew from its copy; gives the number of messages. Raises StreamNotCopied, also when there is one already."""
    try:
        with copied.open("rb") as file:
            head = json.loads(_read_piece(file))
            answer = await _ask(connection, f"$JS.API.STREAM.RESTORE.{stream}", head)
            _demand(answer, stream)
            while piece := _read_piece(file):
                reply = await connection.request(answer["deliver_subject"], piece, timeout=_CALL_S)
                if reply.data:
                    _demand(json.loads(reply.data), stream)
            done = await connection.request(answer["deliver_subject"], b"", timeout=_QUIET_S)
            result = json.loads(done.data)
            _demand(result, stream)
            messages: int = result["state"]["messages"]
            return messages
    except (nats.errors.Error, TimeoutError) as error:
        raise StreamNotCopied(f"The stream {stream} could not be put back ({error or 'NATS fell silent'}).") from error


async def _ask(connection: Any, subject: str, question: dict[str, Any]) -> dict[str, Any]:
    reply = await connection.request(subject, json.dumps(question).encode(), timeout=_CALL_S)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def _demand(answer: dict[str, Any], stream: str) -> None:
    if error := answer.get("error"):
        raise StreamNotCopied(f"The stream {stream} could not be copied: {error.get('description', error)}.")


def _demand_end(message: Any, stream: str) -> None:
    status = (message.headers or {}).get("Status", "")
    if status and status != "204":
        said = (message.headers or {}).get("Description", "")
        raise StreamNotCopied(f"The stream {stream} could not be copied to its end: NATS said {status} {said}.")


def _read_piece(file: Any) -> bytes:
    """Empty at the end."""
    head = file.read(_LENGTH.size)
    if not head:
        return b""
    piece: bytes = file.read(_LENGTH.unpack(head)[0])
    return piece


async def _heard(error: Exception) -> None:
    """What fails is told by the call that fails."""
