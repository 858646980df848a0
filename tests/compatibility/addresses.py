"""The addresses at which something is generated or counted, a good request for each, and what a refusal there looks like."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.gateway.house import MODEL, OUTCOME, House

Json = dict[str, Any]

_SAID = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    path: str
    good: Mapping[str, Any]
    """The least that it takes."""
    dialect: str = "openai"
    has_row: bool = True
    """What only counts leaves none in the ledger."""

    def __str__(self) -> str:
        return self.path

    def body(self, **fields: Any) -> bytes:
        return json.dumps({**self.good, **fields}).encode()

    def without(self, *names: str) -> bytes:
        return json.dumps({name: value for name, value in self.good.items() if name not in names}).encode()


CHAT = Address("/v1/chat/completions", {"model": MODEL, "messages": _SAID})
COMPLETION = Address("/v1/completions", {"model": MODEL, "prompt": "hello"})
RESPONSE = Address("/v1/responses", {"model": MODEL, "input": "hello"})
EMBEDDING = Address("/v1/embeddings", {"model": MODEL, "input": "hello"})
MESSAGES = Address("/v1/messages", {"model": MODEL, "max_tokens": 9, "messages": _SAID}, "anthropic")
COUNT = Address("/v1/messages/count_tokens", {"model": MODEL, "messages": _SAID}, "anthropic", has_row=False)
OLLAMA_CHAT = Address("/api/chat", {"model": MODEL, "messages": _SAID}, "ollama")
GENERATE = Address("/api/generate", {"model": MODEL, "prompt": "hello"}, "ollama")
EMBED = Address("/api/embed", {"model": MODEL, "input": "hello"}, "ollama")
LEGACY_EMBED = Address("/api/embeddings", {"model": MODEL, "prompt": "hello"}, "ollama")
RERANK = Address("/v1/rerank", {"model": MODEL, "query": "a", "documents": ["b", "c"]})
COHERE_RERANK = Address("/v2/rerank", {"model": MODEL, "query": "a", "documents": ["b", "c"]})
SCORE = Address("/v1/score", {"model": MODEL, "text_1": "a", "text_2": ["b", "c"]})
MODERATION = Address("/v1/moderations", {"model": MODEL, "input": "hello"})
IMAGE = Address("/v1/images/generations", {"model": MODEL, "prompt": "a river"})
SPEECH = Address("/v1/audio/speech", {"model": MODEL, "input": "hello", "voice": "alloy"})
TOKENIZE = Address("/v1/tokenize", {"model": MODEL, "messages": _SAID}, has_row=False)

TAKES_JSON = (
    CHAT,
    COMPLETION,
    RESPONSE,
    EMBEDDING,
    MESSAGES,
    COUNT,
    OLLAMA_CHAT,
    GENERATE,
    EMBED,
    LEGACY_EMBED,
    RERANK,
    COHERE_RERANK,
    SCORE,
    MODERATION,
    IMAGE,
    SPEECH,
    TOKENIZE,
)

INPUT_TOKENS = Address("/v1/responses/input_tokens", {"model": MODEL, "input": "hello"}, has_row=False)
CONVERSATION = Address("/v1/conversations", {"items": [{"role": "user", "content": "hello"}]}, has_row=False)
BATCH = Address(
    "/v1/batches",
    {"input_file_id": "file-1", "endpoint": "/v1/completions", "completion_window": "24h"},
    has_row=False,
)
FILE = Address("/v1/files", {"purpose": "batch"}, has_row=False)
SHOW = Address("/api/show", {"model": MODEL}, "ollama", has_row=False)
PULL = Address("/api/pull", {"model": "tiny"}, "ollama", has_row=False)
PUSH = Address("/api/push", {"model": MODEL}, "ollama", has_row=False)
CREATE = Address("/api/create", {"model": "tiny", "from": MODEL}, "ollama", has_row=False)
COPY = Address("/api/copy", {"source": MODEL, "destination": "tiny"}, "ollama", has_row=False)
DELETE = Address("/api/delete", {"model": "tiny"}, "ollama", has_row=False)
KEEPS = (INPUT_TOKENS, CONVERSATION, BATCH, FILE, SHOW, PULL, PUSH, CREATE, COPY, DELETE)
"""Where nothing is generated: what is kept, counted, or done to an engine's models."""

IMAGE_EDIT = Address("/v1/images/edits", {"model": MODEL, "prompt": "a bridge"})
TRANSCRIPTION = Address("/v1/audio/transcriptions", {"model": MODEL})
TRANSLATION = Address("/v1/audio/translations", {"model": MODEL})
TAKES_FORMS = (IMAGE_EDIT, TRANSCRIPTION, TRANSLATION)

OF_OLLAMA = tuple(address for address in TAKES_JSON if address.dialect == "ollama")

_LEAKS = re.compile(
    r"Traceback|\.py\b|site-packages|aiohttp|orjson|NoneType|<class|object at 0x|[A-Z][a-z]+(?:Error|Exception)\b"
    r"|127\.0\.0\.1|localhost|https?://|/tmp\b|/work\b"
)
"""What is nobody's business: the gateway's language and libraries, its files, and where its engines are."""


@dataclass(frozen=True, slots=True)
class Told:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


async def told_for(
    house: House, address: Address, body: Any, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> Told:
    sent = {**house.headers, "content-type": "application/json", **(headers or {})}
    async with house.client.request(
        method,
        f"{house.url}{address.path}",
        data=io.BytesIO(body) if isinstance(body, bytes) and len(body) > 1 << 20 else body,
        headers=sent,
        timeout=aiohttp.ClientTimeout(total=10),
    ) as answer:
        return Told(answer.status, answer.headers, await answer.read())


def demand_refusal(told: Told, address: Address, house: House) -> str:
    """It is a 4xx of this address's dialect that gives nothing away. Gives its message."""
    assert 400 <= told.status < 500, told
    message = message_in(told, address.dialect)
    assert message, told
    assert told.headers["x-request-id"], told
    assert told.headers["x-forebay-reason"], told
    demand_no_leak(told, house)
    return message


def demand_no_leak(told: Told, house: House) -> None:
    text = told.body.decode()
    leak = _LEAKS.search(text)
    assert leak is None, f"{leak and leak[0]} in {text[:500]}"
    assert house.key.secret not in text


def message_in(told: Told, dialect: str) -> str:
    """Of an error in this dialect's shape, which is demanded."""
    body = json.loads(told.body)
    if dialect == "ollama":
        assert set(body) == {"error"}, told
        message = body["error"]
    elif dialect == "anthropic":
        assert set(body) == {"type", "error", "request_id"}, told
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}, told
        assert body["request_id"] == told.headers["x-request-id"]
        message = body["error"]["message"]
    else:
        assert set(body) == {"error"}, told
        assert set(body["error"]) == {"message", "type", "param", "code"}, told
        message = body["error"]["message"]
    assert isinstance(message, str), told
    return message


async def demand_rows(house: House, told: list[Told]) -> None:
    """One for each of these, with the reason and the status that its client saw."""
    rows = {row.request_id: row for row in await house.rows(len(told))}
    assert set(rows) == {one.headers["x-request-id"] for one in told}
    for one in told:
        row = rows[one.headers["x-request-id"]]
        assert row.http_status == one.status, (row, one)
        if one.status >= 400:
            assert row.reason == one.headers["x-forebay-reason"], (row, one)
            assert OUTCOME(row.outcome) in ("OUTCOME_REFUSED", "OUTCOME_FAILED")
