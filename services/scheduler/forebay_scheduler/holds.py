"""Who holds how many slots where: the one truth about slots. Pure.

A slot is held by a live grant, kept back for a gateway of the last snapshot that has not spoken yet, or in quarantine.
The sum never passes a backend's cap, except when the cap is lowered below it or a gateway claims more than was known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from forebay_scheduler.backend import Backend, Fleet
from forebay_scheduler.quarantine import Quarantine, Quarantined
from forebay_scheduler.request import BackendId, GatewayName, Held, Holding, LedgerId
from forebay_scheduler.rules import Rules

_STARTED_AFTER_S = 1.0
"""A grant that was this old when an engine counted was running there: a gateway starts a request within milliseconds."""


class Holds:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._live: dict[LedgerId, Held] = {}
        self._live_slots: defaultdict[BackendId, int] = defaultdict(int)
        self._kept_back: dict[tuple[GatewayName, int], dict[BackendId, int]] = {}
        self._quarantine = Quarantine()

    def __iter__(self) -> Iterator[Held]:
        return iter(self._live.values())

    def get(self, ledger_id: LedgerId) -> Held | None:
        return self._live.get(ledger_id)

    def of(self, gateway: GatewayName, generation: int) -> list[Held]:
        return [held for held in self if (held.gateway, held.generation) == (gateway, generation)]

    def live_on(self, backend: BackendId) -> int:
        return self._live_slots.get(backend, 0)

    def quarantined_on(self, backend: BackendId) -> int:
        """Those in quarantine and those kept back."""
        kept_back = sum(slots.get(backend, 0) for slots in self._kept_back.values())
        return self._quarantine.slots_on(backend) + kept_back

    def free(self, backend: Backend) -> int:
        return backend.slots - self.live_on(backend.id) - self.quarantined_on(backend.id)

    def take(self, held: Held) -> None:
        self.give_back(held.request.ledger_id)
        self._live[held.request.ledger_id] = held
        self._live_slots[held.backend] += held.slots

    def give_back(self, ledger_id: LedgerId) -> Held | None:
        held = self._live.pop(ledger_id, None)
        if held is not None:
            self._live_slots[held.backend] -= held.slots
            if not self._live_slots[held.backend]:
                del self._live_slots[held.backend]
        return held

    def note_first_token(self, held: Held, now: float) -> None:
        self._live[held.request.ledger_id] = replace(held, first_token_at=now)

    def note_progress(self, held: Held, completion_tokens: int) -> None:
        self._live[held.request.ledger_id] = replace(held, completion_tokens=completion_tokens)

    def bury(
        self, gateway: GatewayName, generation: int, now: float, *, blind_until: float | None = None
    ) -> list[Held]:
        """This process is dead: its slots go into quarantine. Returns the grants it had."""
        slots = self._kept_back.pop((gateway, generation), {})
        dead = self.of(gateway, generation)
        for held in dead:
            self.give_back(held.request.ledger_id)
            slots[held.backend] = slots.get(held.backend, 0) + held.slots
        for backend, count in slots.items():
            self._quarantine.add(
                Quarantined(
                    backend,
                    count,
                    gateway,
                    generation,
                    since=now,
                    blind_until=now + self._rules.quarantine_blind_s if blind_until is None else blind_until,
                    limit=now + self._rules.quarantine_limit_s,
                )
            )
        return dead

    def keep_back(self, holding: Holding) -> None:
        """A new leader reads that this process held these; what it holds now, only it can say."""
        self._kept_back[holding.gateway, holding.generation] = dict(holding.slots)

    def is_kept_back(self, gateway: GatewayName, generation: int) -> bool:
        return (gateway, generation) in self._kept_back

    def hear_from(self, gateway: GatewayName, generation: int) -> set[BackendId]:
        """That process now says itself what it holds. Returns the backends where something kept for it returns."""
        kept = self._kept_back.pop((gateway, generation), {})
        return set(kept) | self._quarantine.drop(gateway, generation)

    def release(self, fleet: Fleet, now: float) -> set[BackendId]:
        """Quarantined slots that may return do. Returns the backends that have room again."""
        return self._quarantine.release(fleet, self._running_at, now)

    def holdings(self, silent_s: dict[tuple[GatewayName, int], float]) -> list[Holding]:
        """What a successor has to keep back: by process, for the given ones and those whose slots have not returned."""
        slots: dict[tuple[GatewayName, int], dict[BackendId, int]] = {process: {} for process in silent_s}
        for process, backend, count in self._by_process():
            mine = slots.setdefault(process, {})
            mine[backend] = mine.get(backend, 0) + count
        return [
            Holding(*process, mine, silent_s.get(process, 0.0), is_dead=process not in silent_s)
            for process, mine in slots.items()
        ]

    def _by_process(self) -> Iterable[tuple[tuple[GatewayName, int], BackendId, int]]:
        for held in self:
            yield (held.gateway, held.generation), held.backend, held.slots
        for process, slots in self._kept_back.items():
            for backend, count in slots.items():
                yield process, backend, count
        for entry in self._quarantine:
            yield (entry.gateway, entry.generation), entry.backend, entry.slots

    def _running_at(self, backend: BackendId, at: float) -> int:
        return sum(
            held.slots
            for held in self
            if held.backend == backend
            and (held.since <= at - _STARTED_AFTER_S or (held.first_token_at is not None and held.first_token_at < at))
        )
