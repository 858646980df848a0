"""All prices and their versions, as one reads them in memory: which was in force for a model at a moment, and what a row of
the ledger costs by it. Pure, and never changed: a new version makes a new book."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import translate
from re import compile as compiled
from typing import NamedTuple

from forebay_admin.money.costs import MOST_COST, Meter, Unbilled, asks_for_usage, cost_of, meter_of
from forebay_admin.money.prices import Prices, PriceVersion, is_pattern

_MODELS_KEPT = 10_000
_FAILED = frozenset({"failed", "cancelled", "gateway_lost"})
_MEASURED = frozenset({"engine", "counted"})
"""Sources of usage by which nothing is really nothing."""


class Bill(NamedTuple):
    """Either a cost with the version of the price, or why there is none."""

    cost_micros: int | None
    price_version: int | None
    unbilled: str | None


class _InForce(NamedTuple):
    version: PriceVersion
    prices: Prices
    meter: Meter
    asks_for_usage: bool
    is_by_piece: bool
    """By the image or the second."""


@dataclass(frozen=True, slots=True)
class _Times:
    """What a model costs over time: from each start on what stands beside it, None where nothing has a price."""

    starts: Sequence[datetime]
    in_force: Sequence[_InForce | None]

    def at(self, when: datetime) -> _InForce | None:
        index = bisect_right(self.starts, when) - 1
        return self.in_force[index] if index >= 0 else None


_REFUSED = Bill(None, None, Unbilled.REFUSED.value)
_NOBODY = Bill(None, None, Unbilled.NOBODY.value)
_NO_OUTPUT = Bill(None, None, Unbilled.NO_OUTPUT.value)
_NO_PRICE = Bill(None, None, Unbilled.NO_PRICE.value)
NO_PRICES: Sequence[PriceVersion] = ()


class PriceBook:
    """An exact name goes before a pattern, and of patterns the one with more letters of its own."""

    def __init__(self, versions: Iterable[PriceVersion] = NO_PRICES) -> None:
        by_name: dict[str, list[PriceVersion]] = defaultdict(list)
        for version in versions:
            by_name[version.model].append(version)
        for mine in by_name.values():
            mine.sort(key=lambda version: (version.starts_at, version.id))
        self._by_name = dict(by_name)
        patterns = sorted((name for name in by_name if is_pattern(name)), key=_narrowest_first)
        self._patterns = [(name, compiled(_expression(name))) for name in patterns]
        self._known: dict[str, _Times] = {}

    def price_at(self, model: str, when: datetime) -> PriceVersion | None:
        """The version in force; None where nothing has a price."""
        found = self._times(model).at(when)
        return found.version if found is not None else None

    def names_for(self, model: str) -> set[str]:
        """The name itself and the patterns that it fits, as far as they have prices."""
        return set(self._names(model))

    def bill(
        self,
        model: str,
        started_at: datetime,
        outcome: str,
        key_id: str,
        ttft_ms: int | None,
        usage_source: str,
        prompt_tokens: int,
        cached_prompt_tokens: int,
        completion_tokens: int,
        images: int | None = None,
        audio_ms: int | None = None,
        queue_ms: int = 0,
        duration_ms: int = 0,
        width: int = 1,
    ) -> Bill:
        """Called for every row of the ledger, whose columns these are, from any thread."""
        if outcome == "refused":
            return _REFUSED
        if not key_id:
            return _NOBODY
        if outcome in _FAILED and ttft_ms is None and not completion_tokens:
            return _NO_OUTPUT
        found = (self._known.get(model) or self._times(model)).at(started_at)
        if found is None:
            return _NO_PRICE
        if found.asks_for_usage and not (
            prompt_tokens or completion_tokens or images or audio_ms or usage_source in _MEASURED
        ):
            return Bill(None, found.version.id, Unbilled.USAGE_UNKNOWN.value)
        busy_ms = max(0, duration_ms - queue_ms) * (width or 1)
        cost = found.meter(prompt_tokens, cached_prompt_tokens, completion_tokens, images or 0, audio_ms or 0, busy_ms)
        if not cost and images is None and audio_ms is None and found.is_by_piece:
            return Bill(None, found.version.id, Unbilled.USAGE_UNKNOWN.value)
        if cost > MOST_COST:
            return Bill(None, found.version.id, Unbilled.TOO_MUCH.value)
        return Bill(cost, found.version.id, None)

    def counted(
        self,
        model: str,
        started_at: datetime,
        outcome: str,
        prompt_tokens: int,
        cached_prompt_tokens: int,
        completion_tokens: int,
    ) -> int:
        """Micro-units that the scheduler counts for a row: it knows the prices of tokens, their tiers and that of a request
        which used any."""
        found = self._times(model).at(started_at)
        if found is None or outcome == "refused" or not (prompt_tokens or completion_tokens):
            return 0
        known = replace(found.prices, image_micros=0, audio_second_micros=0, hardware=None)
        return min(MOST_COST, cost_of(known, prompt_tokens, cached_prompt_tokens, completion_tokens))

    def _exact_at(self, model: str, when: datetime) -> PriceVersion | None:
        mine = self._by_name.get(model, ())
        index = bisect_right(mine, when, key=lambda version: version.starts_at) - 1
        return mine[index] if index >= 0 else None

    def _times(self, model: str) -> _Times:
        known = self._known.get(model)
        if known is None:
            if len(self._known) >= _MODELS_KEPT:
                self._known = {}
            known = self._known[model] = self._find(model)
        return known

    def _names(self, model: str) -> list[str]:
        """The narrowest first."""
        exact = [model] if model in self._by_name and not is_pattern(model) else []
        return exact + [name for name, pattern in self._patterns if pattern.fullmatch(model)]

    def _find(self, model: str) -> _Times:
        names = self._names(model)
        starts = sorted({version.starts_at for name in names for version in self._by_name[name]})
        return _Times(starts, [self._in_force(names, when) for when in starts])

    def _in_force(self, names: Sequence[str], when: datetime) -> _InForce | None:
        for name in names:
            version = self._exact_at(name, when)
            if version is not None and version.prices is not None:
                prices = version.prices
                is_by_piece = bool(prices.image_micros or prices.audio_second_micros)
                return _InForce(version, prices, meter_of(prices), asks_for_usage(prices), is_by_piece)
        return None


def current_of(versions: Iterable[PriceVersion], now: datetime) -> set[int]:
    """Of each name the id of its newest version that has begun. `versions`: of each name the oldest first."""
    return set({version.model: version.id for version in versions if version.starts_at <= now}.values())


def _narrowest_first(pattern: str) -> tuple[int, str]:
    return -len(pattern.replace("*", "")), pattern


def _expression(pattern: str) -> str:
    """Only * stands for anything: a name may hold ? and [."""
    return translate("".join(f"[{char}]" if char in "?[" else char for char in pattern))
