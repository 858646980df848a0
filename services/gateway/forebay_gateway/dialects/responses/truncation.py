"""What of a conversation goes when it does not fit: the oldest, as `truncation: auto` allows. Pure.

Nobody knows here by how much it is too long: engines say it each in their own words, or not at all. So a little goes at
first, then more, and in the end all that may. What the system says stays, and so do the last message of the user and
what the model did last. A call and its outputs go together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json

_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of what may go, at each try."""
OUTPUT_OF = "Output of "
"""How a message begins that shows what a function gave beside text."""


def shortened(messages: Sequence[Json], tries: int) -> list[Json] | None:
    """Chat's messages, after so many tries to make them fit. None: no more can be done."""
    if tries >= len(_SHARES):
        return None
    system = [message for message in messages if message["role"] == "system"]
    steps = _steps([message for message in messages if message["role"] != "system"])
    last = max((place for place, step in enumerate(steps) if step[0]["role"] == "user"), default=-1)
    before, said, since = steps[: max(last, 0)], steps[last : last + 1] if last >= 0 else [], steps[last + 1 :]
    may_go = [*_turns(before), *([step] for step in since[:-1])]
    if not may_go:
        return None
    sizes = [sum(map(_size, turn)) for turn in may_go]
    gone, wanted = 0, _SHARES[tries] * sum(sizes)
    count = 0
    while count < len(may_go) and (count == 0 or gone + sizes[count] <= wanted):
        gone += sizes[count]
        count += 1
    turns = len(_turns(before))
    left_before = [step for turn in may_go[count:turns] for step in turn]
    left_since = [step for turn in may_go[max(count, turns) :] for step in turn]
    return [*system, *_flat(left_before), *_flat(said), *_flat(left_since), *_flat(since[-1:])]


def _steps(messages: Iterable[Json]) -> list[list[Json]]:
    """What cannot be parted: a message, with the outputs of the calls in it."""
    steps: list[list[Json]] = []
    for message in messages:
        if steps and (message["role"] == "tool" or (steps[-1][-1]["role"] == "tool" and _shows_output(message))):
            steps[-1].append(message)
        else:
            steps.append([message])
    return steps


def _turns(steps: Iterable[list[Json]]) -> list[list[list[Json]]]:
    """From one message of the user to before the next: many templates want a conversation to begin with the user."""
    turns: list[list[list[Json]]] = []
    for step in steps:
        if turns and step[0]["role"] != "user":
            turns[-1].append(step)
        else:
            turns.append([step])
    return turns


def _shows_output(message: Json) -> bool:
    content = message.get("content")
    first: Any = content[0] if isinstance(content, list) and content else {}
    return str(first.get("text", "")).startswith(OUTPUT_OF)


def _size(step: list[Json]) -> int:
    return len(orjson.dumps(step))


def _flat(steps: Iterable[list[Json]]) -> list[Json]:
    return [message for step in steps for message in step]
