"""The operators' calls of `rights_desk`, `access_desk` and `access_requests_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import access_requests_pb2, identity_pb2
from forebay_admin.people.access import Access
from forebay_admin.people.rights_desk import RightsDesk
from forebay_admin.sign_in.access_desk import AccessDesk
from forebay_admin.sign_in.access_requests_desk import AccessRequestsDesk


class IdentityCalls:
    _access: Access
    _rights: RightsDesk
    _sign_in: AccessDesk
    _access_requests: AccessRequestsDesk

    async def WhoAmI(self, request: identity_pb2.WhoAmIRequest, context: Any) -> identity_pb2.WhoAmIResponse:
        return await self._sign_in.who_am_i(self._access.actor())

    async def ShowUser(self, request: identity_pb2.ShowUserRequest, context: Any) -> identity_pb2.ShowUserResponse:
        return await self._rights.show_user(request, self._access.actor())

    async def AddServiceAccount(
        self, request: identity_pb2.AddServiceAccountRequest, context: Any
    ) -> identity_pb2.AddServiceAccountResponse:
        return await self._rights.add_service_account(request, self._access.actor())

    async def SetUserRights(
        self, request: identity_pb2.SetUserRightsRequest, context: Any
    ) -> identity_pb2.SetUserRightsResponse:
        return await self._rights.set_user_rights(request, self._access.actor())

    async def ListCustomRoles(
        self, request: identity_pb2.ListCustomRolesRequest, context: Any
    ) -> identity_pb2.ListCustomRolesResponse:
        return await self._rights.list_roles()

    async def SetCustomRole(
        self, request: identity_pb2.SetCustomRoleRequest, context: Any
    ) -> identity_pb2.SetCustomRoleResponse:
        return await self._rights.set_role(request, self._access.actor())

    async def RemoveCustomRole(
        self, request: identity_pb2.RemoveCustomRoleRequest, context: Any
    ) -> identity_pb2.RemoveCustomRoleResponse:
        return await self._rights.remove_role(request, self._access.actor())

    async def CreateToken(
        self, request: identity_pb2.CreateTokenRequest, context: Any
    ) -> identity_pb2.CreateTokenResponse:
        return await self._sign_in.create_token(request, self._access.actor())

    async def ListTokens(
        self, request: identity_pb2.ListTokensRequest, context: Any
    ) -> identity_pb2.ListTokensResponse:
        return await self._sign_in.list_tokens(request, self._access.actor())

    async def RevokeToken(
        self, request: identity_pb2.RevokeTokenRequest, context: Any
    ) -> identity_pb2.RevokeTokenResponse:
        return await self._sign_in.revoke_token(request, self._access.actor())

    async def ListSessions(
        self, request: identity_pb2.ListSessionsRequest, context: Any
    ) -> identity_pb2.ListSessionsResponse:
        return await self._sign_in.list_sessions(request, self._access.actor())

    async def EndSession(
        self, request: identity_pb2.EndSessionRequest, context: Any
    ) -> identity_pb2.EndSessionResponse:
        return await self._sign_in.end_session(request, self._access.actor())

    async def EndSessions(
        self, request: identity_pb2.EndSessionsRequest, context: Any
    ) -> identity_pb2.EndSessionsResponse:
        return await self._sign_in.end_sessions(request, self._access.actor())

    async def ResetPassword(
        self, request: identity_pb2.ResetPasswordRequest, context: Any
    ) -> identity_pb2.ResetPasswordResponse:
        return await self._sign_in.reset_password(request, self._access.actor())

    async def ChangePassword(
        self, request: identity_pb2.ChangePasswordRequest, context: Any
    ) -> identity_pb2.ChangePasswordResponse:
        return await self._sign_in.change_password(request, self._access.actor())

    async def ListAccessRequests(
        self, request: access_requests_pb2.ListAccessRequestsRequest, context: Any
    ) -> access_requests_pb2.ListAccessRequestsResponse:
        return await self._access_requests.list_all(request)

    async def DecideAccessRequest(
        self, request: access_requests_pb2.DecideAccessRequestRequest, context: Any
    ) -> access_requests_pb2.DecideAccessRequestResponse:
        return await self._access_requests.decide(request, self._access.actor())
