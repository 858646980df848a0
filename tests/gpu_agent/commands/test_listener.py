"""Commands as they come over the bus, and what is answered to each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from forebay import subjects
from forebay.bus import Message
from forebay.clock import SystemClock, micros
from forebay.memory_bus import MemoryBus
from forebay.signed_commands import CommandCheck, CommandKey
from forebay.wire.v1 import commands_pb2 as wire
from forebay_gpu_agent.commands.judge import OrderKind, Refusal
from forebay_gpu_agent.commands.listener import MOST_AT_ONCE, Commands, Tally
from forebay_gpu_agent.commands.orders import Orders
from forebay_gpu_agent.engines.found import EngineKind, FoundEngine
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour

STARTED_US = 77
DONE, FAILED, REFUSED, RUNNING = (
    wire.COMMAND_STATE_DONE,
    wire.COMMAND_STATE_FAILED,
    wire.COMMAND_STATE_REFUSED,
    wire.COMMAND_STATE_RUNNING,
)


class Finder:
    def __init__(self, *found: FoundEngine) -> None:
        self.found = found
        self.looks = 0

    def look_again(self) -> None:
        self.looks += 1


@dataclass
class Node:
    """An agent's ear, and whoever commands it."""

    bus: MemoryBus
    key: CommandKey
    answers: AsyncIterator[Message]
    tally: Tally
    done: list[str] = field(default_factory=list)

    async def say(self, command: wire.NodeCommand, key: CommandKey | None = None) -> None:
        await self.raw((key or self.key).sign(command).SerializeToString())

    async def raw(self, payload: bytes) -> None:
        await self.bus.publish(subjects.command("gpu-1"), payload)

    async def answer(self) -> wire.NodeCommandAnswer:
        message = await asyncio.wait_for(anext(self.answers), 30)
        assert message.subject == "forebay.answer.gpu-1"
        return wire.NodeCommandAnswer.FromString(message.payload)

    async def end(self) -> wire.NodeCommandAnswer:
        while (answer := await self.answer()).state == RUNNING:
            continue
        return answer


def order(id_: str = "one", **more: Any) -> wire.NodeCommand:
    now = SystemClock().now()
    usual: dict[str, Any] = {
        "node": "gpu-1",
        "agent_started_us": STARTED_US,
        "issued_at_us": micros(now),
        "expires_at_us": micros(now + 30),
        "actor": "ada",
    }
    return wire.NodeCommand(id=id_, **{**usual, **(more or {"sample": wire.SampleNow()})})


@asynccontextmanager
async def node(
    *found: FoundEngine, knows_key: bool = True, allowed: str = "sample probe pull delete"
) -> AsyncIterator[Node]:
    clock, key, tally, done = SystemClock(), CommandKey.new(), Tally(), []
    bus = MemoryBus(clock.now)
    finder = Finder(*found)
    orders = Orders(finder, sample_now=lambda: done.append("sample"), reopen_driver=lambda: done.append("driver"))
    commands = Commands(
        "gpu-1",
        bus,
        CommandCheck(key.public_line) if knows_key else None,
        [OrderKind(word) for word in allowed.split()],
        orders,
        clock,
        tally,
    )
    commands.agent_started_us = STARTED_US
    async with bus.subscribe(subjects.answer("gpu-1")) as answers:
        running = asyncio.create_task(commands.run())
        await asyncio.sleep(0)
        try:
            yield Node(bus, key, answers, tally, done)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_command_is_done_once_and_a_replay_is_refused() -> None:
    async with node() as here:
        command = order(probe=wire.RestartProbe())
        await here.say(command)
        assert (await here.end()).state == DONE
        assert here.done == ["driver", "sample"]
        await here.say(command)
        replayed = await here.end()
        assert (replayed.state, replayed.reason) == (REFUSED, "replayed")
        assert here.done == ["driver", "sample"]
        assert here.tally.refused[Refusal.REPLAYED].value == 1


async def test_what_the_registry_did_not_sign_is_refused_counted_and_told() -> None:
    async with node() as here:
        await here.say(order(), CommandKey.new())
        forged = await here.end()
        assert (forged.id, forged.state, forged.reason) == ("one", REFUSED, "bad_signature")
        unsigned = wire.SignedCommand(command=order("two").SerializeToString())
        await here.raw(unsigned.SerializeToString())
        assert (await here.end()).reason == "bad_signature"
        moved = here.key.sign(order("three"))
        moved.command = order("four").SerializeToString()
        await here.raw(moved.SerializeToString())
        assert (await here.end()).reason == "bad_signature"
        await here.raw(b"\xff\xff\xff")
        await here.raw(b"")
        nameless = order()
        nameless.id = ""
        await here.say(nameless)
        await here.say(order("five"))
        assert (await here.end()).state == DONE, "and nothing else is disturbed"
        assert here.tally.refused[Refusal.BAD_SIGNATURE].value == 4, "an empty message is an unsigned one"
        assert here.tally.refused[Refusal.MALFORMED].value == 2
        assert here.done == ["sample"]


async def test_an_agent_without_a_key_refuses_everything_and_says_why() -> None:
    async with node(knows_key=False) as here:
        await here.say(order())
        refused = await here.end()
        assert (refused.state, refused.reason) == (REFUSED, "no_key")
        assert "command_key" in refused.message


async def test_a_model_is_pulled_into_the_ollama_of_the_node_with_progress_and_deleted_again() -> None:
    async with FakeEngine(flavour=Flavour.OLLAMA, models=("old",)) as engine:
        ollama = FoundEngine(EngineKind.OLLAMA, engine.port, "127.0.0.1")
        async with node(ollama) as here:
            await here.say(order(pull=wire.PullModel(model="new")))
            pulled = await here.end()
            assert (pulled.state, pulled.message) == (DONE, "new is there.")
            assert pulled.HasField("total_bytes")
            assert pulled.done_bytes == pulled.total_bytes
            assert any(name.startswith("new") for name in engine.library.models)
            await here.say(order("two", delete=wire.DeleteModel(model="new")))
            assert (await here.end()).state == DONE
            assert not any(name.startswith("new") for name in engine.library.models)
            await here.say(order("three", delete=wire.DeleteModel(model="nobody")))
            missing = await here.end()
            assert missing.state == FAILED
            assert "nobody" in missing.message


async def test_a_pull_goes_to_no_other_port_than_that_of_an_ollama_that_was_found() -> None:
    async with node(FoundEngine(EngineKind.VLLM, 8000, "0.0.0.0")) as here:
        await here.say(order(pull=wire.PullModel(model="m", port=8000)))
        assert (await here.end()).message == "No Ollama was found on this node at port 8000."
    several = [FoundEngine(EngineKind.OLLAMA, port, "0.0.0.0") for port in (11434, 11435)]
    async with node(*several) as here:
        await here.say(order(pull=wire.PullModel(model="m")))
        assert "11434, 11435" in (await here.end()).message


async def test_more_than_a_few_at_once_are_refused_until_one_ends() -> None:
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hung.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with node(FoundEngine(EngineKind.OLLAMA, port, "127.0.0.1")) as here:
            for number in range(MOST_AT_ONCE):
                await here.say(order(f"pull-{number}", pull=wire.PullModel(model="m")))
                assert (await here.answer()).state == RUNNING
            await here.say(order("more"))
            assert (await here.end()).reason == "busy"
            hung.set()
            assert {(await here.end()).state for _ in range(MOST_AT_ONCE)} == {FAILED}
            await here.say(order("again"))
            assert (await here.end()).state == DONE


def layer(number: int, total: int = 1) -> bytes:
    return json.dumps({"status": "pulling", "digest": f"sha256:{number}", "total": total}).encode()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([rb'{"error": "no \ud800 such \u0000 model"}'], "does not pull m: no"),
        ([rb'{"status": "\ud800"}'], "stopped before"),
        ([layer(n, 2**62) for n in range(8)], "stopped before"),
        ([layer(n) for n in range(2000)], "more than 1000 layers"),
        ([b"[" * 50_000], "does not answer as Ollama does"),
    ],
)
async def test_what_says_that_it_is_an_ollama_and_lies_ends_its_own_command_only(
    lines: list[bytes], words: str
) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))  # closed with something unread, it would be reset
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"\n".join(lines) + b"\n")
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        ollama = FoundEngine(EngineKind.OLLAMA, server.sockets[0].getsockname()[1], "127.0.0.1")
        async with node(ollama) as here:
            await here.say(order(pull=wire.PullModel(model="m")))
            failed = await here.end()
            assert failed.state == FAILED
            assert words in failed.message
            await here.say(order("two"))
            assert (await here.end()).state == DONE
