"""Who holds which slots by which lease. Pure.

Only live grants: what dead gateways may still run is `quarantine`'s, what living ones may begin alone is `lending`'s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator

from forebay_scheduler.decision_log import Story
from forebay_scheduler.fairness.fair_queue import Charge
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.station import Station
from forebay_scheduler.request import BackendId, Lease, LedgerId, Process, Request

_STARTED_AFTER_S = 1.0
"""A grant that was this old when an engine counted was running there: a gateway starts a request within milliseconds."""


class Held:
    """A live grant: this many slots (the request's width) of this backend are in use by this gateway process."""

    __slots__ = (
        "attempt",
        "backend",
        "charge",
        "choice",
        "completion_tokens",
        "first_token_at",
        "is_cut",
        "is_ended",
        "is_told",
        "lease",
        "process",
        "request",
        "since",
        "station",
        "story",
        "tokens",
    )

    def __init__(
        self,
        request: Request,
        backend: BackendId,
        lease: Lease,
        attempt: int,
        process: Process,
        since: float,
        charge: Charge,
        tokens: int,
        *,
        station: Station | None = None,
        choice: Choice | None = None,
        story: Story | None = None,
        is_told: bool = True,
    ) -> None:
        self.request = request
        self.backend = backend
        self.lease = lease
        self.attempt = attempt
        self.process = process
        self.since = since
        self.charge = charge
        self.tokens = tokens
        """Prompt and expected output: its part of the backend's cache."""
        self.station = station
        """None when its backend left the fleet."""
        self.story = story
        """For whoever asks later."""
        self.choice = choice
        """None for what another leader placed, or the gateway itself."""
        self.is_told = is_told
        """False while the grant waits for its gateway's ceiling to be raised."""
        self.is_cut = False
        """Its gateway was told to end it."""
        self.is_ended = False
        """Its gateway was told to end it, whatever of it has been sent."""
        self.first_token_at: float | None = None
        self.completion_tokens = 0

    @property
    def slots(self) -> int:
        return self.request.width

    def ran_at(self, at: float) -> bool:
        """Whether its engine certainly had it at that moment."""
        return self.is_told and (
            self.since <= at - _STARTED_AFTER_S or (self.first_token_at is not None and self.first_token_at < at)
        )


class Holds:
    def __init__(self) -> None:
        self._live: dict[LedgerId, Held] = {}
        self._of: defaultdict[Process, dict[LedgerId, Held]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._live.values())

    def get(self, ledger_id: LedgerId) -> Held | None:
        return self._live.get(ledger_id)

    def of(self, process: Process) -> list[Held]:
        return list(self._of[process].values()) if process in self._of else []

    def count_of(self, process: Process) -> int:
        return len(self._of[process]) if process in self._of else 0

    def take(self, held: Held) -> None:
        ledger_id = held.request.ledger_id
        assert ledger_id not in self._live, "a request is held once"
        self._live[ledger_id] = held
        self._of[held.process][ledger_id] = held

    def give_back(self, held: Held) -> None:
        ledger_id = held.request.ledger_id
        del self._live[ledger_id]
        mine = self._of[held.process]
        del mine[ledger_id]
        if not mine:
            del self._of[held.process]

    def running_at(self, backend: BackendId, at: float, heard: Container[Process] | None = None) -> int:
        """Slots of a backend whose requests were certainly running there at that moment. Asked for quarantines only.

        `heard`: those who have spoken since, and would have told of an end. None: all have."""
        return sum(
            held.slots
            for held in self
            if held.backend == backend and held.ran_at(at) and (heard is None or held.process in heard)
        )
