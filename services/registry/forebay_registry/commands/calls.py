"""The gRPC method with which admin has a node's agent commanded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.metrics import Metrics
from forebay.signed_commands import CommandKey
from forebay.wire.v1 import commands_pb2 as wire
from forebay.wire.v1.commands_pb2_grpc import NodeCommandsServicer
from forebay_registry.backend import NodeId
from forebay_registry.commands.commander import OUTCOMES, Commander, Tally
from forebay_registry.nodes.samples import Hearing

RIGHTS = {"/forebay.wire.v1.NodeCommands/*": frozenset({"admin"})}


class CommandCalls(NodeCommandsServicer):
    def __init__(self, commander: Commander) -> None:
        self._commander = commander

    async def CommandNode(
        self, request: wire.CommandNodeRequest, context: Any
    ) -> AsyncIterator[wire.CommandNodeResponse]:
        async with aclosing(self._commander.command(request)) as answers:
            async for answer in answers:
                yield wire.CommandNodeResponse(answer=answer)


@dataclass(frozen=True, slots=True)
class CommandsPart:
    """Commands, as the registry runs them."""

    commander: Commander
    calls: CommandCalls

    @property
    def public_line(self) -> str:
        return self.commander.public_line

    def listen(self) -> Coroutine[Any, Any, None]:
        return self.commander.listen()


def open_commands(
    key_file: Path | None,
    bus: Bus,
    clock: Clock,
    metrics: Metrics,
    *,
    nodes: Callable[[], Mapping[str, NodeId]],
    heard_of: Callable[[NodeId], Hearing],
) -> CommandsPart:
    """Raises CannotStart for a key that is none."""
    key = CommandKey.from_file(key_file) if key_file is not None else None
    commander = Commander(key, bus, clock, nodes=nodes, heard_of=heard_of, tally=_count(metrics))
    return CommandsPart(commander, CommandCalls(commander))


def _count(metrics: Metrics) -> Tally:
    ended = metrics.counter("forebay_registry_commands", "Commands to agents, by how they ended.", ("outcome",))
    stray = metrics.counter("forebay_registry_command_answers_stray", "Answers of agents that nobody waits for.")
    return Tally({outcome: ended.child(outcome) for outcome in OUTCOMES}, stray.child())
