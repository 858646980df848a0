"""Reads what a streamed answer said."""

from __future__ import annotations

import json
from typing import Any

from tests.gateway.house import House, ask


def events(text: str) -> list[Any]:
    """The JSON of each event; "[DONE]" as it is."""
    lines = [block for block in text.split("\n\n") if block.startswith("data: ")]
    return [json.loads(line[6:]) if line != "data: [DONE]" else "[DONE]" for line in lines]


def text_of(told: list[Any], choice: int = 0) -> str:
    return "".join(
        piece["delta"].get("content") or ""
        for event in told
        if event != "[DONE]"
        for piece in event.get("choices", ())
        if piece["index"] == choice
    )


async def stream(house: House, **fields: Any) -> list[Any]:
    async with house.post(ask(stream=True, **fields)) as answer:
        assert answer.status == 200, await answer.text()
        return events(await answer.text())
