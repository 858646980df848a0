"""How a pull, a push or a creation of a model goes, as Ollama tells it: one object a line, `success` or `error` last. Pure.

`ProgressLines` reads one engine's. `PullProgress` makes one of the progress of several engines that pull the same model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.parts import text_in, without_zeros

LONGEST_LINE = 1 << 20

SUCCESS = "success"
_PULLING = 1
_LAST = 5
# https://github.com/ollama/ollama/blob/main/server/images.go, `PullModel`: always in this order.
_STEPS = {
    "pulling manifest": 0,
    # `pulling 0123456789ab`, again and again, for each layer: `_PULLING`
    "verifying sha256 digest": 2,
    "writing manifest": 3,
    "removing any unused layers": 4,  # before 0.6
    "removing unused layers": 4,
    SUCCESS: _LAST,
}


class BadProgress(Exception):
    """What the engine sent is no progress."""


@dataclass(frozen=True, slots=True)
class Line:
    raw: bytes
    """As it came, without its end."""
    told: Json

    @property
    def is_success(self) -> bool:
        return self.told.get("status") == SUCCESS

    @property
    def error(self) -> str:
        """Empty: it tells of none."""
        error = self.told.get("error")
        return error if isinstance(error, str) else orjson.dumps(error).decode() if error else ""


class ProgressLines:
    """Lines out of bytes as they come; blank ones are dropped, since no client takes them."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, piece: bytes) -> list[Line]:
        """Raises BadProgress."""
        *whole, self._pending = (self._pending + piece).split(b"\n")
        if len(self._pending) > LONGEST_LINE:
            raise BadProgress(f"It sent a line longer than {LONGEST_LINE >> 20} MB.")
        return [_line(raw) for raw in whole if raw.strip()]

    def end(self) -> list[Line]:
        """The last line, if its end is missing. Raises BadProgress when it was cut off."""
        rest, self._pending = self._pending, b""
        return [_line(rest)] if rest.strip() else []


class PullProgress:
    """One progress out of those of several backends, in Ollama's order and with nothing told twice.

    A step is told when every backend that has not failed has come so far; of a layer, the sums over the backends that have
    told of it, which never fall. `success` comes last, and only if no backend has failed."""

    def __init__(self, backends: Collection[str]) -> None:
        self._step = dict.fromkeys(backends, -1)
        """How far each is that has not failed."""
        self._has_failed = False
        self._layers: dict[str, dict[str, tuple[int, int]]] = {}
        """By digest and backend: total and completed, in bytes."""
        self._waiting: dict[str, int] = {}
        """Statuses that some backend has come to and others have not."""
        self._told: set[str] = set()
        self._told_step = -1

    def has_ended(self, backend: str) -> bool:
        """It has failed, or has the model."""
        return self._step.get(backend, _LAST) == _LAST

    def take(self, backend: str, told: Json) -> list[Json]:
        """What a backend tells, other than an error; gives what the client is told for it."""
        status = text_in(told, "status")
        if self.has_ended(backend) or not status:
            return []
        digest = text_in(told, "digest")
        if digest:
            return self._take_layer(backend, status, digest, told)
        step = _STEPS.get(status, max(self._step[backend], 0))  # one that is new to us belongs where it is said
        self._step[backend] = max(self._step[backend], step)
        if status not in self._told and step >= self._told_step:
            self._waiting.setdefault(status, step)
        return self._let_go()

    def fail(self, backend: str) -> list[Json]:
        """Nobody waits for this one any more; gives what the client is told now. What it has told stays in the sums."""
        self._has_failed = True
        self._step.pop(backend, None)
        return self._let_go()

    def _take_layer(self, backend: str, status: str, digest: str, told: Json) -> list[Json]:
        self._step[backend] = max(self._step[backend], _PULLING)
        if self._told_step > _PULLING:  # it was behind all others before: it says so again after it had gone on
            return []
        layer = self._layers.setdefault(digest, {})
        total, completed = layer.get(backend, (0, 0))
        layer[backend] = max(total, _bytes(told.get("total"))), max(completed, _bytes(told.get("completed")))
        self._told_step = max(self._told_step, _PULLING)
        sums = {
            "total": sum(total for total, _ in layer.values()),
            "completed": sum(completed for _, completed in layer.values()),
        }
        return [{"status": status, "digest": digest, **without_zeros(sums)}]

    def _let_go(self) -> list[Json]:
        if not self._step:
            return []
        # The first step needs nobody else: a backend that is slow to begin must not look like one that does nothing.
        reached = max(min(self._step.values()), 0)
        free = sorted((step, place, status) for place, (status, step) in enumerate(self._waiting.items()))
        lines: list[Json] = []
        for step, _, status in free:
            if step > reached or (status == SUCCESS and self._has_failed):
                break
            del self._waiting[status]
            if step >= self._told_step:
                self._told.add(status)
                self._told_step = step
                lines.append({"status": status})
        return lines


def _line(raw: bytes) -> Line:
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise BadProgress("It sent a line that is not a JSON object.")
    return Line(raw.strip(), told)


def _bytes(told: Any) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else 0
