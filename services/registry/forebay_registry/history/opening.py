"""History, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_registry.backend import NodeId
from forebay_registry.fleet.fleet import View
from forebay_registry.history.calls import HistoryCalls
from forebay_registry.history.grid import Kept
from forebay_registry.history.reading import HistoryReader
from forebay_registry.history.recorder import Recorder, Tally
from forebay_registry.history.store import HistoryStore, Written
from forebay_registry.nodes.samples import Row


class History:
    def __init__(
        self,
        database: Written,
        clock: Clock,
        metrics: Metrics,
        *,
        views: Callable[[], Iterable[View]],
        last_samples: Callable[[], Awaitable[Mapping[NodeId, Row]]],
        minutes_s: float,
        hours_s: float,
        max_series: int,
    ) -> None:
        """`views` may raise Unavailable. `recorder` is for whoever hears and sees, `calls` for whoever asks."""

        def known() -> Iterable[View]:
            try:
                return views()
            except Unavailable:
                return ()

        kept = Kept(minutes_s, hours_s)
        self.recorder = Recorder(
            HistoryStore(database),
            known,
            clock,
            last_samples=last_samples,
            kept=kept,
            max_series=max_series,
            tally=_count(metrics),
        )
        self.calls = HistoryCalls(HistoryReader(database, clock, kept))


def _count(metrics: Metrics) -> Tally:
    return Tally(
        written=metrics.counter("forebay_registry_history_minutes", "Minutes of series written.").child(),
        lost=metrics.counter("forebay_registry_history_lost", "Minutes of series that could not be written.").child(),
        left_out=metrics.counter(
            "forebay_registry_history_left_out", "Readings of series beyond history_max_series."
        ).child(),
    )
