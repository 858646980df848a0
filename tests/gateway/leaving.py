"""Clients that go in the middle, in every way there is, and what they ask for in each dialect."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

from tests.gateway.house import House, ask

OTHERS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"max_tokens": 2000, "messages": ask()["messages"]},
    "/v1/responses": {"input": "Say some words, please.", "store": False},
    "/v1/completions": {"prompt": "Say some words, please.", "max_tokens": 2000},
    "/api/chat": {"messages": ask()["messages"]},
    "/api/generate": {"prompt": "Say some words, please."},
}

EMBEDDINGS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["some words"]},
    "/api/embed": {"input": "some words"},
    "/api/embeddings": {"prompt": "some words"},
}


async def connect(
    house: House, body: dict[str, Any], path: str = "/v1/chat/completions"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client of raw bytes, so that it can go in every way there is."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    return reader, writer


def go(writer: asyncio.StreamWriter, how: str) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half-close":
        writer.write_eof()
    else:
        writer.transport.abort()
