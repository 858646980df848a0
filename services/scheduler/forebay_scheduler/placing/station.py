"""One backend's running state, as the placing of requests needs it. Changed by `stations` and `placement` alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forebay_scheduler.backend import Backend
from forebay_scheduler.placing.adaptive_limit import AdaptiveLimit
from forebay_scheduler.placing.indexed_set import IndexedSet
from forebay_scheduler.placing.prefill_fit import PrefillFit
from forebay_scheduler.placing.request_pace import RequestPace
from forebay_scheduler.placing.residency import Residency
from forebay_scheduler.request import BackendId, LedgerId, PoolName

TOP_LEVEL = 63
"""Stations with more room than this count as equally empty."""


class Serving:
    """The stations of one pool that serve one model, and which of them have room. What changes it costs O(1)."""

    __slots__ = (
        "absent",
        "cold",
        "free",
        "free_mask",
        "has_kv_budgets",
        "levels",
        "model",
        "occupied",
        "pool",
        "room_mask",
        "stations",
        "widest",
    )

    def __init__(self, pool: PoolName, model: str) -> None:
        self.pool = pool
        self.model = model
        self.stations: IndexedSet[Station] = IndexedSet()
        self.free: IndexedSet[Station] = IndexedSet()
        """Room for a request of width one, and the model is at hand."""
        self.cold: IndexedSet[Station] = IndexedSet()
        """Room, but the model would have to be loaded first."""
        self.absent = 0
        """Stations where the model is known not to be loaded."""
        self.free_mask = 0
        self.room_mask = 0
        """The free ones, and those that have slots but enough prompts to read for now."""
        self.levels: list[int] = [0] * (TOP_LEVEL + 1)
        """Masks of the free ones, by how many slots they have left."""
        self.occupied = 0
        """Bit n: some station is on level n."""
        self.has_kv_budgets = False
        """Of some of them it is known how many tokens fit into their caches."""
        self.widest = 0
        """The widest request that any of them can ever take."""

    @property
    def has_room(self) -> bool:
        return bool(self.free) or bool(self.cold)

    def roomiest(self, width: int = 1) -> int:
        """The mask of the free stations with the most slots left, if that is enough for this width."""
        level = self.occupied.bit_length() - 1
        return self.levels[level] if level >= min(width, TOP_LEVEL) and level > 0 else 0

    def wide_enough(self, width: int) -> int:
        mask = 0
        occupied = self.occupied >> min(width, TOP_LEVEL) << min(width, TOP_LEVEL)
        while occupied:
            level = occupied.bit_length() - 1
            mask |= self.levels[level]
            occupied ^= 1 << level
        return mask

    def move(self, bit: int, was: int, level: int) -> None:
        if was:
            left = self.levels[was] & ~bit
            self.levels[was] = left
            if not left:
                self.occupied &= ~(1 << was)
        if level:
            self.levels[level] |= bit
            self.occupied |= 1 << level


class Place:
    """One model on one backend."""

    __slots__ = (
        "at_hand",
        "cap",
        "fit",
        "has_room",
        "is_cold",
        "is_free",
        "level",
        "limit",
        "model",
        "service_s",
        "serving",
        "tpot_s",
        "ttft_s",
        "used",
    )

    def __init__(self, model: str, fit: PrefillFit) -> None:
        self.model = model
        self.serving: Serving | None = None
        """None when it is no longer served here and something still runs."""
        self.cap: int | None = None
        """Slots of it at once, where somebody said."""
        self.limit: AdaptiveLimit | None = None
        self.used = 0
        self.at_hand = True
        self.level = 0
        self.has_room = False
        self.is_free = False
        self.is_cold = False
        self.fit = fit
        self.ttft_s: float | None = None
        self.tpot_s = 0.0
        self.service_s: float | None = None

    @property
    def most(self) -> int | None:
        """Slots of it at once now; None: as many as the backend has."""
        if self.limit is None:
            return self.cap
        return self.limit.slots


@dataclass(slots=True, init=False)
class Reading:
    """A request that was granted and has no first token yet."""

    model: str
    uncached: int
    cached: int
    seconds: float
    """Predicted for its own prefill."""
    predicted_s: float
    """To its first token."""
    since: float
    is_loading: bool
    is_streamed: bool = True

    def __init__(
        self,
        model: str,
        uncached: int,
        cached: int,
        seconds: float,
        predicted_s: float,
        since: float,
        is_loading: bool,
        is_streamed: bool = True,
    ) -> None:
        self.model = model
        self.uncached = uncached
        self.cached = cached
        self.seconds = seconds
        self.predicted_s = predicted_s
        self.since = since
        self.is_loading = is_loading
        self.is_streamed = is_streamed

    @property
    def is_believed_over(self) -> float:
        """The moment from which it no longer counts as being read, whatever was told."""
        return self.since + (2.0 * self.predicted_s + 1.0 if self.is_streamed else self.predicted_s)


class Station:
    __slots__ = (
        "aside",
        "bit",
        "closed",
        "facts",
        "failure",
        "has_foreign",
        "id",
        "index",
        "is_gone",
        "is_over_prefill",
        "is_paced",
        "is_stuck",
        "kept_for",
        "kv_budget",
        "measured_at",
        "pace",
        "place_list",
        "places",
        "read_since",
        "reading",
        "reading_s",
        "residency",
        "running",
        "slots",
        "tokens",
        "used",
        "wakes_at",
    )

    def __init__(self, facts: Backend, index: int) -> None:
        self.facts = facts
        self.id: BackendId = facts.id
        self.index = index
        """Its number in the prefix index, and its bit in every mask."""
        self.bit = 1 << index
        self.is_gone = False
        self.closed: str | None = None
        """Why it gets nothing now, where dispatch said so."""
        self.used = 0
        """Slots."""
        self.aside = 0
        """Slots that nobody may use: what dead gateways had there."""
        self.running = 0
        """Requests."""
        self.tokens = 0
        """Of prompts and expected answers, against the engine's cache."""
        self.kv_budget: int | None = None
        self.kept_for: LedgerId | None = None
        """Only this request may start here: it is wide and had to wait for room."""
        self.pace: RequestPace | None = None
        self.is_paced = False
        self.is_stuck = False
        """A first token is late: what is granted now would wait inside the engine. Counts where the limit is being found."""
        self.is_over_prefill = False
        self.places: dict[str, Place] = {}
        self.place_list: list[Place] = []
        self.reading: dict[LedgerId, Reading] = {}
        """In the order in which they were granted."""
        self.reading_s = 0.0
        """Predicted for all of them together."""
        self.read_since = float("-inf")
        """When it began with the first of them."""
        self.failure = 0.01
        self.slots = max(1, facts.slots)
        """To divide by."""
        self.has_foreign = False
        """Its engine counts something that may not be ours."""
        self.residency: Residency | None = None
        self.measured_at = float("-inf")
        self.wakes_at = float("inf")

    def __repr__(self) -> str:
        return f"Station({self.id!r}, used={self.used}/{self.facts.slots}, aside={self.aside}, closed={self.closed!r})"

    @property
    def free_slots(self) -> int:
        return max(0, self.facts.slots - self.used - self.aside)

    def wait_s(self, now: float) -> float:
        """What it still has to read before it begins with a prompt that comes now."""
        if not self.reading:
            return 0.0
        first = next(iter(self.reading.values())).seconds
        done = now - self.read_since
        return max(0.0, self.reading_s - (done if done < first else first))


def stations_in(mask: int, by_index: list[Station | None]) -> Iterator[Station]:
    while mask:
        bit = mask & -mask
        station = by_index[bit.bit_length() - 1]
        if station is not None:
            yield station
        mask ^= bit
