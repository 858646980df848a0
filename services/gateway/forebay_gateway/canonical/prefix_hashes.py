"""Names for the beginnings of a prompt, so that the scheduler can send a conversation to where its beginning is cached.

Pure. The prompt's text is cut into blocks of 2048 bytes, about 512 tokens; each whole block has a hash over itself and all
blocks before it. A changed message leaves the hashes of all earlier blocks as they were, a part of a block at the end has
none. The model and the tenant are hashed in first: nobody can learn from equal hashes what another tenant's prompts say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import orjson

BLOCK_BYTES = 2048
MOST_BLOCKS = 64
_MOST_BYTES = BLOCK_BYTES * MOST_BLOCKS
_FIELD, _MESSAGE = b"\x1f", b"\x1e"
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def chat_hashes(model: str, tenant: str, fields: Mapping[str, Any]) -> tuple[int, ...]:
    """`fields`: the body of a chat request, which has a list of objects as `messages`. At most 64 numbers of 64 bits."""
    if _is_surely_short(fields):
        return ()
    try:
        text = _text_of(fields)
    except orjson.JSONEncodeError:  # deeper than is written, such as tools in tools in tools
        return ()
    return hashes_of(model, tenant, text)


def completion_hashes(model: str, tenant: str, fields: Mapping[str, Any]) -> tuple[int, ...]:
    """`fields`: the body of a completion request. Several prompts at once have no beginning in common that could be used."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    return hashes_of(model, tenant, _encoded(prompt)) if isinstance(prompt, str) else ()


def hashes_of(model: str, tenant: str, text: bytes) -> tuple[int, ...]:
    blocks = min(MOST_BLOCKS, len(text) // BLOCK_BYTES)
    if not blocks:
        return ()
    # SHA-256 rather than a hash made for speed: processors do it in hardware, at half the time that BLAKE2b takes.
    chain = sha256(b"%b%b%b%b" % (model.encode(), _FIELD, tenant.encode(), _MESSAGE))
    view = memoryview(text)
    hashes = []
    for start in range(0, blocks * BLOCK_BYTES, BLOCK_BYTES):
        chain.update(view[start : start + BLOCK_BYTES])
        hashes.append(int.from_bytes(chain.digest()[:8], "little"))  # a digest leaves the chain as it is
    return tuple(hashes)


def _is_surely_short(fields: Mapping[str, Any]) -> bool:
    """It has not a block of text, as is seen without writing it."""
    if (fields.get("tools")) or (fields.get("functions")):
        return False
    room = BLOCK_BYTES
    for message in fields["messages"]:
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or type(content) is not str or len(message) > 2:
            return False
        room -= 2 + (len(role) + len(content)) * 4  # in UTF-8 at most
        if room <= 0:
            return False
    return True


def _text_of(fields: Mapping[str, Any]) -> bytes:
    """In the order in which chat templates write it: tools, then the messages. Little longer than what is hashed."""
    pieces: list[bytes] = []
    for name in ("tools", "functions"):
        if fields.get(name):
            pieces.append(orjson.dumps(fields[name], option=_SORTED))
    room = _MOST_BYTES - sum(map(len, pieces))
    for message in fields["messages"]:
        if room <= 0:
            break
        role, content = message.get("role"), message.get("content")
        if isinstance(role, str) and isinstance(content, str):
            piece = _encoded(f"\x1e{role}\x1f{content}")
        else:
            piece = _encoded(f"\x1e{role if isinstance(role, str) else ''}\x1f") + b"".join(_content(content))
        if len(message) > 2:  # tool calls, names and whatever else there may be
            rest = {name: value for name, value in message.items() if name not in ("role", "content")}
            piece += _FIELD + orjson.dumps(rest, option=_SORTED)
        pieces.append(piece)
        room -= len(piece)
    return b"".join(pieces)


def _content(content: Any) -> Iterator[bytes]:
    """A text and a list with that text as its only part are the same prompt."""
    if isinstance(content, str):
        yield _encoded(content)
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                yield _encoded(part["text"])
            else:
                yield from _part(part)
    elif content is not None:
        yield orjson.dumps(content, option=_SORTED)


def _part(part: Any) -> Iterator[bytes]:
    """An image may be megabytes, of which only the beginning is looked at."""
    texts = part.items() if isinstance(part, dict) else ()
    inner = ((name, text) for name, value in texts if isinstance(value, dict) for name, text in value.items())
    for name, value in sorted([(n, v) for n, v in (*texts, *inner) if isinstance(v, str)]):
        yield _FIELD + _encoded(name) + _FIELD + _encoded(value)


def _encoded(text: str) -> bytes:
    return text[:_MOST_BYTES].encode("utf-8", "surrogatepass")
