"""Why each of the last requests went where it went: kept in memory, for whoever asks. Pure.

Nothing is worked out here while requests are served: what was decided is kept as it is, and told when somebody asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.request import BackendId, GatewayName, LedgerId, Request


class Attempt:
    """One grant."""

    __slots__ = (
        "ahead",
        "backend",
        "choice",
        "end",
        "is_on_credit",
        "number",
        "queued_s",
        "reserved",
        "settled",
        "ttft_s",
    )

    def __init__(
        self, number: int, backend: BackendId, choice: Choice | None, queued_s: float, reserved: int, ahead: float
    ) -> None:
        self.number = number
        self.backend = backend
        self.choice = choice
        self.queued_s = queued_s
        self.reserved = reserved
        """Milli-tokens of cost, like `settled`."""
        self.ahead = ahead
        """Tokens that it was ahead of the least served, when it was taken for its cached prefix."""
        self.settled: int | None = None
        self.ttft_s: float | None = None
        self.end = ""
        self.is_on_credit = False


class Story:
    """One request, from its arrival to its end."""

    __slots__ = ("attempts", "gateway", "predicted_wait_s", "reason", "request", "state")

    def __init__(self, request: Request, gateway: GatewayName) -> None:
        self.request = request
        self.gateway = gateway
        self.state = "waiting"
        self.reason = ""
        self.predicted_wait_s: float | None = None
        self.attempts: list[Attempt] = []

    def end(self, state: str, reason: str = "", settled: int | None = None) -> None:
        self.state, self.reason = state, reason
        if self.attempts and not self.attempts[-1].end:
            self.attempts[-1].end = state
            self.attempts[-1].settled = settled


class DecisionLog:
    """The last `most` requests, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Not a plain dictionary: finding its oldest entry walks over all that were taken out before.
        self._stories: OrderedDict[LedgerId, Story] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stories)

    def __iter__(self) -> Iterator[Story]:
        return iter(self._stories.values())

    def get(self, ledger_id: LedgerId) -> Story | None:
        return self._stories.get(ledger_id)

    def named(self, request_id: str) -> list[Story]:
        """Newest first: clients may use a request id twice. Looks at all of them: people ask this, not requests."""
        return [story for story in reversed(self._stories.values()) if story.request.request_id == request_id]

    def begin(self, request: Request, gateway: GatewayName) -> Story:
        stories = self._stories
        if len(stories) >= self._most and request.ledger_id not in stories:
            stories.popitem(last=False)
        story = stories[request.ledger_id] = Story(request, gateway)
        return story

    def note_grant(
        self, story: Story, backend: BackendId, choice: Choice | None, queued_s: float, reserved: int, ahead: float
    ) -> None:
        story.state = "running"
        story.attempts.append(Attempt(len(story.attempts) + 1, backend, choice, queued_s, reserved, ahead))

    def note_return(self, ledger_id: LedgerId, why: str) -> None:
        """Its grant was in vain: it waits for another."""
        self.note_end(ledger_id, why, settled=0)
        story = self._stories.get(ledger_id)
        if story is not None:
            story.state = "waiting"

    def note_end(self, ledger_id: LedgerId, state: str, reason: str = "", settled: int | None = None) -> None:
        story = self._stories.get(ledger_id)
        if story is not None:
            story.end(state, reason, settled)
