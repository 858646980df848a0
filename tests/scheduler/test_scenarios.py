"""Stories of the scheduler as text: commands, a line of dashes, what was decided.

A story is changed by editing its commands and running with FOREBAY_REWRITE_SCENARIOS=1; then the difference is reviewed.
`scenarios/README.md` has the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Claim,
    Epoch,
    GatewayName,
    GroupId,
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
from forebay_scheduler.saved import NOTHING_SAVED, SavedState
from forebay_scheduler.terms import (
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    Period,
    PlacementPolicy,
    PoolTerms,
    UserTerms,
)

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
REWRITE = "FOREBAY_REWRITE_SCENARIOS"
RULES = Rules(placing=PlacingRules(explored=0.0, jitter=0.0))
"""Nothing is left to chance: of equal backends the first is taken."""


AS_EXPECTED = 256
"""Completion tokens: what is expected of a model of which nothing is known yet."""
MORNING_US = 1_767_258_000 * 1_000_000
"""Thursday, 1 January 2026, 9:00 UTC: when every story begins."""


class Story:
    """Runs one scenario's commands against a policy on a clock of its own."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._wall_us = MORNING_US
        self._term = 1
        self._policy = Policy(RULES, Epoch(1, 1), self._now, wall_us=self._wall_us)
        self._backends: dict[str, Backend] = {}
        self._sessions: dict[str, SessionId] = {}
        self._names: dict[SessionId, str] = {}
        self._requests: dict[str, Request] = {}
        self._gateway_of: dict[str, str] = {}
        self._generations: dict[str, int] = {}
        self._last_grant: dict[str, de.Grant] = {}
        self._lent: dict[str, de.CreditLent] = {}
        self._used: dict[str, Used] = {}
        """What each request had used, when its end was told."""
        self._policy_said: list[ev.PolicyChanged] = []
        self._stored: dict[int, tuple[float, tuple[de.StoredCeilings, ...]]] = {}
        """What the bus holds of ceilings, by shard, and since when."""
        self._state: SavedState = NOTHING_SAVED
        """The last state that the bus holds."""
        self._believed: dict[tuple[str, BackendId], int] = {}
        """The ceilings that each gateway goes by."""
        self._bus_is_away = False

    def run(self, line: str) -> list[str]:
        verb, *words = line.split()
        command: Callable[[list[str], dict[str, str]], list[str]] = getattr(self, f"do_{verb}")
        options = dict(word.split("=", 1) for word in words if "=" in word)
        return command([word for word in words if "=" not in word], options)

    # -- commands

    def do_backend(self, names: list[str], options: dict[str, str]) -> list[str]:
        for name in names:
            running = options.get("running")
            models = options.get("models", "m").split(",")
            loaded = options.get("loaded")
            self._backends[name] = Backend(
                BackendId(name),
                PoolName(options.get("pool", "default")),
                frozenset(models),
                int(options.get("slots", 1)),
                healthy=options.get("healthy", "yes") == "yes",
                enabled=options.get("enabled", "yes") == "yes",
                running=None if running is None else int(running),
                measured_at=self._now,
                models_at_once=int(options["at_once"]) if "at_once" in options else None,
                facts={} if loaded is None else {m: ModelFacts(is_loaded=m in loaded.split(",")) for m in models},
            )
        return self._apply(ev.FleetChanged(tuple(self._backends.values())))

    def do_remove(self, names: list[str], options: dict[str, str]) -> list[str]:
        for name in names:
            del self._backends[name]
        return self._apply(ev.FleetChanged(tuple(self._backends.values())))

    def do_hello(self, names: list[str], options: dict[str, str]) -> list[str]:
        gateway = names[0]
        session = SessionId(len(self._names) + 1)
        held = [name for name in options.get("held", "").split(",") if name]
        queued = [name for name in options.get("queued", "").split(",") if name]
        hello = ev.SessionOpened(
            session,
            GatewayName(gateway),
            int(options.get("generation", 1)),
            claims=tuple(self._claim(name) for name in held),
            queued=tuple(self._requests[name] for name in queued),
            ceilings=tuple((b, slots) for (of, b), slots in self._believed.items() if of == gateway and slots),
            settles=tuple(
                replace(self._settle(name, session, {}), request=self._requests[name])
                for name in options.get("ended", "").split(",")
                if name
            ),
        )
        if int(options.get("generation", 1)) > self._generations.get(gateway, 1):
            hello = replace(hello, ceilings=())  # another process: it was told nothing yet
        self._generations[gateway] = max(int(options.get("generation", 1)), self._generations.get(gateway, 1))
        self._names[session] = gateway
        if "keep" not in options:
            self._sessions[gateway] = session
        return self._apply(hello)

    def do_submit(self, names: list[str], options: dict[str, str]) -> list[str]:
        gateway, user, *ids = names
        submits = []
        for word in ids:
            name, _, width = word.partition("*")
            request = self._request(gateway, user, name, int(width or 1), options)
            submits.append(ev.Submit(self._sessions[gateway], request))
        return self._apply(*submits)

    def _request(self, gateway: str, user: str, name: str, width: int, options: dict[str, str]) -> Request:
        self._gateway_of[name] = gateway
        self._requests[name] = Request(
            LedgerId(name.encode()),
            UserId(user),
            options.get("model", "m"),
            self._now - float(options.get("age", 0)),
            pool=PoolName(options.get("pool", "default")),
            band=Band(options.get("band", "standard")),
            width=width,
            deadline_s=float(options["deadline"]) if "deadline" in options else None,
            key=KeyId(options.get("key", f"key-of-{user}")),
            prompt_tokens=int(options.get("prompt", 100)),
            prefix_hashes=[int(block) for block in options.get("prefix", "").split(",") if block],
        )
        return self._requests[name]

    def do_beat(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.Beat(self._sessions[name], 1) for name in names))

    def do_start(self, names: list[str], options: dict[str, str]) -> list[str]:
        """On the credit that its gateway was lent last."""
        gateway, user, *ids = names
        lent = self._lent[gateway]
        started = []
        for number, name in enumerate(ids):
            lease_seq = lent.first_lease + number
            request = self._request(gateway, user, name, 1, options)
            started.append(ev.CreditStarted(self._sessions[gateway], lent.id, lease_seq, request, lent.backend))
            lease = Lease(self._policy.epoch, lease_seq)
            self._last_grant[name] = de.Grant(
                self._sessions[gateway], request.ledger_id, lent.backend, 1, lease, 1, queued_s=0.0
            )
        return self._apply(*started)

    def do_return(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.CreditReturned(self._sessions[name], self._lent[name].id) for name in names))

    def do_cancel(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.Cancel(self._session_of(name), LedgerId(name.encode())) for name in names))

    def do_first(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.FirstToken(self._session_of(name), LedgerId(name.encode())) for name in names))

    def do_next(self, names: list[str], options: dict[str, str]) -> list[str]:
        """So many times, what has run for longest ends: what starts, in order."""
        started: list[str] = []
        for _ in range(int(names[0])):
            held = min(self._policy.dispatch.holds, key=lambda held: held.lease)
            name = held.request.ledger_id.decode()
            told = self._apply(self._settle(name, self._session_of(name), options), quiet=True)
            started += [line.split()[1] for line in told if line.startswith("grant")]
        self._store_state()
        return [f"in turn: {' '.join(started) or 'nobody'}"]

    def do_settle(self, names: list[str], options: dict[str, str]) -> list[str]:
        """The state is stored right after, so that the ends are confirmed; not with `stored=no`."""
        told = self._apply(
            *(self._settle(name, self._session_of(name), options) for name in names),
            quiet=True,
        )
        return told + (self._store_state() if options.get("stored") != "no" else []) or ["nothing"]

    def _settle(self, name: str, session: SessionId, options: dict[str, str]) -> ev.Settle:
        lease = self._last_grant[name].lease
        if options.get("epoch") == "wrong":
            lease = Lease(Epoch(lease.epoch.term_us, lease.epoch.revision + 7), lease.seq)
        if "tokens" in options or name not in self._used:
            prompt = int(options.get("prompt", self._requests[name].prompt_tokens))
            self._used[name] = Used(prompt, int(options.get("cached", 0)), int(options.get("tokens", AS_EXPECTED)))
        return ev.Settle(session, LedgerId(name.encode()), lease, used=self._used[name])

    def _store_state(self) -> list[str]:
        if self._bus_is_away:
            return []
        number, state = self._policy.save()
        self._state = replace(state, stored_at_us=self._wall_us)
        return self._apply(ev.StateStored(number), quiet=True)

    def do_nack(self, names: list[str], options: dict[str, str]) -> list[str]:
        cause = ev.NackCause(options.get("cause", "unreachable"))
        return self._apply(
            *(
                ev.Nack(self._session_of(name), LedgerId(name.encode()), self._last_grant[name].lease.seq, cause)
                for name in names
            )
        )

    def do_lose(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(ev.SessionLost(self._sessions[names[0]]))

    def do_dead(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(ev.GatewayDied(GatewayName(names[0]), int(options.get("generation", 1))))

    def do_bye(self, names: list[str], options: dict[str, str]) -> list[str]:
        self._believed = {at: slots for at, slots in self._believed.items() if at[0] != names[0]}
        return self._apply(ev.GatewayLeft(self._sessions[names[0]]))

    def do_heard(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.Heard(self._sessions[name]) for name in names))

    def do_remove_user(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._say_policy(ev.PolicyChanged(removed=tuple(UserId(name) for name in names)))

    def do_user(self, names: list[str], options: dict[str, str]) -> list[str]:
        terms = tuple(
            UserTerms(
                UserId(name),
                GroupId(options["group"]) if "group" in options else None,
                weight=float(options.get("weight", 1)),
                max_queued=int(options["queued"]) if "queued" in options else None,
                limits=_limits(options),
                is_paused=options.get("paused", "no") == "yes",
            )
            for name in names
        )
        return self._say_policy(ev.PolicyChanged(terms))

    def do_group(self, names: list[str], options: dict[str, str]) -> list[str]:
        terms = tuple(
            GroupTerms(
                GroupId(name),
                GroupId(options["parent"]) if "parent" in options else None,
                weight=float(options.get("weight", 1)),
                limits=_limits(options),
                is_paused=options.get("paused", "no") == "yes",
            )
            for name in names
        )
        return self._say_policy(ev.PolicyChanged(groups=terms))

    def do_key(self, names: list[str], options: dict[str, str]) -> list[str]:
        user, weight = UserId(options["user"]), float(options.get("weight", 1))
        terms = tuple(KeyTerms(KeyId(name), user, weight=weight, limits=_limits(options)) for name in names)
        return self._say_policy(ev.PolicyChanged(keys=terms))

    def do_pool(self, names: list[str], options: dict[str, str]) -> list[str]:
        terms = tuple(
            PoolTerms(
                PoolName(name),
                PlacementPolicy(options.get("placement", "expected_ttft")),
                locality_window=int(options["window"]) if "window" in options else None,
            )
            for name in names
        )
        return self._say_policy(ev.PolicyChanged(pools=terms))

    def _say_policy(self, changed: ev.PolicyChanged) -> list[str]:
        self._policy_said.append(changed)
        return self._apply(changed)

    def do_drain(self, names: list[str], options: dict[str, str]) -> list[str]:
        deadline_s = float(options["deadline"]) if "deadline" in options else None
        return self._apply(*(ev.DrainAsked(BackendId(b), deadline_s, options.get("undo") == "yes") for b in names))

    def do_progress(self, names: list[str], options: dict[str, str]) -> list[str]:
        tokens = int(options["tokens"])
        return self._apply(*(ev.Progress(self._session_of(name), LedgerId(name.encode()), tokens) for name in names))

    def do_bus(self, names: list[str], options: dict[str, str]) -> list[str]:
        """`bus away` and `bus back`."""
        self._bus_is_away = names == ["away"]
        return self._apply(ev.BusChanged(self._bus_is_away))

    def do_wait(self, names: list[str], options: dict[str, str]) -> list[str]:
        """Second by second; `heard=` names gateways that keep speaking."""
        speaking = [name for name in options.get("heard", "").split(",") if name]
        told: list[str] = []
        left = _seconds(names[0])
        while left > 0:
            step = min(1.0, left)
            left -= step
            told += self._pass(step, *(ev.Heard(self._sessions[name]) for name in speaking))
            told += self._store_state()
        return told or ["nothing"]

    def do_sleep(self, names: list[str], options: dict[str, str]) -> list[str]:
        """The scheduler's own process does nothing for so long."""
        return self._pass(_seconds(names[0])) or ["nothing"]

    def do_clock(self, names: list[str], options: dict[str, str]) -> list[str]:
        """The clock on the wall is set: `clock +3h`, `clock -1h`."""
        self._wall_us += round(_seconds(names[0]) * 1_000_000)
        return self._apply(ev.Tick(self._wall_us))

    def _pass(self, seconds: float, *heard: ev.Event) -> list[str]:
        self._now += seconds
        self._wall_us += round(seconds * 1_000_000)
        return self._apply(*heard, ev.Tick(self._wall_us), quiet=True)

    def do_new_leader(self, names: list[str], options: dict[str, str]) -> list[str]:
        """The leader died, and another starts from what the bus holds: ceilings, and the last state that was stored."""
        self._term += 1
        stored = [
            replace(one, silent_s=one.silent_s + self._now - at) for at, shard in self._stored.values() for one in shard
        ]
        self._policy = Policy(
            RULES,
            Epoch(1, self._term),
            self._now,
            recovered=stored,
            state=replace(self._state, wall_us=self._wall_us),
            wall_us=self._wall_us,
        )
        self._sessions.clear()
        return self._apply(ev.FleetChanged(tuple(self._backends.values())), *self._policy_said)

    def do_ceilings(self, names: list[str], options: dict[str, str]) -> list[str]:
        """What each gateway goes by."""
        return [
            f"{gateway} may hold {slots} on {backend}"
            for (gateway, backend), slots in sorted(self._believed.items())
            if slots
        ] or ["nobody may hold anything"]

    def do_budgets(self, names: list[str], options: dict[str, str]) -> list[str]:
        return [
            f"{one.subject}: {one.spent} spent, {one.reserved} reserved, of {one.amount}"
            for one in self._policy.dispatch.limits.budgets()
        ] or ["no budgets"]

    def do_show(self, names: list[str], options: dict[str, str]) -> list[str]:
        slots = [
            f"{s.id}: {s.used} held, {self._policy.quarantined_on(s.id)} in quarantine, of {s.facts.slots}"
            for s in self._policy.dispatch.stations
        ]
        waiting = [request.ledger_id.decode() for request in self._policy.queued()]
        return [*slots, f"waiting: {' '.join(waiting) or 'nobody'}"]

    # -- in and out

    def _session_of(self, name: str) -> SessionId:
        return self._sessions[self._gateway_of[name]]

    def _claim(self, name: str) -> Claim:
        grant = self._last_grant[name]
        return Claim(self._requests[name], grant.backend, grant.lease, grant.attempt)

    def _apply(self, *events: ev.Event, quiet: bool = False) -> list[str]:
        told: list[str] = []
        decisions = self._policy.apply(events, self._now)
        while decisions:
            told += self._tell(decisions)
            decisions = [again for decision in decisions for again in self._answer(decision)]
        return told if told or quiet else ["nothing"]

    def _answer(self, decision: de.Decision) -> list[de.Decision]:
        """The bus stores what it is told, and gateways acknowledge their ceilings, at once."""
        match decision:
            case de.StoreCeilings(ticket, shards) if not self._bus_is_away:
                self._stored.update({number: (self._now, tuple(shard)) for number, shard in shards.items()})
                return self._policy.apply((ev.CeilingsStored(ticket),), self._now)
            case de.CeilingTold(session, backend, _, slots, version):
                gateway = self._names[session]
                self._believed[gateway, backend] = slots
                held = sum(
                    held.slots
                    for held in self._policy.dispatch.holds
                    if held.process[0] == gateway and held.backend == backend and held.is_told
                )
                return self._policy.apply((ev.CeilingAcked(session, backend, version, held),), self._now)
        return []

    def _tell(self, decisions: list[de.Decision]) -> Iterator[str]:
        for decision in decisions:
            match decision:
                case de.Grant(_, ledger_id, backend, attempt):
                    self._last_grant[ledger_id.decode()] = decision
                    yield f"grant {ledger_id.decode()} on {backend}" + (f", attempt {attempt}" if attempt > 1 else "")
                case de.Reject(_, ledger_id, reason, retry_after_s):
                    when = "" if retry_after_s is None else f", retry in {retry_after_s:.0f} s"
                    yield f"reject {ledger_id.decode()}: {reason}{when}"
                case de.Revoke(_, ledger_id, reason):
                    yield f"revoke {ledger_id.decode()}: {reason}"
                case de.Cutoff(_, ledger_id, reason):
                    yield f"cut off {ledger_id.decode()}: {reason}"
                case de.Settled(_, ledger_id):
                    yield f"settled {ledger_id.decode()}"
                case de.SessionEnded(session, message):
                    yield f"end session of {self._names[session]}: {message}"
                case de.Orphan(request, gateway):
                    yield f"orphan {request.ledger_id.decode()} of {gateway}"
                case de.CreditLent(session, _, backend, _, model, slots, is_recall=is_recall):
                    self._lent[self._names[session]] = decision
                    lent = f"{slots} on {backend} for {model}"
                    yield (
                        f"recall {lent} from {self._names[session]}"
                        if is_recall
                        else f"lend {lent} to {self._names[session]}"
                    )


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def _limits(options: dict[str, str]) -> Limits:
    period = Period(options.get("period", "ever"))
    budgets = (Budget("b1", BudgetUnit.TOKENS, int(options["budget"]), period),) if "budget" in options else ()
    return Limits(
        requests_per_minute=int(options["requests"]) if "requests" in options else None,
        tokens_per_minute=int(options["tokens"]) if "tokens" in options else None,
        concurrency=int(options["concurrency"]) if "concurrency" in options else None,
        budgets=budgets,
    )


def play(text: str) -> str:
    """The text with its results as they are."""
    story = Story()
    blocks = []
    for block in text.strip().split("\n\n"):
        commands, _, _ = block.partition("\n----")
        results = [
            line for command in commands.splitlines() if not command.startswith("#") for line in story.run(command)
        ]
        is_prose = all(line.startswith("#") for line in commands.splitlines())
        blocks.append(commands if is_prose else "\n".join([commands, "----", *results]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_story_goes_as_written(scenario: Path) -> None:
    written = scenario.read_text()
    played = play(written)
    if os.environ.get(REWRITE):
        scenario.write_text(played)
    assert played == written or os.environ.get(REWRITE), played
