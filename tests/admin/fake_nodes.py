"""The registry's part about engines that were found and commands to agents, as admin calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from forebay.errors import NotFound, Unavailable
from forebay.wire.v1 import commands_pb2, discovery_pb2, types_pb2
from forebay.wire.v1.commands_pb2_grpc import NodeCommandsServicer
from forebay.wire.v1.discovery_pb2_grpc import DiscoveryServicer

COMMAND_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI"


class FakeNodes(DiscoveryServicer, NodeCommandsServicer):
    def __init__(self) -> None:
        self.actors: list[str] = []
        self.commands: list[commands_pb2.CommandNodeRequest] = []
        self.answers = [
            commands_pb2.NodeCommandAnswer(
                node="gpu-1",
                id="1",
                state=commands_pb2.COMMAND_STATE_RUNNING,
                message="pulling",
                done_bytes=1,
                total_bytes=2,
            ),
            commands_pb2.NodeCommandAnswer(
                node="gpu-1", id="1", state=commands_pb2.COMMAND_STATE_DONE, message="llama3.1 is there."
            ),
        ]
        """Of each command; none: the agent does not answer."""
        self.site = discovery_pb2.NodeDiscovery(node="gpu-1", joined_from="10.0.0.5")
        self.found = [
            discovery_pb2.FoundBackend(
                name="gpu-1-ollama-11434",
                found_by="agent",
                node="gpu-1",
                why_not="It listens on 127.0.0.1 only.",
                engine=discovery_pb2.FoundEngine(
                    kind=types_pb2.ENGINE_KIND_OLLAMA, port=11434, listens_on="127.0.0.1", version="0.33.0", models=1
                ),
                standing=discovery_pb2.FOUND_STANDING_NOT_POSSIBLE,
            ),
            discovery_pb2.FoundBackend(
                name="gpu-1-vllm-8000",
                found_by="agent",
                node="gpu-1",
                url="http://10.0.0.5:8000",
                engine=discovery_pb2.FoundEngine(
                    kind=types_pb2.ENGINE_KIND_VLLM,
                    port=8000,
                    listens_on="0.0.0.0",
                    gpu_indices=[0, 1],
                    gpus_known=True,
                ),
                standing=discovery_pb2.FOUND_STANDING_SUGGESTED,
            ),
        ]

    async def ListFoundBackends(
        self, request: discovery_pb2.ListFoundBackendsRequest, context: Any
    ) -> discovery_pb2.ListFoundBackendsResponse:
        return discovery_pb2.ListFoundBackendsResponse(found=self.found, nodes=[self.site])

    async def AdoptBackend(
        self, request: discovery_pb2.AdoptBackendRequest, context: Any
    ) -> discovery_pb2.AdoptBackendResponse:
        self.actors.append(request.actor)
        one = next((one for one in self.found if one.name == request.name), None)
        if one is None:
            raise NotFound(f"Nothing was found under the name {request.name!r}.")
        return discovery_pb2.AdoptBackendResponse(name=request.as_name or one.name, url=one.url, created=True)

    async def SetNodeDiscovery(
        self, request: discovery_pb2.SetNodeDiscoveryRequest, context: Any
    ) -> discovery_pb2.SetNodeDiscoveryResponse:
        self.actors.append(request.actor)
        before = discovery_pb2.NodeDiscovery()
        before.CopyFrom(self.site)
        if request.HasField("policy"):
            self.site.policy = request.policy
        if request.HasField("pool"):
            self.site.pool = request.pool
        if request.HasField("addresses"):
            self.site.addresses[:] = request.addresses.all
        return discovery_pb2.SetNodeDiscoveryResponse(before=before, after=self.site)

    async def CommandNode(
        self, request: commands_pb2.CommandNodeRequest, context: Any
    ) -> AsyncIterator[commands_pb2.CommandNodeResponse]:
        self.actors.append(request.actor)
        self.commands.append(request)
        for answer in self.answers:
            yield commands_pb2.CommandNodeResponse(answer=answer)
        if not self.answers:
            raise Unavailable("The agent of gpu-1 does not answer; it was last heard 90 s ago.")
