"""Looking for engines again and again: whom to ask, what stays, and which GPUs they hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection

from forebay.clock import SystemClock
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay.wire.v1 import types_pb2 as words
from forebay_gpu_agent.engines.asking import Answer
from forebay_gpu_agent.engines.finder import EngineFinder, Search
from forebay_gpu_agent.engines.found import EngineKind, FoundEngine, add_engines
from forebay_gpu_agent.engines.listening import Listener, family, listeners

VLLM = Answer(EngineKind.VLLM, "0.11.0", 1)


class Host:
    """Who listens, and what they answer; `asked` counts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.there: list[Listener] = []
        self.answers: dict[int, Answer] = {}
        self.asked: list[int] = []

    def search(self, *ports: int) -> Search:
        return Search(lambda: self.now, ports, listening=self.listening, asking=self.ask)

    def listening(self, ports: Collection[int]) -> list[Listener]:
        return [one for one in self.there if one.port in ports]

    def ask(self, address: str, port: int) -> Answer | None:
        self.asked.append(port)
        return self.answers.get(port)


def test_only_the_ports_that_were_named_are_asked_and_never_forebays_own() -> None:
    host = Host()
    host.there = [Listener(8000, "0.0.0.0", None), Listener(8090, "0.0.0.0", None), Listener(22, "0.0.0.0", None)]
    host.answers = {8000: VLLM, 8090: VLLM, 22: VLLM}
    assert [engine.port for engine in host.search(8000, 8090).look()] == [8000]
    assert host.asked == [8000]


def test_what_is_no_engine_is_asked_more_and_more_rarely_until_another_process_listens() -> None:
    host = Host()
    host.there = [Listener(8000, "0.0.0.0", 1)]
    search = host.search(8000)
    for _ in range(4 * 3600 // 15):
        assert search.look() == ()
        host.now += 15
    assert len(host.asked) < 12
    host.there, host.answers = [Listener(8000, "0.0.0.0", 2)], {8000: VLLM}
    assert [engine.kind for engine in search.look()] == [EngineKind.VLLM]


def test_an_engine_that_is_too_busy_to_answer_stays_found_for_a_while() -> None:
    host = Host()
    host.there, host.answers = [Listener(8000, "0.0.0.0", None)], {8000: VLLM}
    search = host.search(8000)
    assert len(search.look()) == 1
    host.answers = {}
    assert [len(search.look()) for _ in range(6)] == [1, 1, 1, 1, 0, 0]
    host.there = []
    assert search.look() == (), "and one that does not listen any more is gone at once"


def test_a_family_is_a_process_and_all_below_it() -> None:
    assert family(1, {1: [2, 3], 3: [4], 9: [10]}) == {1, 2, 3, 4}
    assert family(1, {1: [2], 2: [1]}) == {1, 2}


def test_the_gpus_of_an_engine_are_those_on_which_one_of_its_family_holds_memory() -> None:
    def gpu(index: int, *pids: int) -> wire.GpuSample:
        return wire.GpuSample(index=index, processes=[wire.GpuProcess(pid=pid) for pid in pids])

    sample = wire.TelemetrySample(gpu_state=wire.GPU_STATE_OK, gpus=[gpu(0, 11), gpu(1, 99), gpu(2, 12, 99), gpu(3)])
    engines = [
        FoundEngine(EngineKind.VLLM, 8000, "0.0.0.0", 10, frozenset({10, 11, 12}), "0.11.0", 1),
        FoundEngine(EngineKind.OLLAMA, 11434, "127.0.0.1"),
    ]
    add_engines(sample, engines, 3.4)
    told, unknown = sample.engines
    assert (told.kind, list(told.gpu_indices), told.gpus_known, told.pid) == (words.ENGINE_KIND_VLLM, [0, 2], True, 10)
    assert not unknown.gpus_known, "whose process is not known may hold any"
    assert not unknown.HasField("models")
    assert sample.engines_age_s == 3
    sample.gpus[1].error = "GPU_IS_LOST"
    del sample.engines[:]
    add_engines(sample, engines[:1], 0.0)
    assert not sample.engines[0].gpus_known


def test_a_socket_of_this_machine_is_seen_with_its_address() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        assert [(found.port, found.address) for found in listeners({port})] == [(port, "127.0.0.1")]
        assert listeners(set()) == []


async def test_news_is_told_and_a_look_that_fails_leaves_what_was_found() -> None:
    host, news = Host(), []
    host.there, host.answers = [Listener(8000, "0.0.0.0", None)], {8000: VLLM}
    finder = EngineFinder(host.search(8000), SystemClock(), interval_s=60.0, on_change=lambda: news.append(1))
    sample = wire.TelemetrySample()
    finder.add_to(sample)
    assert not sample.HasField("engines_age_s"), "before the first look nothing is said, not even that there is none"
    await finder.look()
    await finder.look()
    assert len(news) == 1
    host.there = None  # type: ignore[assignment]  # whatever a strange process table does
    await finder.look()
    finder.add_to(sample)
    assert [engine.port for engine in sample.engines] == [8000]
    host.there = []
    running = asyncio.create_task(finder.run())
    async with asyncio.timeout(30):
        while finder.found:
            await asyncio.sleep(0.005)
    running.cancel()
    assert len(news) == 2
