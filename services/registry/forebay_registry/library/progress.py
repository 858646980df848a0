"""The lines in which Ollama tells how a pull goes, and whether the disk has room for the rest of it. Pure.

Layers are announced one after the other, so that the sum grows while a pull runs; the largest usually comes first."""

from __future__ import annotations

from dataclasses import dataclass

from forebay_registry.engines.answers import BadAnswer, object_in, whole
from forebay_registry.library.trouble import EngineTrouble

SUCCESS = "success"
VERIFYING = "verifying"
MAX_LINE_BYTES = 64 * 1024
_MOST_BYTES = 2**50
_MOST_LAYERS = 1000
_LONGEST_STATUS = 200


@dataclass(frozen=True, slots=True)
class Line:
    status: str
    digest: str = ""
    total: int | None = None
    completed: int | None = None
    error: str = ""


def read_line(raw: bytes) -> Line:
    """Raises BadAnswer for what is not such a line."""
    page = object_in(raw)
    error, status, digest = page.get("error", ""), page.get("status", ""), page.get("digest", "")
    if isinstance(error, dict):
        error = error.get("message", "unknown error")
    if not all(isinstance(word, str) for word in (error, status, digest)) or not (error or status):
        raise BadAnswer("a line of its progress has no status")
    shown = "".join(c for c in status if c.isprintable())[:_LONGEST_STATUS]
    return Line(
        shown, digest[:80], whole(page.get("total"), _MOST_BYTES), whole(page.get("completed"), _MOST_BYTES), error
    )


class Layers:
    """The layers of one pull, as far as they were announced."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        """Digest → its size and how much of it is there, in bytes."""

    def take(self, line: Line) -> bool:
        """Whether a layer was announced. Raises EngineTrouble when there is no end to them."""
        if not line.digest or line.total is None:
            return False
        before = self._layers.get(line.digest)
        if before is None and len(self._layers) >= _MOST_LAYERS:
            raise EngineTrouble(f"This model has more than {_MOST_LAYERS} layers; it was not fetched.", is_final=True)
        self._layers[line.digest] = (line.total, min(line.completed or 0, line.total))
        return before is None or before[0] != line.total

    @property
    def total(self) -> int | None:
        return sum(size for size, _ in self._layers.values()) if self._layers else None

    @property
    def completed(self) -> int | None:
        return sum(done for _, done in self._layers.values()) if self._layers else None

    @property
    def to_fetch(self) -> int:
        """Bytes that are yet to come."""
        return sum(size - done for size, done in self._layers.values())


def demand_room(to_fetch: int, free: int | None, promised: int, reserve: int, *, backend: str, node: str) -> None:
    """`free`: bytes on the node's disk; None when nobody tells. `promised`: what other pulls there will yet take of them.
    Raises EngineTrouble."""
    if free is None or to_fetch <= free - promised - reserve:
        return
    others = f"{_gb(promised)} go to other pulls, " if promised else ""
    raise EngineTrouble(
        f"{backend} needs {_gb(to_fetch)} more for this model; of {_gb(free)} free on {node}, {others}{_gb(reserve)} stay "
        "free. Delete models there, or say --force.",
        is_final=True,
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
