"""How this registry stands, and since when: whether it leads, and whether Postgres, NATS and admin are there. One that
stands by answers, too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from forebay.clock import Clock, micros
from forebay.since import Since
from forebay.wire.v1 import status_pb2 as wire
from forebay.wire.v1.status_pb2_grpc import StandingServicer
from forebay_registry.leadership.standing import Stance

METHOD = "/forebay.wire.v1.Standing/ShowStanding"
RIGHTS = {METHOD: frozenset({"admin"})}


class StandingCalls(StandingServicer):
    def __init__(self, clock: Clock, stance: Callable[[], Stance], parts: Mapping[str, Callable[[], bool]]) -> None:
        """`parts`: `postgres`, `nats`, `admin` and `fleet`, each with whether it is there."""
        self._stance = stance
        self._parts = parts
        self._since = Since(clock, {**parts, "standing": lambda: stance().standing})

    def watch(self) -> Coroutine[Any, Any, None]:
        """Until cancelled."""
        return self._since.watch()

    async def ShowStanding(self, request: wire.ShowStandingRequest, context: Any) -> wire.ShowStandingResponse:
        stance = self._stance()
        return wire.ShowStandingResponse(
            standing=stance.standing,
            since_us=self._since_us("standing"),
            leader=stance.leader,
            postgres=self._parts["postgres"](),
            postgres_since_us=self._since_us("postgres"),
            nats=self._parts["nats"](),
            nats_since_us=self._since_us("nats"),
            admin=self._parts["admin"](),
            fleet_known=self._parts["fleet"](),
        )

    def _since_us(self, name: str) -> int:
        return micros(self._since.of(name)[1])
