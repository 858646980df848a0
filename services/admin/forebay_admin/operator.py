"""The gRPC surface that operators call: one method a call, each handed to the desk that does it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_admin.access import Access
from forebay_admin.fleet_desk import FleetDesk
from forebay_admin.people_desk import PeopleDesk, whose_usage
from forebay_admin.people_store import user_named
from forebay_admin.usage_rows import record_from
from forebay_admin.usage_store import newest_rows, usage_sums
from forebay_admin.wire_forms import moment

MOST_ROWS = 10_000
_USUAL_ROWS = 50
_USUAL_SPAN = timedelta(hours=24)


class OperatorServicer(admin_pb2_grpc.OperatorServicer):
    def __init__(self, access: Access, people: PeopleDesk, fleet: FleetDesk, database: Database, clock: Clock) -> None:
        self._access = access
        self._people = people
        self._fleet = fleet
        self._database = database
        self._clock = clock

    async def CreateKey(self, request: admin_pb2.CreateKeyRequest, context: Any) -> admin_pb2.CreateKeyResponse:
        return await self._people.create_key(request, self._access.actor())

    async def ListKeys(self, request: admin_pb2.ListKeysRequest, context: Any) -> admin_pb2.ListKeysResponse:
        return await self._people.list_keys(request, self._access.actor())

    async def RevokeKey(self, request: admin_pb2.RevokeKeyRequest, context: Any) -> admin_pb2.RevokeKeyResponse:
        return await self._people.revoke_key(request, self._access.actor())

    async def AddUser(self, request: admin_pb2.AddUserRequest, context: Any) -> admin_pb2.AddUserResponse:
        return await self._people.add_user(request, self._access.actor())

    async def ListUsers(self, request: admin_pb2.ListUsersRequest, context: Any) -> admin_pb2.ListUsersResponse:
        return await self._people.list_users()

    async def RegisterBackend(
        self, request: admin_pb2.RegisterBackendRequest, context: Any
    ) -> admin_pb2.RegisterBackendResponse:
        return await self._fleet.register_backend(request, self._access.actor())

    async def ShowBackends(
        self, request: admin_pb2.ShowBackendsRequest, context: Any
    ) -> admin_pb2.ShowBackendsResponse:
        return await self._fleet.show_backends()

    async def UnregisterBackend(
        self, request: admin_pb2.UnregisterBackendRequest, context: Any
    ) -> admin_pb2.UnregisterBackendResponse:
        return await self._fleet.unregister_backend(request, self._access.actor())

    async def InviteNode(self, request: admin_pb2.InviteNodeRequest, context: Any) -> admin_pb2.InviteNodeResponse:
        return await self._fleet.invite_node(request, self._access.actor())

    async def ShowNodes(self, request: admin_pb2.ShowNodesRequest, context: Any) -> admin_pb2.ShowNodesResponse:
        return await self._fleet.show_nodes()

    async def ShowModels(self, request: admin_pb2.ShowModelsRequest, context: Any) -> admin_pb2.ShowModelsResponse:
        return await self._fleet.show_models()

    async def ShowUsage(self, request: admin_pb2.ShowUsageRequest, context: Any) -> admin_pb2.ShowUsageResponse:
        name = whose_usage(request.user, self._access.actor())
        if request.since_us < 0:
            raise BadInput("since_us is before 1970.")
        if request.limit > MOST_ROWS:
            raise BadInput(f"At most {MOST_ROWS} rows are told at once.")
        since = (
            moment(request.since_us) if request.since_us else moment(round(self._clock.now() * 1_000_000)) - _USUAL_SPAN
        )
        async with self._database.reading() as connection:
            user_id = (await user_named(connection, name)).id if name else None
            if request.rows:
                rows = await newest_rows(connection, since, user_id, request.limit or _USUAL_ROWS)
                return admin_pb2.ShowUsageResponse(rows=[record_from(row) for row in rows])
            sums = await usage_sums(connection, since, user_id)
        return admin_pb2.ShowUsageResponse(
            sums=[
                admin_pb2.UsageSum(
                    user_name=s.user_name,
                    model=s.model,
                    requests=s.requests,
                    finished=s.finished,
                    refused=s.refused,
                    failed=s.failed,
                    cancelled=s.cancelled,
                    prompt_tokens=s.prompt_tokens,
                    completion_tokens=s.completion_tokens,
                )
                for s in sums
            ]
        )
