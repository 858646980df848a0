"""Every component of the pages in every state, for those who write pages and for the tests that look at them. Nothing on
it is true: it asks nobody anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiohttp import web

from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits

_POINTS = 120
_EVERY_S = 60
_NAMES = ("vllm-1", "vllm-2", "ollama-1", "llama-1")
_GAP = range(70, 78)
"""What was not measured is a gap in the lines."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Numbers that look like a day's."""

    spark: tuple[float | None, ...]
    rows: tuple[tuple[float, float], ...]


def sample(now: float) -> Sample:
    spark = tuple(None if index in _GAP else _wave(index, 0.0) for index in range(0, _POINTS, 2))
    rows = tuple((now - (4 - index) * 3600, _wave(index * 9, 0.0)) for index in range(5))
    return Sample(spark, rows)


def plot(now: float) -> dict[str, object]:
    """As every address behind a plot answers."""
    start = now - now % _EVERY_S - (_POINTS - 1) * _EVERY_S
    return {
        "t": [start + index * _EVERY_S for index in range(_POINTS)],
        "series": [
            {
                "label": label,
                "unit": "tok/s",
                "values": [None if i in _GAP else _wave(i, shift) for i in range(_POINTS)],
            }
            for label, shift in (("gemma-3", 0.0), ("qwen-3", 1.4), ("llama-4", 2.9))
        ],
    }


def _wave(index: int, shift: float) -> float:
    return round(60 + 30 * math.sin(index / 11 + shift) + 9 * math.sin(index / 2.3 + 2 * shift), 1)


class StyleguidePages:
    def __init__(self, visits: Visits, live: Live) -> None:
        self._visits = visits
        live.add([Topic("styleguide", self._piece, every_s=1.0)])

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get("/styleguide", self._show),
            self._visits.get("/styleguide/plot.json", self._plot),
            self._visits.get("/styleguide/dialog", self._dialog),
        ]

    async def _show(self, visit: Visit) -> web.StreamResponse:
        query = visit.query.get("q", "")
        return visit.page(
            "styleguide.html",
            title="Style guide",
            sample=sample(visit.now),
            query=query,
            found=[name for name in _NAMES if query.lower() in name],
        )

    async def _piece(self, visit: Visit, _: str) -> str:
        return visit.render("styleguide_live.html")

    async def _dialog(self, visit: Visit) -> web.StreamResponse:
        return visit.page("styleguide_dialog.html", title="Drain gpu-1")

    async def _plot(self, visit: Visit) -> web.StreamResponse:
        return web.json_response(plot(visit.now))
