"""Hears commands on `forebay.command.<node>`, and says on `forebay.answer.<node>` what came of each.

What is refused is counted, logged, and answered where there is an id to answer to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from forebay import subjects
from forebay.bus import Bus, Message
from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay.metrics import Number
from forebay.signed_commands import CommandCheck, NotSigned
from forebay.wire.v1 import commands_pb2 as wire
from forebay_gpu_agent.commands.judge import Here, Order, OrderKind, Refusal, Refused, judge
from forebay_gpu_agent.commands.orders import Orders

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
_TELL_S = 1.0
"""At most so often is told how far a pull is."""
_MOST_ID = 64
_MOST_SEEN = 10_000
_MOST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Tally:
    """Commands, by what became of them."""

    done: Number = field(default_factory=Number)
    failed: Number = field(default_factory=Number)
    refused: Mapping[Refusal, Number] = field(default_factory=lambda: {why: Number() for why in Refusal})


class Commands:
    def __init__(
        self,
        node: str,
        bus: Bus,
        check: CommandCheck | None,
        allowed: Collection[OrderKind],
        orders: Orders,
        clock: Clock,
        tally: Tally,
    ) -> None:
        """`check`: None where this node knows no key to check commands with; then all are refused."""
        self._node = node
        self._bus = bus
        self._check = check
        self._allowed = frozenset(allowed)
        self._orders = orders
        self._clock = clock
        self._tally = tally
        self._seen: dict[str, float] = {}
        """Id → when it expires."""
        self._running = 0
        self.agent_started_us = 0
        """As this agent's samples say; 0: none was sent yet, so that nobody can mean this start."""

    async def run(self) -> None:
        """Until cancelled."""
        async with self._bus.subscribe(subjects.command(self._node)) as messages, asyncio.TaskGroup() as tasks:
            async for message in messages:
                judged = self._judge(message)
                if isinstance(judged, Order):
                    self._seen[judged.id] = judged.expires_at
                    self._running += 1
                    tasks.create_task(self._obey(judged), name=f"command-{judged.id}")
                else:
                    await self._refuse(*judged)

    def _judge(self, message: Message) -> Order | tuple[str, Refused]:
        """The command if it is obeyed, else its id (empty: it has none) and why not."""
        try:
            if len(message.payload) > subjects.MAX_PAYLOAD_BYTES:
                raise ValueError("it is too large")
            signed = wire.SignedCommand.FromString(message.payload)
            if self._check is None:
                why = "This node knows no key to check commands with: the setting `command_key` of its agent is empty."
                return _id_in(signed), Refused(Refusal.NO_KEY, why)
            order = _order(self._check.open(signed))
        except NotSigned as error:
            return _id_in(signed), Refused(Refusal.BAD_SIGNATURE, error.message)
        except (DecodeError, ValueError) as error:
            return "", Refused(Refusal.MALFORMED, f"A command cannot be read: {error}.")
        now = self._clock.now()
        self._seen = {seen: expires for seen, expires in self._seen.items() if expires > now}
        refused = judge(order, Here(self._node, self.agent_started_us, self._allowed, self._seen), now)
        if refused is None and (self._running >= MOST_AT_ONCE or len(self._seen) >= _MOST_SEEN):
            refused = Refused(Refusal.BUSY, f"This node does {MOST_AT_ONCE} commands at once; wait for one to end.")
        return order if refused is None else (order.id, refused)

    async def _obey(self, order: Order) -> None:
        fields = {"order": str(order.kind), "model": order.model, "actor": order.actor, "id": order.id}
        log.info("command taken", extra={"action": "command_taken", **fields})
        steps = _Steps()
        telling = asyncio.create_task(self._tell_steps(order.id, steps))
        try:
            message = await self._orders.do(order, steps.note)
            state, outcome = wire.COMMAND_STATE_DONE, self._tally.done
        except ForebayError as error:
            log.warning("command not done", extra={"action": "command_failed", **fields, "why": error.message})
            message, state, outcome = error.message, wire.COMMAND_STATE_FAILED, self._tally.failed
        except Exception as error:
            log.exception("command not done", extra={"action": "command_failed", **fields})
            message = f"The agent failed at it: {type(error).__name__}. Its log says more."
            state, outcome = wire.COMMAND_STATE_FAILED, self._tally.failed
        finally:
            self._running -= 1
            telling.cancel()
        await asyncio.wait([telling])
        outcome.value += 1
        await self._answer(order.id, state, message, steps=steps)

    async def _tell_steps(self, id_: str, steps: _Steps) -> None:
        """At once, so that whoever waits knows that it began, and then as there is news."""
        while True:
            await self._answer(id_, wire.COMMAND_STATE_RUNNING, steps.what, steps=steps)
            await asyncio.sleep(_TELL_S)
            await steps.news.wait()
            steps.news.clear()

    async def _refuse(self, id_: str, refused: Refused) -> None:
        self._tally.refused[refused.why].value += 1
        log.warning(refused.message, extra={"action": "command_refused", "id": id_, "reason": str(refused.why)})
        if id_:
            await self._answer(id_, wire.COMMAND_STATE_REFUSED, refused.message, reason=refused.why)

    async def _answer(
        self,
        id_: str,
        state: wire.CommandState.ValueType,
        message: str,
        *,
        reason: str = "",
        steps: _Steps | None = None,
    ) -> None:
        answer = wire.NodeCommandAnswer(
            node=self._node,
            id=id_,
            state=state,
            reason=reason,
            message=_as_text(message),
            done_bytes=steps.done_bytes if steps else None,
            total_bytes=steps.total_bytes if steps else None,
        )
        await self._bus.publish(subjects.answer(self._node), answer.SerializeToString())


class _Steps:
    """How far a command is."""

    def __init__(self) -> None:
        self.what = ""
        self.done_bytes: int | None = None
        self.total_bytes: int | None = None
        self.news = asyncio.Event()

    def note(self, what: str, done_bytes: int | None, total_bytes: int | None) -> None:
        self.what, self.done_bytes, self.total_bytes = what, done_bytes, total_bytes
        self.news.set()


def _as_text(message: str) -> str:
    """What an engine says may be in it, and not every text can be sent."""
    return "".join(letter if letter.isprintable() else " " for letter in message[:_MOST_TEXT])


def _order(told: wire.NodeCommand) -> Order:
    """Raises ValueError."""
    if not 0 < len(told.id) <= _MOST_ID or not told.id.isprintable():
        raise ValueError("it has no usable id")
    kind = told.WhichOneof("order")
    about = told.pull if kind == "pull" else told.delete
    return Order(
        id=told.id,
        node=told.node,
        agent_started_us=told.agent_started_us,
        issued_at=told.issued_at_us / 1_000_000,
        expires_at=told.expires_at_us / 1_000_000,
        actor=told.actor,
        kind=OrderKind(kind) if kind is not None else None,
        model=about.model,
        port=about.port,
    )


def _id_in(signed: wire.SignedCommand) -> str:
    """Of a command that is not to be trusted, for the one who waits for an answer to it."""
    try:
        told = wire.NodeCommand.FromString(signed.command).id
    except DecodeError:
        return ""
    return told if len(told) <= _MOST_ID and told.isprintable() else ""
