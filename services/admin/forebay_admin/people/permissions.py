"""Permissions: names for what may be done, of which custom roles and narrow tokens are made. Pure; whether somebody may make
a call is `rights`' business.

A permission is a group of calls, such as `keys:write`, or a single call, such as `ShowUsage`; with `:own` at its end it is
about the bearer's own things only. A call that stands in no group can be given by its own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from forebay.errors import BadInput
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, calls, reach

OWN = ":own"
MOST = 100
"""So many permissions one role or token may have."""

GROUPS: Mapping[str, frozenset[str]] = {
    name: frozenset(members)
    for name, members in {
        "keys:read": ("ListKeys", "ListSigningKeys"),
        "keys:write": (
            *("CreateKey", "RevokeKey", "ChangeKey", "AddSigningKey", "RemoveSigningKey"),
            *("SetKeyTerms", "RenewKey", "RotateKey", "BlockKey", "UnblockKey", "ImportKeys"),
        ),
        "users:read": ("ListUsers", "ShowUser", "ListGroups", "ListCustomRoles", "ListAccessRequests"),
        "users:write": (
            *("AddUser", "ChangeUser", "AddServiceAccount", "SetUserRights", "SetCustomRole", "RemoveCustomRole"),
            *("DecideAccessRequest", "ImportUsers", "AddGroup", "ChangeGroup", "RemoveGroup", "PresetGroups"),
        ),
        "access:read": ("ListTokens", "ListSessions"),
        "access:write": (
            *("CreateToken", "RevokeToken", "EndSession", "EndSessions", "ResetPassword", "ChangePassword"),
        ),
        "usage:read": ("ShowUsage", "QueryUsage", "ReadLedger", "ShowCost"),
        "dead-letters:read": ("ListDeadLetters", "ShowDeadLetter"),
        "dead-letters:write": ("RetryDeadLetters",),
        "quotas:read": ("ListQuotas", "ShowQuota", "ShowMemberLimits", "ListQuotaRequests"),
        "quotas:ask": ("RequestQuota",),
        "quotas:write": (
            *("SetLimits", "AddBudget", "ChangeBudget", "RemoveBudget", "SetBudgetThresholds", "DecideQuotaRequest"),
            "SetMemberLimits",
        ),
        "prices:read": ("ListModelTerms", "ListPrices"),
        "prices:write": ("SetModelTerms", "RemoveModelTerms", "SetPrice", "CancelPrice"),
        "balances:read": ("ListBalances", "ShowBalance"),
        "balances:write": ("OpenBalance", "CloseBalance", "PostBalance"),
        "models:read": (
            *("ShowModels", "DescribeModel", "ListModelRules", "ListModelJobs", "FollowModelJob", "ListModelPins"),
        ),
        "models:write": (
            *("SetModelAlias", "RemoveModelAlias", "SetModelRule", "RemoveModelRule"),
            *("SetModelFallback", "RemoveModelFallback", "StartModelJob", "CancelModelJob", "PinModel"),
        ),
        "fleet:read": (
            *("ShowBackends", "ListBackendCredentials", "ShowBackendHealth", "ShowNodes", "ListPools", "ExportFleet"),
            *("ShowFleetVersions", "ShowMaintenance", "ShowFoundBackends"),
        ),
        "fleet:write": (
            *("RegisterBackend", "UnregisterBackend", "NameBackendModels", "AdoptBackend", "DrainBackend"),
            "ProbeBackend",
            *("AddBackendCredential", "RemoveBackendCredential", "InviteNode", "DrainNode", "SetNodeDiscovery"),
            *("CommandNode", "SetPoolTerms", "RemovePoolTerms", "ApplyFleet"),
            *("ChangeBackend", "ChangeNode", "ChangePool"),
            *("ScheduleMaintenance", "CancelMaintenance"),
        ),
        "queue:read": ("ViewQueue", "ViewExplanation"),
        "queue:dump": ("ViewDump",),
        "history:read": ("ShowHistory", "ShowSeries", "ShowEnergy"),
        "alerts:read": ("ListAlerts", "ShowAlert", "WatchAlerts"),
        "alerts:write": ("AckAlert", "SilenceAlerts", "UnsilenceAlerts", "TestAlerts"),
        "status:read": ("ShowStatus",),
        "audit:read": ("ListAudit", "VerifyAudit", "ListRecordingPolicies"),
        "recordings:read": ("SearchRecordings", "ShowRecording"),
        "security:read": ("ListAddressRules", "ListBans", "ListSecurityEvents", "WatchSecurityEvents"),
        "security:ban": ("AddBan", "RemoveBan"),
        "security:write": ("SetAddressPolicy", "AddAddressRule", "RemoveAddressRule"),
        "recordings:write": ("DeleteRecordings", "SetRecordingPolicy"),
        "events:read": ("ListSubscriptions", "ListEvents", "ShowEvent"),
        "events:write": ("AddSubscription", "RemoveSubscription", "TestSubscription", "RetryDeliveries"),
    }.items()
}


@dataclass(frozen=True, slots=True)
class Permission:
    name: str
    """Of a group or of a call."""
    is_own: bool = False

    def __str__(self) -> str:
        return f"{self.name}{OWN}" if self.is_own else self.name

    def reach(self, call: str) -> Reach:
        """How far it goes at that call: never further than an admin's reach."""
        if call != self.name and call not in GROUPS.get(self.name, ()):
            return Reach.NONE
        most = reach(Role.ADMIN, call)
        if not self.is_own or most is Reach.NONE:
            return most
        return Reach.OWN if call in _OWN_CALLS else Reach.NONE


_OWN_CALLS = frozenset(call for call in calls() if any(reach(role, call) is Reach.OWN for role in Role))


def parse_permission(text: str) -> Permission:
    """Raises BadInput."""
    name = text.strip().removesuffix(OWN)
    found = Permission(name, is_own=text.strip().endswith(OWN))
    if name not in GROUPS and name not in calls():
        raise BadInput(
            f"There is no permission {name[:60]!r}; there are {', '.join(GROUPS)}, and names of calls, such as ShowUsage."
        )
    if found.is_own and not (GROUPS.get(name, frozenset({name})) & _OWN_CALLS):
        raise BadInput(f"Nothing in {name} is about one's own things; leave {OWN} out.")
    return found


def parse_permissions(texts: Iterable[str]) -> tuple[Permission, ...]:
    """Each once, in the order of their names; at least one. Raises BadInput."""
    found = sorted({parse_permission(text) for text in texts}, key=str)
    if not found:
        raise BadInput("Name at least one permission, such as keys:read.")
    if len(found) > MOST:
        raise BadInput(f"At most {MOST} permissions go together.")
    return tuple(found)


def known_permissions(texts: Iterable[str]) -> tuple[Permission, ...]:
    """Of what was kept: a name that this version does not know gives nothing."""
    found = []
    for text in texts:
        try:
            found.append(parse_permission(text))
        except BadInput:
            continue
    return tuple(found)
