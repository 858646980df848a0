"""The gRPC surface that operators call: one method a call, each handed to the desk that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forebay.clock import Clock
from forebay.database import Database
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc, fleet_pb2
from forebay_admin.audit.audit_calls import AuditCalls
from forebay_admin.audit.audit_desk import AuditDesk
from forebay_admin.bulk.bulk_calls import BulkCalls
from forebay_admin.bulk.bulk_desk import BulkDesk
from forebay_admin.fleet.alerts_calls import AlertsCalls
from forebay_admin.fleet.alerts_desk import AlertsDesk
from forebay_admin.fleet.credentials_desk import CredentialsDesk
from forebay_admin.fleet.fleet_desk import FleetDesk
from forebay_admin.fleet.history_calls import HistoryCalls
from forebay_admin.fleet.history_desk import HistoryDesk
from forebay_admin.fleet.library_calls import LibraryCalls
from forebay_admin.fleet.library_desk import LibraryDesk
from forebay_admin.fleet.lifecycle_calls import LifecycleCalls
from forebay_admin.fleet.lifecycle_desk import LifecycleDesk
from forebay_admin.fleet.nodes_calls import NodesCalls
from forebay_admin.fleet.nodes_desk import NodesDesk
from forebay_admin.fleet.parts_calls import FleetPartsCalls
from forebay_admin.fleet.parts_desk import FleetPartsDesk
from forebay_admin.fleet.state_desk import FleetStateDesk
from forebay_admin.fleet.status_desk import StatusDesk
from forebay_admin.keys.key_calls import KeyCalls
from forebay_admin.keys.keys_desk import KeysDesk
from forebay_admin.keys.signing_desk import SigningDesk
from forebay_admin.ledger.cost_desk import CostDesk
from forebay_admin.ledger.letters_desk import LettersDesk
from forebay_admin.ledger.usage_calls import UsageCalls
from forebay_admin.ledger.usage_desk import UsageDesk
from forebay_admin.models.fallbacks_desk import FallbacksDesk
from forebay_admin.models.model_rules_desk import ModelRulesDesk
from forebay_admin.models.terms_desk import TermsDesk
from forebay_admin.money.balances_desk import BalancesDesk
from forebay_admin.money.money_calls import MoneyCalls
from forebay_admin.money.prices_desk import PricesDesk
from forebay_admin.notify.notify_calls import NotifyCalls
from forebay_admin.notify.notify_desk import NotifyDesk
from forebay_admin.people.access import Access
from forebay_admin.people.people_desk import PeopleDesk
from forebay_admin.people.rights_desk import RightsDesk
from forebay_admin.people.shares_desk import SharesDesk
from forebay_admin.queue.scheduler_desk import SchedulerDesk
from forebay_admin.quotas.member_calls import MemberCalls
from forebay_admin.quotas.members_desk import MembersDesk
from forebay_admin.quotas.quota_desk import QuotaDesk
from forebay_admin.quotas.request_calls import QuotaRequestCalls
from forebay_admin.quotas.requests_desk import QuotaRequestsDesk
from forebay_admin.recordings.recordings_calls import RecordingsCalls
from forebay_admin.recordings.recordings_desk import RecordingsDesk
from forebay_admin.security.addresses_desk import AddressesDesk
from forebay_admin.security.calls import SecurityCalls
from forebay_admin.security.events_desk import SecurityEventsDesk
from forebay_admin.sign_in.access_desk import AccessDesk
from forebay_admin.sign_in.access_requests_desk import AccessRequestsDesk
from forebay_admin.sign_in.calls import IdentityCalls
from forebay_admin.unbroken import to_its_end


@dataclass(frozen=True, slots=True)
class Desks:
    people: PeopleDesk
    signing: SigningDesk
    shares: SharesDesk
    quotas: QuotaDesk
    terms: TermsDesk
    prices: PricesDesk
    balances: BalancesDesk
    usage: UsageDesk
    costs: CostDesk
    letters: LettersDesk
    model_rules: ModelRulesDesk
    fallbacks: FallbacksDesk
    fleet: FleetDesk
    fleet_state: FleetStateDesk
    fleet_parts: FleetPartsDesk
    credentials: CredentialsDesk
    scheduler: SchedulerDesk
    nodes: NodesDesk
    history: HistoryDesk
    library: LibraryDesk
    lifecycle: LifecycleDesk
    alerts: AlertsDesk
    status: StatusDesk
    rights: RightsDesk
    sign_in: AccessDesk
    access_requests: AccessRequestsDesk
    keys: KeysDesk
    bulk: BulkDesk
    quota_requests: QuotaRequestsDesk
    members: MembersDesk
    notify: NotifyDesk
    audit: AuditDesk
    recordings: RecordingsDesk
    addresses: AddressesDesk
    security_events: SecurityEventsDesk


class OperatorServicer(
    MoneyCalls,
    UsageCalls,
    FleetPartsCalls,
    HistoryCalls,
    NodesCalls,
    LifecycleCalls,
    LibraryCalls,
    AlertsCalls,
    IdentityCalls,
    KeyCalls,
    BulkCalls,
    QuotaRequestCalls,
    MemberCalls,
    NotifyCalls,
    AuditCalls,
    RecordingsCalls,
    SecurityCalls,
    admin_pb2_grpc.OperatorServicer,
):
    def __init__(self, access: Access, desks: Desks, database: Database, clock: Clock) -> None:
        self._access = access
        self._people = desks.people
        self._signing = desks.signing
        self._shares = desks.shares
        self._quotas = desks.quotas
        self._terms = desks.terms
        self._prices = desks.prices
        self._balances = desks.balances
        self._usage = desks.usage
        self._costs = desks.costs
        self._letters = desks.letters
        self._model_rules = desks.model_rules
        self._fallbacks = desks.fallbacks
        self._fleet = desks.fleet
        self._fleet_state = desks.fleet_state
        self._fleet_parts = desks.fleet_parts
        self._credentials = desks.credentials
        self._scheduler = desks.scheduler
        self._nodes = desks.nodes
        self._history = desks.history
        self._library = desks.library
        self._lifecycle = desks.lifecycle
        self._alerts = desks.alerts
        self._status = desks.status
        self._rights = desks.rights
        self._sign_in = desks.sign_in
        self._access_requests = desks.access_requests
        self._keys = desks.keys
        self._bulk = desks.bulk
        self._quota_requests = desks.quota_requests
        self._members = desks.members
        self._notify = desks.notify
        self._audit = desks.audit
        self._recordings = desks.recordings
        self._addresses = desks.addresses
        self._security_events = desks.security_events
        self._database = database
        self._clock = clock

    async def CreateKey(self, request: admin_pb2.CreateKeyRequest, context: Any) -> admin_pb2.CreateKeyResponse:
        return await self._people.create_key(request, self._access.actor())

    async def ListKeys(self, request: admin_pb2.ListKeysRequest, context: Any) -> admin_pb2.ListKeysResponse:
        return await self._people.list_keys(request, self._access.actor())

    async def RevokeKey(self, request: admin_pb2.RevokeKeyRequest, context: Any) -> admin_pb2.RevokeKeyResponse:
        return await self._people.revoke_key(request, self._access.actor())

    async def AddSigningKey(
        self, request: admin_pb2.AddSigningKeyRequest, context: Any
    ) -> admin_pb2.AddSigningKeyResponse:
        return await self._signing.add(request, self._access.actor())

    async def ListSigningKeys(
        self, request: admin_pb2.ListSigningKeysRequest, context: Any
    ) -> admin_pb2.ListSigningKeysResponse:
        return await self._signing.list_all(request, self._access.actor())

    async def RemoveSigningKey(
        self, request: admin_pb2.RemoveSigningKeyRequest, context: Any
    ) -> admin_pb2.RemoveSigningKeyResponse:
        return await self._signing.remove(request, self._access.actor())

    async def AddUser(self, request: admin_pb2.AddUserRequest, context: Any) -> admin_pb2.AddUserResponse:
        return await self._people.add_user(request, self._access.actor())

    async def ListUsers(self, request: admin_pb2.ListUsersRequest, context: Any) -> admin_pb2.ListUsersResponse:
        return await self._people.list_users(request)

    async def RegisterBackend(
        self, request: admin_pb2.RegisterBackendRequest, context: Any
    ) -> admin_pb2.RegisterBackendResponse:
        return await to_its_end(self._fleet.register_backend(request, self._access.actor()))

    async def ShowBackends(
        self, request: admin_pb2.ShowBackendsRequest, context: Any
    ) -> admin_pb2.ShowBackendsResponse:
        return await self._fleet.show_backends()

    async def UnregisterBackend(
        self, request: admin_pb2.UnregisterBackendRequest, context: Any
    ) -> admin_pb2.UnregisterBackendResponse:
        return await to_its_end(self._fleet.unregister_backend(request, self._access.actor()))

    async def NameBackendModels(
        self, request: admin_pb2.NameBackendModelsRequest, context: Any
    ) -> admin_pb2.NameBackendModelsResponse:
        return await to_its_end(self._fleet.name_models(request, self._access.actor()))

    async def AddBackendCredential(
        self, request: admin_pb2.AddBackendCredentialRequest, context: Any
    ) -> admin_pb2.AddBackendCredentialResponse:
        return await self._credentials.add(request, self._access.actor())

    async def ListBackendCredentials(
        self, request: admin_pb2.ListBackendCredentialsRequest, context: Any
    ) -> admin_pb2.ListBackendCredentialsResponse:
        return await self._credentials.list_all(request)

    async def RemoveBackendCredential(
        self, request: admin_pb2.RemoveBackendCredentialRequest, context: Any
    ) -> admin_pb2.RemoveBackendCredentialResponse:
        return await self._credentials.remove(request, self._access.actor())

    async def InviteNode(self, request: admin_pb2.InviteNodeRequest, context: Any) -> admin_pb2.InviteNodeResponse:
        return await to_its_end(self._fleet.invite_node(request, self._access.actor()))

    async def ShowNodes(self, request: admin_pb2.ShowNodesRequest, context: Any) -> admin_pb2.ShowNodesResponse:
        return await self._fleet.show_nodes()

    async def ShowModels(self, request: admin_pb2.ShowModelsRequest, context: Any) -> admin_pb2.ShowModelsResponse:
        return await self._fleet.show_models()

    async def ChangeUser(self, request: admin_pb2.ChangeUserRequest, context: Any) -> admin_pb2.ChangeUserResponse:
        return await self._shares.change_user(request, self._access.actor())

    async def ChangeKey(self, request: admin_pb2.ChangeKeyRequest, context: Any) -> admin_pb2.ChangeKeyResponse:
        return await self._shares.change_key(request, self._access.actor())

    async def AddGroup(self, request: admin_pb2.AddGroupRequest, context: Any) -> admin_pb2.AddGroupResponse:
        return await self._shares.add_group(request, self._access.actor())

    async def ListGroups(self, request: admin_pb2.ListGroupsRequest, context: Any) -> admin_pb2.ListGroupsResponse:
        return await self._shares.list_groups()

    async def ChangeGroup(self, request: admin_pb2.ChangeGroupRequest, context: Any) -> admin_pb2.ChangeGroupResponse:
        return await self._shares.change_group(request, self._access.actor())

    async def RemoveGroup(self, request: admin_pb2.RemoveGroupRequest, context: Any) -> admin_pb2.RemoveGroupResponse:
        return await self._shares.remove_group(request, self._access.actor())

    async def PresetGroups(
        self, request: admin_pb2.PresetGroupsRequest, context: Any
    ) -> admin_pb2.PresetGroupsResponse:
        return await self._shares.preset_groups(request, self._access.actor())

    async def SetLimits(self, request: admin_pb2.SetLimitsRequest, context: Any) -> admin_pb2.SetLimitsResponse:
        return await self._quotas.set_limits(request, self._access.actor())

    async def AddBudget(self, request: admin_pb2.AddBudgetRequest, context: Any) -> admin_pb2.AddBudgetResponse:
        return await self._quotas.add_budget(request, self._access.actor())

    async def ChangeBudget(
        self, request: admin_pb2.ChangeBudgetRequest, context: Any
    ) -> admin_pb2.ChangeBudgetResponse:
        return await self._quotas.change_budget(request, self._access.actor())

    async def RemoveBudget(
        self, request: admin_pb2.RemoveBudgetRequest, context: Any
    ) -> admin_pb2.RemoveBudgetResponse:
        return await self._quotas.remove_budget(request, self._access.actor())

    async def ListQuotas(self, request: admin_pb2.ListQuotasRequest, context: Any) -> admin_pb2.ListQuotasResponse:
        return await self._quotas.list_quotas()

    async def ShowQuota(self, request: admin_pb2.ShowQuotaRequest, context: Any) -> admin_pb2.ShowQuotaResponse:
        return await self._quotas.show_quota(request, self._access.actor())

    async def SetModelTerms(
        self, request: admin_pb2.SetModelTermsRequest, context: Any
    ) -> admin_pb2.SetModelTermsResponse:
        return await self._terms.set_model(request, self._access.actor())

    async def RemoveModelTerms(
        self, request: admin_pb2.RemoveModelTermsRequest, context: Any
    ) -> admin_pb2.RemoveModelTermsResponse:
        return await self._terms.remove_model(request, self._access.actor())

    async def ListModelTerms(
        self, request: admin_pb2.ListModelTermsRequest, context: Any
    ) -> admin_pb2.ListModelTermsResponse:
        return await self._terms.list_models()

    async def SetPoolTerms(
        self, request: admin_pb2.SetPoolTermsRequest, context: Any
    ) -> admin_pb2.SetPoolTermsResponse:
        return await self._terms.set_pool(request, self._access.actor())

    async def RemovePoolTerms(
        self, request: admin_pb2.RemovePoolTermsRequest, context: Any
    ) -> admin_pb2.RemovePoolTermsResponse:
        return await self._terms.remove_pool(request, self._access.actor())

    async def ListPools(self, request: admin_pb2.ListPoolsRequest, context: Any) -> admin_pb2.ListPoolsResponse:
        return await self._terms.list_pools()

    async def ApplyFleet(self, request: fleet_pb2.ApplyFleetRequest, context: Any) -> fleet_pb2.ApplyFleetResponse:
        return await to_its_end(self._fleet_state.apply(request, self._access.actor()))

    async def ExportFleet(self, request: fleet_pb2.ExportFleetRequest, context: Any) -> fleet_pb2.ExportFleetResponse:
        return await self._fleet_state.export(request)

    async def ShowFleetVersions(
        self, request: fleet_pb2.ShowFleetVersionsRequest, context: Any
    ) -> fleet_pb2.ShowFleetVersionsResponse:
        return await self._fleet_state.show_versions(request)

    async def SetModelAlias(
        self, request: admin_pb2.SetModelAliasRequest, context: Any
    ) -> admin_pb2.SetModelAliasResponse:
        return await self._model_rules.set_alias(request, self._access.actor())

    async def RemoveModelAlias(
        self, request: admin_pb2.RemoveModelAliasRequest, context: Any
    ) -> admin_pb2.RemoveModelAliasResponse:
        return await self._model_rules.remove_alias(request, self._access.actor())

    async def SetModelRule(
        self, request: admin_pb2.SetModelRuleRequest, context: Any
    ) -> admin_pb2.SetModelRuleResponse:
        return await self._model_rules.set_rule(request, self._access.actor())

    async def RemoveModelRule(
        self, request: admin_pb2.RemoveModelRuleRequest, context: Any
    ) -> admin_pb2.RemoveModelRuleResponse:
        return await self._model_rules.remove_rule(request, self._access.actor())

    async def ListModelRules(
        self, request: admin_pb2.ListModelRulesRequest, context: Any
    ) -> admin_pb2.ListModelRulesResponse:
        return await self._model_rules.list_all()

    async def SetModelFallback(
        self, request: admin_pb2.SetModelFallbackRequest, context: Any
    ) -> admin_pb2.SetModelFallbackResponse:
        return await self._fallbacks.set(request, self._access.actor())

    async def RemoveModelFallback(
        self, request: admin_pb2.RemoveModelFallbackRequest, context: Any
    ) -> admin_pb2.RemoveModelFallbackResponse:
        return await self._fallbacks.remove(request, self._access.actor())

    async def ViewQueue(self, request: admin_pb2.ViewQueueRequest, context: Any) -> admin_pb2.ViewQueueResponse:
        return await self._scheduler.view_queue()

    async def ViewExplanation(
        self, request: admin_pb2.ViewExplanationRequest, context: Any
    ) -> admin_pb2.ViewExplanationResponse:
        return await self._scheduler.view_explanation(request)

    async def ViewDump(self, request: admin_pb2.ViewDumpRequest, context: Any) -> admin_pb2.ViewDumpResponse:
        return await self._scheduler.view_dump()
