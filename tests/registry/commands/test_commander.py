"""Commands to agents, as the registry sends them and hears what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from forebay import subjects
from forebay.bus import Message
from forebay.clock import SystemClock
from forebay.errors import BadInput, NotFound, NotPossible, Unavailable
from forebay.memory_bus import MemoryBus
from forebay.signed_commands import CommandCheck, CommandKey
from forebay.wire.v1 import commands_pb2 as wire
from forebay_registry.backend import NodeId
from forebay_registry.commands.commander import EXPIRES_S, Commander, Tally
from forebay_registry.nodes.samples import Hearing, Sample

SAMPLE = wire.CommandNodeRequest(actor="ada", node="gpu-1", sample=wire.SampleNow())
NODES = {"gpu-1": NodeId("no-1"), "never-heard": NodeId("no-2")}


@dataclass
class House:
    bus: MemoryBus
    key: CommandKey
    commander: Commander
    tally: Tally
    sent: AsyncIterator[Message]

    async def command(self) -> wire.NodeCommand:
        message = await asyncio.wait_for(anext(self.sent), 30)
        signed = wire.SignedCommand.FromString(message.payload)
        command = CommandCheck(self.key.public_line).open(signed)
        assert message.subject == f"forebay.command.{command.node}"
        return command

    async def answer(self, answer: wire.NodeCommandAnswer, subject: str = "forebay.answer.gpu-1") -> None:
        await self.bus.publish(subject, answer.SerializeToString())


@asynccontextmanager
async def house(*, first_answer_s: float = 5.0) -> AsyncIterator[House]:
    clock, key, tally = SystemClock(), CommandKey.new(), Tally()
    bus = MemoryBus(clock.now)
    heard = {NODES["gpu-1"]: Hearing(Sample("gpu-1", 77, 1, 0, b""), clock.now(), 1)}
    commander = Commander(
        key,
        bus,
        clock,
        nodes=lambda: NODES,
        heard_of=lambda node_id: heard.get(node_id, Hearing()),
        tally=tally,
        first_answer_s=first_answer_s,
    )
    async with bus.subscribe(subjects.command("*")) as sent:
        listening = asyncio.create_task(commander.listen())
        await asyncio.sleep(0)
        try:
            yield House(bus, key, commander, tally, sent)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def ends(house: House, request: wire.CommandNodeRequest = SAMPLE) -> list[wire.NodeCommandAnswer]:
    return [answer async for answer in house.commander.command(request)]


async def test_a_command_is_signed_for_one_node_and_one_start_and_told_until_it_ends() -> None:
    async with house() as here:
        asked = asyncio.create_task(ends(here))
        command = await here.command()
        assert (command.node, command.agent_started_us, command.actor) == ("gpu-1", 77, "ada")
        assert command.WhichOneof("order") == "sample"
        assert command.expires_at_us - command.issued_at_us == EXPIRES_S * 1_000_000
        answer = wire.NodeCommandAnswer(node="gpu-1", id=command.id, state=wire.COMMAND_STATE_RUNNING)
        await here.answer(answer)
        answer.state, answer.message = wire.COMMAND_STATE_DONE, "done\x1b[2J"
        await here.answer(answer)
        told = await asyncio.wait_for(asked, 30)
        assert [one.state for one in told] == [wire.COMMAND_STATE_RUNNING, wire.COMMAND_STATE_DONE]
        assert told[1].message == "done [2J", "nothing that an agent says moves a terminal's cursor"
        assert here.tally.ended["done"].value == 1


async def test_answers_of_others_and_garbage_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with house() as here:
        refused: list[tuple[str, str, str]] = []
        here.commander.on_refused = lambda *told: refused.append(told)
        asked = asyncio.create_task(ends(here))
        command = await here.command()
        answer = wire.NodeCommandAnswer(node="gpu-1", id=command.id, state=wire.COMMAND_STATE_DONE)
        await here.answer(answer, "forebay.answer.gpu-2")
        await here.answer(wire.NodeCommandAnswer(node="gpu-1", id="another", state=wire.COMMAND_STATE_DONE))
        await here.bus.publish("forebay.answer.gpu-1", b"\xff\xff")
        answer.state = 99  # type: ignore[assignment]
        await here.answer(answer)
        answer.state, answer.reason = wire.COMMAND_STATE_REFUSED, "expired"
        await here.answer(answer)
        (told,) = await asyncio.wait_for(asked, 30)
        assert (told.state, told.reason) == (wire.COMMAND_STATE_REFUSED, "expired")
        assert [(node, why) for node, _, why in refused] == [("gpu-1", "expired")]
        assert here.tally.stray.value == 4
        assert caplog.text.count("answer to no command") == 1
        assert here.tally.ended["refused"].value == 1


async def test_an_agent_that_does_not_answer_is_told_with_when_it_was_heard() -> None:
    async with house(first_answer_s=0.05) as here:
        with pytest.raises(Unavailable, match=r"The agent of gpu-1 does not answer; it was last heard \d s ago"):
            await ends(here)
        assert here.tally.ended["unanswered"].value == 1


async def test_what_cannot_be_commanded_is_refused_before_anything_is_sent() -> None:
    async with house() as here:
        for request, kind, why in (
            (wire.CommandNodeRequest(node="nobody", sample=wire.SampleNow()), NotFound, "There is no node 'nobody'"),
            (wire.CommandNodeRequest(node="never-heard", sample=wire.SampleNow()), NotPossible, "Nothing was heard"),
            (wire.CommandNodeRequest(node="gpu-1"), BadInput, "No order is given"),
        ):
            with pytest.raises(kind, match=why):
                await ends(here, request)
        keyless = Commander(None, here.bus, SystemClock(), nodes=lambda: NODES, heard_of=lambda _: Hearing())
        with pytest.raises(NotPossible, match="command_key_file"):
            await anext(keyless.command(SAMPLE))
        assert keyless.public_line == ""
