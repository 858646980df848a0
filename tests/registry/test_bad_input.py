"""What nobody should send, at the registry's real doors (gRPC, NATS, engines' HTTP): one clear event, and nothing else
disturbed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import SystemClock, micros
from forebay.errors import BadInput
from forebay.local.nats import public_key
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.wire.v1 import fleet_pb2, library_pb2, lifecycle_pb2
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.telemetry_pb2 import GpuSample, HostSample, TelemetrySample
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Library
from tests.registry.engines.test_telemetry import broken, cut, elsewhere, endless, engine_with, hang
from tests.registry.library.test_library_service import ALL, PULL, asking
from tests.registry.test_lifecycle_service import Orders
from tests.registry.test_service import HEALTHY, UNHEALTHY, Caller, Place, calling, place, running

__all__ = ["place"]  # the fixture

METADATA = "http://169.254.169.254/latest/meta-data"
INNOCENT = "innocent.example.org"


async def to_metadata(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(METADATA)


async def drip(request: web.Request) -> web.StreamResponse:
    """A list of models that never ends, slowly."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"data": [')
    while True:
        await asyncio.sleep(0.05)
        await response.write(b" ")


NO_ENGINES: Mapping[str, tuple[Any, str]] = {
    "html": (b"<html><title>Please log in</title></html>", "not an engine of this kind"),
    "redirect": (elsewhere, "sends to /v1/models; register that address instead"),
    "redirect-to-metadata": (to_metadata, f"sends to {METADATA}; register that address instead"),
    "garbage": (b"\x00\xff\x1b[2J" * 50, "not an engine of this kind"),
    "wrong-json": ({"data": {"id": ["llama"]}}, "not an engine of this kind"),
    "deep-json": (b"[" * 100_000, "not an engine of this kind"),
    "endless": (endless, "its answer is longer than 8 MiB"),
    "drip": (drip, "did not answer within 2 s"),
    "hang": (hang, "did not answer within 2 s"),
    "cut": (cut, "The connection to 127.0.0.1"),
    "broken": (broken, "answers /v1/models with 500 (out of memory)"),
}


@pytest.fixture
def bad_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells a metadata address for one innocent name."""
    true = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        return true("169.254.169.254" if host == INNOCENT else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_whatever_answers_in_an_engines_place_is_one_event_and_delays_nobody(
    place: Place, bad_name_server: None, eventually: Callable[..., Any]
) -> None:
    looks: list[float] = []
    pages = {"data": [{"id": "llama"}]}

    async def listed(request: web.Request) -> web.StreamResponse:
        looks.append(asyncio.get_running_loop().time())
        return web.json_response(pages)

    async with AsyncExitStack() as stack:
        well = await stack.enter_async_context(engine_with(v1_models=listed))
        bad = {
            name: (await stack.enter_async_context(engine_with(v1_models=page))).url
            for name, (page, _) in NO_ENGINES.items()
        }
        await stack.enter_async_context(running(place.settings(probe_timeout_s=2.0)))
        admin = await stack.enter_async_context(calling(place))
        watch = await stack.enter_async_context(admin.watching())
        await admin.add("well", well.url)
        await eventually(lambda: watch.health("well") == HEALTHY)
        for name, url in bad.items():
            await admin.add(name, url)
        await admin.add("name-of-metadata", f"http://{INNOCENT}:8000")
        names = [*bad, "name-of-metadata"]
        await eventually(lambda: all(watch.health(name) == UNHEALTHY for name in names))
        why = {name: watch.fleet[name].health_reason for name in names}
        for name, (_, words) in NO_ENGINES.items():
            assert words in why[name], why[name]
        assert "169.254.169.254 is a link-local address" in why["name-of-metadata"]
        assert all(sentence.isprintable() for sentence in why.values())

        seen = len(looks)
        await eventually(lambda: len(looks) >= seen + 5)
        assert max(after - before for before, after in pairwise(looks)) < 2.0
        orders = Orders(place)
        for name in names:
            told = (await orders("ShowHealth", lifecycle_pb2.ShowHealthRequest(name=name))).changes
            assert [change.after for change in told] == [UNHEALTHY], f"{name} has more than one event"
        told = (await orders("ShowHealth", lifecycle_pb2.ShowHealthRequest(name="well"))).changes
        assert [change.after for change in told] == [HEALTHY]


async def test_an_engine_that_turns_bad_keeps_its_models_and_a_good_answer_makes_it_well(
    place: Place, eventually: Callable[..., Any]
) -> None:
    good = {"data": [{"id": "llama"}]}
    async with (
        engine_with(v1_models=good) as engine,
        running(place.settings()),
        calling(place) as admin,
        admin.watching() as watch,
    ):
        await admin.add("gpu", engine.url)
        await eventually(lambda: watch.health("gpu") == HEALTHY)
        for page in (b"<html>maintenance</html>", b"[" * 100_000, {"data": "none"}):
            engine.pages["/v1/models"] = page
            await eventually(lambda: watch.health("gpu") == UNHEALTHY)
            assert [model.name for model in watch.fleet["gpu"].models] == ["llama"]
            engine.pages["/v1/models"] = good
            await eventually(lambda: watch.health("gpu") == HEALTHY)


async def test_addresses_and_names_that_lead_elsewhere_are_refused_at_the_door(place: Place) -> None:
    paths = ("../../etc/passwd", "/etc/passwd", "a/../b", "..\\b", "http://x/m", "m\x1b[2J")
    async with (
        FakeEngine(flavour=Flavour.OLLAMA, library=Library(("tiny",))) as engine,
        running(place.settings()),
        calling(place) as admin,
        asking(place) as library,
    ):
        for url in (METADATA, "http://[fe80::1]:8000", "http://2852039166", "http://metadata.google.internal"):
            with pytest.raises(BadInput, match="allow_link_local"):
                await admin.add("cloud", url)
        await admin.add("ollama", engine.url)
        for name in paths:
            with pytest.raises(BadInput):
                await admin.add("other", "http://127.0.0.1:9", model_names={name: "m"})
            with pytest.raises(BadInput):
                await library.order(PULL, name, ALL)
            wanted = fleet_pb2.FleetSpec(
                models=[fleet_pb2.ModelSpec(name=name)],
                pools=[fleet_pb2.PoolSpec(name="default", required_models=[name])],
            )
            told = await admin("ChangeFleet", fleet_pb2.ChangeFleetRequest(actor="ada", wanted=wanted))
            assert [problem.path for problem in told.problems] == [
                "pools.default.required_models",
                f"models.{name}.name",
            ]
        assert not (await admin("ReadFleet", fleet_pb2.ReadFleetRequest())).fleet.pools
        assert list(await admin.backends()) == ["ollama"]
        assert not (await library("ListModelJobs", library_pb2.ListModelJobsRequest())).jobs
        assert not engine.library.asked


class Agent:
    """Says what it is told to, with its node's right to speak."""

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus, self._node = bus, node
        self._sequence = 0

    async def say(
        self, sequence: int | None = None, *, started: int = 5, ahead_s: float = 0.0, host: str = "alpha", **more: Any
    ) -> None:
        """The next sample; with `sequence` one that does not count."""
        now = SystemClock().now()
        self._sequence += sequence is None
        sample = TelemetrySample(
            node=self._node,
            sequence=self._sequence if sequence is None else sequence,
            agent_started_us=started,
            sampled_at_us=micros(now + ahead_s),
            interval_ms=2000,
            host=HostSample(hostname=host, machine_id=f"machine-of-{host}", cpu_count=8),
        )
        sample.MergeFrom(TelemetrySample(**more))
        await self.send(sample.SerializeToString())

    async def send(self, payload: bytes) -> None:
        await self._bus.publish(subjects.telemetry(self._node), payload)


async def _until(admin: Caller, node: str, holds: Callable[[wire.Node], bool]) -> wire.Node:
    async with asyncio.timeout(60):
        while not holds(told := (await admin.nodes())[node]):
            await asyncio.sleep(0.02)
    return told


async def test_bad_telemetry_is_told_once_and_costs_neither_its_node_nor_another_a_sample(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seeds = {node: place.folder / f"{node}.nk" for node in ("gpu-1", "gpu-2")}
    place.nats.agents_file.write_text(render_agents((node, public_key(seed)) for node, seed in seeds.items()))
    async with AsyncExitStack() as stack:
        ops = await stack.enter_async_context(running(place.settings()))
        admin = await stack.enter_async_context(calling(place))
        agents = {}
        for node, seed in seeds.items():
            await admin("EnrolNode", wire.EnrolNodeRequest(actor="ada", name=node))
            bus = await stack.enter_async_context(open_nats_bus(place.nats.url, node, seed_file=seed))
            await asyncio.wait_for(bus.wait_connected(), 10)
            agents[node] = Agent(bus, node)
        bad, good = agents["gpu-1"], agents["gpu-2"]
        for name, agent in agents.items():
            await _first_heard(admin, agent, name)
        begun = {name: node.samples for name, node in (await admin.nodes()).items()}

        for number in range(10):
            await bad.send(b"\xff\x00 no protobuf")
            await bad.send(b"x" * 400_000)
            await bad.say(10_000, gpus=[GpuSample(utilization_percent=2**31)])
            await bad.say(10_000, node="gpu-2")  # in another's name
            await bad.say(0)
            await bad.say(1)  # once more
            await bad.say(1 + number, host="beta\x1b[2J", started=3)  # another agent, which started before
            await bad.say()
            await good.say()
        told = {}
        for name in agents:
            told[name] = await _until(admin, name, lambda node: node.samples >= begun[node.name] + 10)
        assert {name: node.samples_lost for name, node in told.items()} == {"gpu-1": 0, "gpu-2": 0}
        assert not told["gpu-2"].problems
        (rivals,) = told["gpu-1"].problems
        assert rivals.startswith("Two agents speak for it: one on alpha, which counts, and one on beta")

        for _ in range(4):
            await bad.say(ahead_s=-7200)
        await _until(admin, "gpu-1", lambda node: any("clock is 2 h behind" in one for one in node.problems))
        for _ in range(4):
            await bad.say(host="gamma\x1b[2J")
        moved = await _until(admin, "gpu-1", lambda node: any("another machine" in one for one in node.problems))
        assert all(sentence.isprintable() for sentence in moved.problems)
        assert moved.id == told["gpu-1"].id

        text = ops.metrics.exposition().decode()
        for reason in ("malformed", "foreign_subject", "out_of_order"):
            assert f'forebay_registry_samples_dropped_total{{reason="{reason}"}}' in text
    actions = [vars(record).get("action") for record in caplog.records]
    for action in ("node_two_agents", "node_clock_wrong", "node_other_machine"):
        assert actions.count(action) == 1, actions
    dropped = [vars(r)["why"] for r in caplog.records if vars(r).get("action") == "sample_dropped"]
    assert sorted(dropped) == ["foreign_subject", "malformed", "out_of_order", "second_agent"]


async def _first_heard(admin: Caller, agent: Agent, node: str) -> None:
    """The registry may still be on its way to the bus."""
    async with asyncio.timeout(10):
        while not (await admin.nodes())[node].samples:
            await agent.say()
            await asyncio.sleep(0.05)
