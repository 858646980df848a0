"""From an engine on a node to a backend of the fleet, and commands on the way: a real agent, a real registry, real NATS."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from forebay.clock import SystemClock
from forebay.errors import NotFound, NotPossible
from forebay.local.nats import public_key
from forebay.memory_bus import MemoryBus
from forebay.nats_rights import render_agents
from forebay.ops import Ops
from forebay.rpc import open_peer, translated
from forebay.service import Ground
from forebay.wire.v1 import commands_pb2, discovery_pb2
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.commands_pb2_grpc import NodeCommandsStub
from forebay.wire.v1.discovery_pb2_grpc import DiscoveryStub
from forebay_gpu_agent.config import GpuAgentSettings
from forebay_gpu_agent.service import open_gpu_agent
from tests.conftest import NatsServer, free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.registry.test_service import HEALTHY, Place, calling, running

SUGGESTED, ADDED, DECLARED, TURNED_AWAY, NOT_POSSIBLE = (
    discovery_pb2.FOUND_STANDING_SUGGESTED,
    discovery_pb2.FOUND_STANDING_ADDED,
    discovery_pb2.FOUND_STANDING_DECLARED,
    discovery_pb2.FOUND_STANDING_TURNED_AWAY,
    discovery_pb2.FOUND_STANDING_NOT_POSSIBLE,
)


@pytest.fixture
def place(tmp_path: Path, registry_database_url: str, nats_server: NatsServer) -> Place:
    (tmp_path / "command.key").write_text(secrets.token_hex(32))
    return Place(tmp_path, registry_database_url, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", nats_server)


class Operator:
    def __init__(self, discovery: Any, commands: Any, metadata: Any) -> None:
        self._discovery, self._commands, self._metadata = discovery, commands, metadata

    async def found(self) -> dict[str, discovery_pb2.FoundBackend]:
        request = discovery_pb2.ListFoundBackendsRequest()
        told = await self._discovery.ListFoundBackends(request, metadata=self._metadata, timeout=30)
        return {one.name: one for one in told.found}

    async def standing(self, name: str, wanted: int, within_s: float = 60.0) -> discovery_pb2.FoundBackend:
        async with asyncio.timeout(within_s):
            while (one := (await self.found()).get(name)) is None or one.standing != wanted:
                await asyncio.sleep(0.05)
        return one

    async def adopt(self, **more: Any) -> discovery_pb2.AdoptBackendResponse:
        request = discovery_pb2.AdoptBackendRequest(actor="ada", **more)
        with translated():
            answer: discovery_pb2.AdoptBackendResponse = await self._discovery.AdoptBackend(
                request, metadata=self._metadata, timeout=30
            )
        return answer

    async def set(self, **more: Any) -> discovery_pb2.SetNodeDiscoveryResponse:
        request = discovery_pb2.SetNodeDiscoveryRequest(actor="ada", node="gpu-1", **more)
        with translated():
            answer: discovery_pb2.SetNodeDiscoveryResponse = await self._discovery.SetNodeDiscovery(
                request, metadata=self._metadata, timeout=30
            )
        return answer

    async def command(self, **order: Any) -> commands_pb2.NodeCommandAnswer:
        request = commands_pb2.CommandNodeRequest(actor="ada", node="gpu-1", **order)
        with translated():
            call = self._commands.CommandNode(request, metadata=self._metadata, timeout=20)
            answers: list[commands_pb2.NodeCommandAnswer] = [one.answer async for one in call]
        return answers[-1]


@asynccontextmanager
async def operating(place: Place) -> AsyncIterator[Operator]:
    async with open_peer(place.listen, token=place.tokens["admin"]) as peer:
        yield Operator(DiscoveryStub(peer.channel), NodeCommandsStub(peer.channel), peer.metadata)


@asynccontextmanager
async def agent(place: Place, command_key: str, port: int) -> AsyncIterator[None]:
    clock = SystemClock()
    settings = GpuAgentSettings(
        node="gpu-1",
        interval_s=0.2,
        idle_interval_s=0.5,
        engine_ports=(port,),
        engines_interval_s=1.0,
        command_key=command_key,
        nats_url=place.nats.url,
        nats_seed_file=place.folder / "agent.nk",
    )
    async with open_gpu_agent(settings, Ground("gpu-agent", clock, Ops("gpu-agent"), MemoryBus(clock.now))):
        yield


async def test_an_engine_on_a_node_is_found_suggested_adopted_and_later_added_by_itself(
    place: Place, eventually: Callable[..., Any]
) -> None:
    place.nats.agents_file.write_text(render_agents([("gpu-1", public_key(place.folder / "agent.nk"))]))
    settings = place.settings(command_key_file=place.folder / "command.key")
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(FakeEngine(flavour=Flavour.OLLAMA, models=("m",)))
        await stack.enter_async_context(running(settings))
        caller = await stack.enter_async_context(calling(place))
        ada = await stack.enter_async_context(operating(place))
        watch = await stack.enter_async_context(caller.watching())
        enrolled = await caller("EnrolNode", wire.EnrolNodeRequest(actor="ada", name="gpu-1", joined_from="127.0.0.1"))
        assert enrolled.command_key.startswith("ssh-ed25519 ")
        await stack.enter_async_context(agent(place, enrolled.command_key, engine.port))

        name = f"gpu-1-ollama-{engine.port}"
        found = await ada.standing(name, NOT_POSSIBLE)
        assert "listens on 127.0.0.1 only" in found.why_not
        with pytest.raises(NotPossible, match="OLLAMA_HOST"):
            await ada.adopt(name=name)
        changed = await ada.set(addresses=discovery_pb2.Addresses(all=["127.0.0.1"]))
        assert (list(changed.before.addresses), list(changed.after.addresses)) == ([], ["127.0.0.1"])
        found = await ada.standing(name, SUGGESTED)
        assert (found.url, found.node, found.engine.models) == (engine.url, "gpu-1", 1)
        assert found.engine.gpus_known, "a machine without a GPU holds none for certain"

        adopted = await ada.adopt(name=name, as_name="laptop", slots=3)
        assert (adopted.name, adopted.created) == ("laptop", True)
        await eventually(lambda: watch.health("laptop") == HEALTHY)
        backend = watch.fleet["laptop"]
        assert (backend.node_id, backend.slots, backend.found_by) == (enrolled.node.id, 3, "")
        await ada.standing("laptop", DECLARED)

        assert (await ada.command(sample=commands_pb2.SampleNow())).state == commands_pb2.COMMAND_STATE_DONE
        pulled = await ada.command(pull=commands_pb2.PullModel(model="new"))
        assert (pulled.state, pulled.message) == (commands_pb2.COMMAND_STATE_DONE, "new is there.")
        refused = await ada.command(delete=commands_pb2.DeleteModel(model="new"))
        assert (refused.state, refused.reason) == (commands_pb2.COMMAND_STATE_REFUSED, "not_allowed")

        await caller("RemoveBackend", wire.RemoveBackendRequest(actor="ada", name="laptop"))
        await ada.standing(name, SUGGESTED)
        await ada.set(policy=discovery_pb2.DISCOVERY_POLICY_AUTO, pool="lab")
        await eventually(lambda: watch.health(name) == HEALTHY)
        backend = watch.fleet[name]
        assert (backend.found_by, backend.pool, backend.node_id) == ("agent", "lab", enrolled.node.id)
        await ada.standing(name, ADDED)

        await caller("RemoveBackend", wire.RemoveBackendRequest(actor="ada", name=name))
        await ada.standing(name, TURNED_AWAY)
        assert name not in await caller.backends()
        assert (await ada.adopt(name=name)).created, "an operator may change their mind"
        with pytest.raises(NotFound, match="Nothing was found under the name 'x'"):
            await ada.adopt(name="x")


async def test_a_backend_that_was_added_by_itself_outlives_the_registry_and_goes_with_its_engine(place: Place) -> None:
    place.nats.agents_file.write_text(render_agents([("gpu-1", public_key(place.folder / "agent.nk"))]))
    settings = place.settings(
        command_key_file=place.folder / "command.key", discovery_auto=True, discovery_forget_s=2.0
    )
    async with FakeEngine(flavour=Flavour.VLLM) as engine:
        name = f"gpu-1-vllm-{engine.port}"
        async with running(settings), calling(place) as caller, operating(place) as ada:
            key = (await caller("EnrolNode", wire.EnrolNodeRequest(actor="ada", name="gpu-1"))).command_key
            await ada.set(addresses=discovery_pb2.Addresses(all=["127.0.0.1"]))
            async with agent(place, key, engine.port):
                await ada.standing(name, ADDED)
        async with (
            running(settings),
            operating(place) as ada,
            calling(place) as caller,
            agent(place, key, engine.port),
        ):
            assert (await ada.standing(name, ADDED)).engine.port == engine.port
            await engine.stop()
            async with asyncio.timeout(10):
                while not (one := (await ada.found()).get(name)) or not one.HasField("gone_at_us"):
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                while name in await caller.backends():
                    await asyncio.sleep(0.05)
