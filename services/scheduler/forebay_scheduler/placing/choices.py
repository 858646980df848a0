"""What placing decided for one request, and what it considered. Kept for whoever asks why."""

from __future__ import annotations

from typing import NamedTuple

from forebay_scheduler.placing.station import Station
from forebay_scheduler.request import BackendId
from forebay_scheduler.terms import PlacementPolicy


class Candidate(NamedTuple):
    """One backend that was considered, and what it would have cost, in seconds."""

    backend: BackendId
    total_s: float
    wait_s: float
    load_model_s: float
    prefill_s: float
    slow_decode_s: float
    failure_s: float
    guard_s: float
    cached_tokens: int
    free_slots: int


Scored = tuple[Station, float, float, float, float, float, float, float, int, int]
"""As `Candidate`, with the station itself. Naming the fields of twelve of them costs more than the whole choice."""


class Choice:
    __slots__ = (
        "cached_tokens",
        "considered",
        "load_model",
        "policy",
        "prefill_s",
        "station",
        "ttft_s",
        "victim",
        "wait_s",
    )

    def __init__(
        self, policy: PlacementPolicy, chosen: Scored, considered: list[Scored], victim: str | None = None
    ) -> None:
        self.policy = policy
        self.station = chosen[0]
        self.wait_s = chosen[2]
        self.prefill_s = chosen[4]
        self.ttft_s = chosen[2] + chosen[3] + chosen[4]
        """Predicted: what the first token waits for. Risks and guards are not in it."""
        self.load_model = chosen[3] > 0.0
        self.cached_tokens = chosen[8]
        self.considered = considered
        self.victim = victim
        """The model that is to make room for it."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(Candidate(scored[0].id, *scored[1:]) for scored in self.considered)
