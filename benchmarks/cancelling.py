"""How soon an engine's connection closes, and a queue's place is given up, once the client has gone: in every dialect, for
answers that are streamed, whole, and not begun."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house
from tests.gateway.leaving import EMBEDDINGS, OTHERS, connect, go

_ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ask()["messages"], "max_tokens": 2000, "ignore_eos": True},
    **OTHERS,
    **EMBEDDINGS,
}
_TRIES = 5
_LONG_ANSWER = Pace(tokens_per_s=50, ttft_s=0.05, answer_tokens=2000)
_LONG_READING = Pace(ttft_s=30)


@dataclass(frozen=True, slots=True, order=True)
class Left:
    took_s: float
    path: str
    doing: str


async def measure(work: Path) -> list[Left]:
    """Every dialect and state, several times each."""
    engine = FakeEngine(flavour=Flavour.VLLM)
    work.mkdir(parents=True)
    found = []
    async with open_house(work, engine) as house:
        for path, body in _ASKED.items():
            states = ("whole", "queued") if path in EMBEDDINGS else ("streamed", "whole", "queued")
            for doing in states:
                fields = {} if path in EMBEDDINGS else {"stream": doing == "streamed"}
                engine.pace = _LONG_READING if path in EMBEDDINGS else _LONG_ANSWER
                for _ in range(_TRIES):
                    asked = {"model": ask()["model"], **body, **fields}
                    took_s = await _leave(house, engine, path, asked, is_queued=doing == "queued")
                    found.append(Left(took_s, path, doing))
    return found


async def _leave(house: House, engine: FakeEngine, path: str, body: dict[str, Any], *, is_queued: bool) -> float:
    house.scheduler.slots["b1"] = 0 if is_queued else 4
    _, writer = await connect(house, body, path)
    await eventually(lambda: house.scheduler.queue if is_queued else engine.slots.running == 1)
    began = time.monotonic()
    go(writer, "close")
    await eventually(lambda: not house.scheduler.queue and engine.slots.running == 0)
    took_s = time.monotonic() - began
    await eventually(lambda: not house.scheduler.held)
    return took_s
