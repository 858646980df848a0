"""What one webhook is still to be told: in order for each alert, again after a while where it failed, until it is too old.
Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from forebay.webhook import Posted, backoff_s

MOST_WAITING = 5_000
"""Then the oldest goes, with what is to follow it."""
OLDEST_S = 3 * 86_400.0
"""News of three days ago is none."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One event for one webhook."""

    id: str
    """Of the event: a receiver that has had it knows it by this."""
    alert_id: str
    number: int
    """Of the event within its alert."""
    made_at: float
    """Seconds since the epoch."""
    body: bytes
    """JSON."""
    attempts: int = 0


class Outbox:
    def __init__(self, jitter: Callable[[], float]) -> None:
        """`jitter`: between 0 and 1."""
        self._jitter = jitter
        self._lines: dict[str, deque[Letter]] = {}
        """Alert → what is to be told of it, in order."""
        self._due: dict[str, float] = {}
        """Alert → not before, on the clock that never goes back."""
        self._count = 0
        self.failures = 0
        """In a row, of all."""

    def __len__(self) -> int:
        return self._count

    def put(self, letters: Iterable[Letter], now: float) -> list[Letter]:
        """Those that had to go for them."""
        gone: list[Letter] = []
        for letter in letters:
            if self._count >= MOST_WAITING:
                gone += self._drop(next(iter(self._lines)))
            line = self._lines.setdefault(letter.alert_id, deque())
            self._due.setdefault(letter.alert_id, now)
            if all(known.id != letter.id for known in line):
                line.append(letter)
                self._count += 1
        return gone

    def next(self, now: float) -> tuple[Letter | None, float | None]:
        """What to send now; else in how many seconds to ask again. None and None: nothing waits."""
        if not self._due:
            return None, None
        alert_id, due = min(self._due.items(), key=lambda item: item[1])
        return (self._lines[alert_id][0], None) if due <= now else (None, due - now)

    def sent(self, letter: Letter, posted: Posted, now: float, today: float) -> list[Letter]:
        """After a try. What of it is over: it was delivered, or it is given up."""
        line = self._lines.get(letter.alert_id)
        if line is None or line[0].id != letter.id:
            return []
        if posted.is_delivered:
            if self.failures:  # it is there again, so nobody waits for his turn any longer
                self._due = {alert_id: min(due, now) for alert_id, due in self._due.items()}
            self.failures = 0
            return [self._pop(letter.alert_id)]
        self.failures += 1
        if posted.is_gone or today - letter.made_at > OLDEST_S:
            return [self._pop(letter.alert_id)]
        line[0] = replace(letter, attempts=letter.attempts + 1)
        wait_s = backoff_s(letter.attempts + 1) * (0.75 + 0.5 * self._jitter())
        self._due[letter.alert_id] = now + max(wait_s, posted.after_s or 0.0)
        return []

    def _pop(self, alert_id: str) -> Letter:
        line = self._lines[alert_id]
        letter = line.popleft()
        self._count -= 1
        if not line:
            del self._lines[alert_id], self._due[alert_id]
        return letter

    def _drop(self, alert_id: str) -> list[Letter]:
        gone = list(self._lines.pop(alert_id))
        del self._due[alert_id]
        self._count -= len(gone)
        return gone
