"""Ours, in virtual time: the very `Policy` that the service runs, and one gateway that answers it without delay.

The gateway double does what a gateway does: it submits, begins what is granted, tells first tokens and progress, settles
with what the engine counted, and acknowledges its ceilings. It knows prompts' lengths as well as a tokenizer would, and
nothing of the answers' lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.decisions import CeilingTold, Decision, Grant, Reject, StoreCeilings
from forebay_scheduler.placing.station import Station
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Epoch,
    GatewayName,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.simulator.discipline import Sent
from forebay_scheduler.simulator.engines import Engine
from forebay_scheduler.simulator.jobs import Job, Workload
from forebay_scheduler.terms import UserTerms

SESSION = SessionId(1)
POOL = PoolName("default")
_BEAT_S = 0.25
"""How often the gateway tells progress, and the core the time."""
_PROGRESS_TOKENS = 64
"""Or at each such number of tokens, whichever comes first. Where shares do not matter only the latter: it is less work."""
_PATIENT = {band: 1e9 for band in Band}
"""Everything that is asked is served in the end, by every discipline: refusals would make them differ."""
PATIENT_RULES = Rules(queue_per_user=10**9, queue_per_pool=10**9, queue_timeout_s=_PATIENT, attempts=100, explained=1)


class Product:
    name = "forebay"

    def __init__(self, seed: int, rules: Rules = PATIENT_RULES, *, window: int | None = None) -> None:
        """`window` of locality; None as it ships."""
        self._seed = seed
        self._rules = rules if window is None else replace(rules, locality_window=window)

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self._workload = workload
        self._engines = engines
        self._index = {BackendId(f"engine-{engine.index:03}"): engine.index for engine in engines}
        self._waiting: dict[LedgerId, Job] = {}
        self._running: dict[LedgerId, tuple[Job, Lease, BackendId]] = {}
        self._told: dict[LedgerId, int] = {}
        self._next_beat = _BEAT_S
        self._policy = Policy(self._rules, Epoch(1, 1), 0.0, seed=self._seed)
        self._is_asked = workload.engines_say_what_fits
        if self._is_asked:
            self._ask_engines()
        users = tuple(
            UserTerms(UserId(f"user-{user}"), weight=workload.weight(user))
            for user in range(workload.users)
            if workload.weight(user) != 1
        )
        opening: list[ev.Event] = [
            ev.SessionOpened(SESSION, GatewayName("gateway"), 1),
            ev.FleetChanged(tuple(self._backend(engine, 0.0) for engine in engines)),
        ]
        if users:
            opening.append(ev.PolicyChanged(users=users))
        self._say(opening, 0.0)

    def _backend(self, engine: Engine, now: float) -> Backend:
        model = engine.model
        facts = {}
        if model.models_at_once is not None:
            facts = {
                name: ModelFacts(slots=model.sequences_per_model, is_loaded=name in engine.loaded)
                for name in model.models
            }
        cache = model.cache_blocks * model.block_tokens
        return Backend(
            id=BackendId(f"engine-{engine.index:03}"),
            pool=POOL,
            models=frozenset(model.models),
            slots=model.max_sequences,
            healthy=not engine.is_down,
            slots_assumed=not self._workload.are_limits_known,
            kv_tokens=self._kv_tokens(model.kv_tokens or cache),
            models_at_once=model.models_at_once,
            facts=facts,
            measured_at=now,
        )

    def _kv_tokens(self, pool: int) -> int | None:
        if self._workload.engines_say_what_fits:
            return 1000 * pool  # never the obstacle
        return pool if pool and self._workload.are_limits_known else None

    def _ask_engines(self) -> None:
        """What a backend has room for is the engine's word, for one request at a time, at its next step. All else that the
        core asks of a backend it asks still."""
        stations, engines, index, waiting = self._policy.dispatch.stations, self._engines, self._index, self._waiting

        def fits_in_cache(station: Station, request: Request) -> bool:
            engine = engines[index[station.id]]
            return station.running == engine.in_flight and not engine.queue and engine.fits(waiting[request.ledger_id])

        stations.fits_in_cache = fits_in_cache

    def offer(self, engine: Engine, now: float) -> Sent:
        if not self._is_asked or not self._waiting:
            return ()
        station = self._policy.dispatch.stations.get(BackendId(f"engine-{engine.index:03}"))
        assert station is not None, "the fleet stays as it is"
        self._policy.dispatch.slots.roomy[station] = None
        return self._say((ev.Heard(SESSION),), now)

    # -- what happens, in the words of the core -----------------------------------------------------------------------

    def arrive(self, job: Job, now: float) -> Sent:
        request = Request(
            ledger_id=LedgerId(job.number.to_bytes(16, "big")),
            user=UserId(f"user-{job.user}"),
            model=job.model,
            arrived_at=now,
            band=job.band,
            key=KeyId(f"key-{job.user}"),
            prompt_tokens=job.prompt_tokens,
            prefix_hashes=job.blocks[:64],
        )
        self._waiting[request.ledger_id] = job
        return self._say((ev.Submit(SESSION, request),), now)

    def first_token(self, job: Job, now: float) -> Sent:
        ledger_id = LedgerId(job.number.to_bytes(16, "big"))
        return self._say((ev.FirstToken(SESSION, ledger_id, now - job.granted_at),), now)

    def end(self, job: Job, now: float) -> Sent:
        ledger_id = LedgerId(job.number.to_bytes(16, "big"))
        _, lease, _ = self._running.pop(ledger_id)
        self._told.pop(ledger_id, None)
        written = job.output_tokens if not job.is_failed else 0
        used = Used(job.prompt_tokens, job.cached_tokens, written)
        settle = ev.Settle(SESSION, ledger_id, lease, is_success=not job.is_failed, used=used)
        return self._say((settle,), now)

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        ledger_id = LedgerId(job.number.to_bytes(16, "big"))
        _, lease, _ = self._running.pop(ledger_id)
        self._waiting[ledger_id] = job
        nack = ev.Nack(SESSION, ledger_id, lease.seq, ev.NackCause.FAILED)
        return self._say((nack, self._fleet(now)), now)

    def up(self, engine: int, now: float) -> Sent:
        return self._say((self._fleet(now),), now)

    def _fleet(self, now: float) -> ev.FleetChanged:
        return ev.FleetChanged(tuple(self._backend(engine, now) for engine in self._engines))

    def room(self, engine: Engine, now: float) -> Job | None:
        return None

    def progress(self, tokens: Mapping[int, int], engine: Engine, now: float) -> Sent:
        return ()

    def wakes_at(self) -> float:
        return self._next_beat if self._waiting or self._running else float("inf")

    def wake(self, now: float) -> Sent:
        self._next_beat = now + _BEAT_S
        happened: list[ev.Event] = [ev.Heard(SESSION)]
        least = 1 if self._workload.is_about_fairness else _PROGRESS_TOKENS
        for ledger_id, (job, _, _) in self._running.items():
            if job.ends_at_step:
                written = self._engines[job.engine].written(job)
                if written >= self._told.get(ledger_id, 0) + least:
                    self._told[ledger_id] = written
                    happened.append(ev.Progress(SESSION, ledger_id, written))
        happened.append(ev.Tick())
        return self._say(happened, now)

    def waiting(self) -> int:
        return len(self._waiting)

    # -- what is decided ----------------------------------------------------------------------------------------------

    def _say(self, told: Sequence[ev.Event], now: float) -> list[tuple[Job, int]]:
        """Tell the core, and answer it until it asks nothing more."""
        sent: list[tuple[Job, int]] = []
        happened = list(told)
        while happened:
            happened = self._answer(self._policy.apply(happened, now), sent)
        return sent

    def _answer(self, decisions: Sequence[Decision], sent: list[tuple[Job, int]]) -> list[ev.Event]:
        answers: list[ev.Event] = []
        for decision in decisions:
            if isinstance(decision, Grant):
                job = self._waiting.pop(decision.ledger_id)
                self._running[decision.ledger_id] = job, decision.lease, decision.backend
                sent.append((job, self._index[decision.backend]))
            elif isinstance(decision, StoreCeilings):
                answers.append(ev.CeilingsStored(decision.ticket))
            elif isinstance(decision, CeilingTold):
                held = sum(backend == decision.backend for _, _, backend in self._running.values())
                answers.append(ev.CeilingAcked(SESSION, decision.backend, decision.version, held))
            elif isinstance(decision, Reject):
                raise RuntimeError(f"refused, though it may wait for ever: {decision.reason}: {decision.message}")
        return answers
