"""Which waiting request starts when a backend has room: the one whose turn it is, or, within a window, one whose prompt is
cached there. Pure.

Four things keep the one whose turn it is from starting. Its gateway may hold no more, or the backends that have room are
those that have failed it: then others pass. Its prompt and answer are too long for what is left of any cache: then only
those pass who are nearly as little served, or the long ones would starve. Or it is too wide: then one backend is kept until
it has room, since those ahead of it would take each slot as it frees; the price is at most width less one idle slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forebay_scheduler.lines import Line
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.station import Serving, Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import Request

Place = Callable[[Line, Request], Choice | None]
"""Where this one could start now, all things considered."""
Begin = Callable[[Line, Request, Choice, float], None]
"""Start it there; the last is how far ahead of the least served it was, in tokens."""

_FEW = 8
"""Heads among which a cached prefix may win."""
_MANY = 256
"""Heads that are tried when those whose turn it is cannot start. Behind so many that cannot, the next event looks again."""
_ALL = float("inf")


class Matching:
    def __init__(
        self, stations: Stations, place: Place, begin: Begin, is_held_up: Callable[[Request], bool], pass_window: float
    ) -> None:
        """`is_held_up`: its gateway may hold no more somewhere. `pass_window`: how far ahead, in tokens, others may be that
        pass one for which no backend has room enough."""
        self._stations = stations
        self._is_held_up = is_held_up
        self._pass_window = pass_window
        self._place = place
        self._begin = begin

    def fill(self, line: Line, station: Station) -> None:
        """Start what can start on this backend, until it is full or nobody can."""
        queue = line.queue
        while queue:
            if station.kept_for is not None:
                request = queue.get(station.kept_for)
                if request is not None:
                    self._try(line, request, 0.0)
                    return
                self._stations.let_go(station)
            models = [place.model for place in station.place_list if place.is_free or place.is_cold]
            models = [model for model in models if queue.waiting_for(model)]
            if not models or not self._start_one(line, models, station):
                return

    def serve(self, line: Line, model: str, serving: Serving) -> None:
        """Start what waits for this model, wherever there is room."""
        while (serving.free or serving.cold) and line.queue.waiting_for(model):
            if not self._start_one(line, [model], None):
                return

    def _start_one(self, line: Line, models: list[str], station: Station | None) -> bool:
        held = None if station is None or line.window <= 0 else line.placement.held_by(station)
        if held:
            found = line.queue.near(models, line.window, _FEW, held)
            if found is None:
                return False
            first, best, ahead = found
            if best is not first and self._try(line, best, ahead):
                return True
        else:
            heads = line.queue.heads(models, 0.0, 1)
            if not heads:
                return False
            first = heads[0].request
        return self._try(line, first, 0.0) or self._start_another(line, models)

    def _start_another(self, line: Line, models: list[str]) -> bool:
        """The one whose turn it is cannot start: keep a backend for it, or let others pass."""
        cramped: set[str] = set()
        for head in line.queue.heads(models, _ALL, _MANY):
            if head.ahead > self._pass_window and head.request.model in cramped:
                continue
            for request in _those_who_may(line, head.request):
                if self._try(line, request, head.ahead):
                    return True
                if not request.excluded and not self._is_held_up(request):
                    cramped.add(request.model)
                if request.width > 1 and self._stations.kept_for(request) is None:
                    nearest = self._stations.nearest(request)
                    if nearest is not None:
                        self._stations.keep_for(nearest, request)
        return False

    def _try(self, line: Line, request: Request, ahead: float) -> bool:
        choice = self._place(line, request)
        if choice is None:
            return False
        self._begin(line, request, choice, ahead)
        return True


def _those_who_may(line: Line, head: Request) -> Iterator[Request]:
    """The head of a key's line, and what may pass it: those behind one that a backend has failed may use that backend."""
    yield head
    if head.excluded:
        for request in line.queue.behind(head):
            yield request
            if not request.excluded:
                return
