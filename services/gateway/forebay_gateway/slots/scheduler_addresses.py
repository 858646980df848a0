"""Which of several schedulers to try next. Pure.

One of them leads; a standby says which. Each is tried once in a round, the one that was named first, and rounds follow each
other ever more slowly. Any of them may be away."""

from __future__ import annotations

from collections.abc import Sequence

_FIRST_WAIT_S, _LAST_WAIT_S = 0.05, 0.25
_FIRST_PATIENCE_S, _LAST_PATIENCE_S = 1.0, 5.0


class SchedulerAddresses:
    def __init__(self, addresses: Sequence[str]) -> None:
        """At least one."""
        self._all = tuple(dict.fromkeys(addresses))
        self._wait_s = _FIRST_WAIT_S
        self._patience_s = _FIRST_PATIENCE_S
        self._untried = list(self._all[1:])
        self.current = self._all[0]

    @property
    def patience_s(self) -> float:
        """How long the current one may take to answer. A dead machine must not hold up the others for long, and one that
        is only slow is given more time in every round."""
        return self._patience_s

    def stood(self) -> None:
        """The session with the current one stood for a while."""
        self._wait_s, self._patience_s = _FIRST_WAIT_S, _FIRST_PATIENCE_S
        self._begin_round()

    def failed(self, said: str) -> float:
        """The current one refused, could not be reached, or ended the session with these words. Chooses the next; gives
        the seconds to wait before it is tried."""
        named = self._named(said)
        if named in self._untried:
            self._untried.remove(named)
            self.current = named
            return 0.0
        if self._untried:
            self.current = self._untried.pop(0)
            return 0.0
        wait_s, self._wait_s = self._wait_s, min(_LAST_WAIT_S, self._wait_s * 2)
        self._patience_s = min(_LAST_PATIENCE_S, self._patience_s * 2)
        self.current = named or self._after(self.current)
        self._begin_round()
        return wait_s

    def _begin_round(self) -> None:
        self._untried = [address for address in self._all if address != self.current]

    def _after(self, address: str) -> str:
        return self._all[(self._all.index(address) + 1) % len(self._all)]

    def _named(self, said: str) -> str:
        """One of ours, other than the current one, that the words name; or nothing."""
        words = {word.strip(".,;:!()'\"") for word in said.split()}
        return next((address for address in self._all if address in words and address != self.current), "")
