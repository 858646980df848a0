"""Stories of the scheduler as text: commands, a line of dashes, what was decided.

A story is changed by editing its commands and running with FOREBAY_REWRITE_SCENARIOS=1; then the difference is reviewed.
`scenarios/README.md` has the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Claim,
    Epoch,
    GatewayName,
    Holding,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    UserId,
)
from forebay_scheduler.rules import Rules

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
REWRITE = "FOREBAY_REWRITE_SCENARIOS"


class Story:
    """Runs one scenario's commands against a policy on a clock of its own."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._term = 1
        self._policy = Policy(Rules(), Epoch(1, 1), self._now)
        self._backends: dict[str, Backend] = {}
        self._sessions: dict[str, SessionId] = {}
        self._names: dict[SessionId, str] = {}
        self._requests: dict[str, Request] = {}
        self._gateway_of: dict[str, str] = {}
        self._last_grant: dict[str, de.Grant] = {}

    def run(self, line: str) -> list[str]:
        verb, *words = line.split()
        command: Callable[[list[str], dict[str, str]], list[str]] = getattr(self, f"do_{verb}")
        options = dict(word.split("=", 1) for word in words if "=" in word)
        return command([word for word in words if "=" not in word], options)

    # -- commands

    def do_backend(self, names: list[str], options: dict[str, str]) -> list[str]:
        for name in names:
            running = options.get("running")
            self._backends[name] = Backend(
                BackendId(name),
                PoolName(options.get("pool", "default")),
                frozenset(options.get("models", "m").split(",")),
                int(options.get("slots", 1)),
                healthy=options.get("healthy", "yes") == "yes",
                enabled=options.get("enabled", "yes") == "yes",
                running=None if running is None else int(running),
                measured_at=self._now,
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
        )
        self._names[session] = gateway
        if "keep" not in options:
            self._sessions[gateway] = session
        return self._apply(hello)

    def do_submit(self, names: list[str], options: dict[str, str]) -> list[str]:
        gateway, user, *ids = names
        submits = []
        for word in ids:
            name, _, width = word.partition("*")
            self._gateway_of[name] = gateway
            self._requests[name] = Request(
                LedgerId(name.encode()),
                UserId(user),
                options.get("model", "m"),
                self._now - float(options.get("age", 0)),
                pool=PoolName(options.get("pool", "default")),
                band=Band(options.get("band", "standard")),
                width=int(width or 1),
                deadline_s=float(options["deadline"]) if "deadline" in options else None,
            )
            submits.append(ev.Submit(self._sessions[gateway], self._requests[name]))
        return self._apply(*submits)

    def do_cancel(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.Cancel(self._session_of(name), LedgerId(name.encode())) for name in names))

    def do_first(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.FirstToken(self._session_of(name), LedgerId(name.encode())) for name in names))

    def do_settle(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(
            *(
                ev.Settle(self._session_of(name), LedgerId(name.encode()), self._last_grant[name].lease)
                for name in names
            )
        )

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
        return self._apply(ev.GatewayLeft(self._sessions[names[0]]))

    def do_heard(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(*(ev.Heard(self._sessions[name]) for name in names))

    def do_remove_user(self, names: list[str], options: dict[str, str]) -> list[str]:
        return self._apply(ev.PolicyChanged(removed=tuple(UserId(name) for name in names)))

    def do_limit(self, names: list[str], options: dict[str, str]) -> list[str]:
        limits = tuple(ev.UserLimits(UserId(name), max_queued=int(options["queued"])) for name in names)
        return self._apply(ev.PolicyChanged(limits))

    def do_wait(self, names: list[str], options: dict[str, str]) -> list[str]:
        """Second by second; `heard=` names gateways that keep speaking."""
        speaking = [name for name in options.get("heard", "").split(",") if name]
        told: list[str] = []
        left = float(names[0].removesuffix("s"))
        while left > 0:
            step = min(1.0, left)
            self._now += step
            left -= step
            heard = [ev.Heard(self._sessions[name]) for name in speaking]
            told += self._apply(*heard, ev.Tick(), quiet=True)
        return told or ["nothing"]

    def do_new_leader(self, names: list[str], options: dict[str, str]) -> list[str]:
        """The leader died and another starts from its last snapshot: `gateway/generation:backend=slots`."""
        holdings = []
        for name in names:
            process, _, slots = name.partition(":")
            gateway, _, generation = process.partition("/")
            held = {BackendId(b): int(n) for b, n in (item.split("x") for item in slots.split("+") if item)}
            holdings.append(Holding(GatewayName(gateway), int(generation), held))
        self._term += 1
        self._policy = Policy(Rules(), Epoch(1, self._term), self._now, recovered=holdings)
        self._sessions.clear()
        return self._apply(ev.FleetChanged(tuple(self._backends.values())))

    def do_show(self, names: list[str], options: dict[str, str]) -> list[str]:
        holds = self._policy.holds
        slots = [
            f"{b.id}: {holds.live_on(b.id)} held, {holds.quarantined_on(b.id)} in quarantine, of {b.slots}"
            for b in self._policy.fleet
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
        told = list(self._tell(self._policy.apply(events, self._now)))
        return told if told or quiet else ["nothing"]

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
                case de.Settled(_, ledger_id):
                    yield f"settled {ledger_id.decode()}"
                case de.SessionEnded(session, message):
                    yield f"end session of {self._names[session]}: {message}"
                case de.Orphan(request, gateway):
                    yield f"orphan {request.ledger_id.decode()} of {gateway}"


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
