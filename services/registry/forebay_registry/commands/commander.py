"""Commands to agents: each is signed, meant for one node and one start of its agent, and void after half a minute.

What comes of it is said on `forebay.answer.<node>`, which only that agent may publish on. Nothing is sent twice: an operator
who got no answer decides whether to give the command again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from forebay import subjects
from forebay.bus import Bus, Message
from forebay.clock import Clock, micros
from forebay.errors import BadInput, NotFound, NotPossible, Unavailable
from forebay.metrics import Number
from forebay.signed_commands import CommandKey
from forebay.wire.v1 import commands_pb2 as wire
from forebay_registry.backend import NodeId
from forebay_registry.nodes.samples import Hearing

log = logging.getLogger(__name__)

EXPIRES_S = 30.0
FIRST_ANSWER_S = 5.0
"""An agent says at once that it begins, or why not."""
NEXT_ANSWER_S = 180.0
"""More than an agent waits for a word of its Ollama."""
_MOST_WAITING = 64
_MOST_TEXT = 500
_ENDED = (wire.COMMAND_STATE_DONE, wire.COMMAND_STATE_FAILED, wire.COMMAND_STATE_REFUSED)
OUTCOMES = ("done", "failed", "refused", "unanswered")


@dataclass(frozen=True, slots=True)
class Tally:
    """Commands by how they ended."""

    ended: Mapping[str, Number] = field(default_factory=lambda: {outcome: Number() for outcome in OUTCOMES})
    stray: Number = field(default_factory=Number)
    """Answers that nobody waits for, or that no agent can mean."""


class Commander:
    def __init__(
        self,
        key: CommandKey | None,
        bus: Bus,
        clock: Clock,
        *,
        nodes: Callable[[], Mapping[str, NodeId]],
        heard_of: Callable[[NodeId], Hearing],
        tally: Tally | None = None,
        first_answer_s: float = FIRST_ANSWER_S,
    ) -> None:
        """`key`: None where no command is sent. `nodes`: name → id of those that have enrolled."""
        self._key = key
        self._bus = bus
        self._clock = clock
        self._nodes = nodes
        self._heard_of = heard_of
        self._tally = tally or Tally()
        self._first_answer_s = first_answer_s
        self._waiting: dict[tuple[str, str], asyncio.Queue[wire.NodeCommandAnswer]] = {}
        """By node and id."""
        self.on_refused: Callable[[str, str, str], None] = lambda node, order, why: None
        """Hears of each command that an agent refused."""

    @property
    def public_line(self) -> str:
        """What agents check commands with; empty where none are sent."""
        return self._key.public_line if self._key is not None else ""

    async def listen(self) -> None:
        """Until cancelled."""
        async with self._bus.subscribe(subjects.ANSWERS_OF_ALL) as messages:
            async for message in messages:
                self._take(message)

    async def command(self, request: wire.CommandNodeRequest) -> AsyncGenerator[wire.NodeCommandAnswer, None]:
        """Each answer, until one ends it. Raises NotFound, BadInput, NotPossible, Unavailable."""
        command = self._command(request)
        place = command.node, command.id
        answers = self._waiting[place] = asyncio.Queue(_MOST_WAITING)
        fields = {"order": command.WhichOneof("order"), "node": command.node, "actor": command.actor, "id": command.id}
        log.info("command sent", extra={"action": "command_sent", **fields})
        outcome = "unanswered"
        try:
            assert self._key is not None
            signed = self._key.sign(command).SerializeToString()
            await self._bus.publish(subjects.command(command.node), signed)
            within_s = self._first_answer_s
            while True:
                try:
                    async with asyncio.timeout(within_s):
                        answer = await answers.get()
                except TimeoutError:
                    raise Unavailable(self._silence(command.node, began=within_s != self._first_answer_s)) from None
                yield answer
                if answer.state in _ENDED:
                    outcome = wire.CommandState.Name(answer.state).removeprefix("COMMAND_STATE_").lower()
                    if answer.state == wire.COMMAND_STATE_REFUSED:
                        why = f"{answer.reason}: {answer.message}" if answer.message else answer.reason
                        self.on_refused(command.node, command.WhichOneof("order") or "", why)
                    return
                within_s = NEXT_ANSWER_S
        finally:
            del self._waiting[place]
            self._tally.ended[outcome].value += 1
            log.info("command ended", extra={"action": "command_ended", "outcome": outcome, **fields})

    def _command(self, request: wire.CommandNodeRequest) -> wire.NodeCommand:
        if self._key is None:
            raise NotPossible(
                "This registry has no key to sign commands with: its setting command_key_file is not set "
                "(openssl rand -hex 32 makes one)."
            )
        order = request.WhichOneof("order")
        if order is None:
            raise BadInput("No order is given, or one that this registry does not know.")
        node_id = self._nodes().get(request.node)
        if node_id is None:
            raise NotFound(f"There is no node {request.node!r}.")
        last = self._heard_of(node_id).last
        if last is None:
            raise NotPossible(f"Nothing was heard of {request.node} yet. Does its agent run?")
        if not self._bus.is_connected:
            raise Unavailable("NATS is away, which commands travel over.", retry_after_s=2.0)
        now = self._clock.now()
        command = wire.NodeCommand(
            id=secrets.token_hex(12),
            node=request.node,
            agent_started_us=last.agent_started_us,
            issued_at_us=micros(now),
            expires_at_us=micros(now + EXPIRES_S),
            actor=request.actor,
        )
        getattr(command, order).CopyFrom(getattr(request, order))
        return command

    def _silence(self, node: str, *, began: bool) -> str:
        if began:
            return (
                f"The agent of {node} began and says nothing more. What it does may go on; see its log before you "
                "give the command again."
            )
        node_id = self._nodes().get(node)
        heard_at = self._heard_of(node_id).heard_at if node_id is not None else None
        heard = f"was last heard {max(0.0, self._clock.now() - heard_at):.0f} s ago" if heard_at else "was never heard"
        return (
            f"The agent of {node} does not answer; it {heard}. It may be away, or of a version without commands. "
            f"The command is void in {EXPIRES_S:.0f} s."
        )

    def _take(self, message: Message) -> None:
        answer = _read(message)
        queue = self._waiting.get((answer.node, answer.id)) if answer is not None else None
        if answer is None or queue is None:
            self._tally.stray.value += 1
            if self._tally.stray.value > 1:
                return  # one that talks all day must not fill the log
            why = "unreadable" if answer is None else wire.CommandState.Name(answer.state)
            fields = {"action": "command_answer_stray", "subject": message.subject, "state": why}
            log.info("answer to no command that is waited for (told once, counted always)", extra=fields)
            return
        if queue.full():  # of a slow reader; how far a pull was a while ago is no loss
            queue.get_nowait()
        queue.put_nowait(answer)


def _read(message: Message) -> wire.NodeCommandAnswer | None:
    if len(message.payload) > subjects.MAX_PAYLOAD_BYTES:
        return None
    try:
        answer = wire.NodeCommandAnswer.FromString(message.payload)
    except DecodeError:
        return None
    if message.subject != subjects.answer(answer.node) or answer.state not in wire.CommandState.values():
        return None
    answer.message, answer.reason = _text(answer.message), _text(answer.reason)
    return answer


def _text(told: str) -> str:
    return "".join(c if c.isprintable() else " " for c in told[:_MOST_TEXT])
