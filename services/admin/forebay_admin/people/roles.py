"""Which role may make which call, and how far it reaches. Pure; who calls is `access`'s business.

The matrix is the whole of it: a call that does not stand here nobody may make."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from forebay_admin.people.people import Role


class Reach(StrEnum):
    NONE = "none"
    OWN = "own"
    """What belongs to the caller: their keys, their usage."""
    ALL = "all"


_NONE, _OWN, _ALL = Reach.NONE, Reach.OWN, Reach.ALL

_MATRIX: Mapping[str, tuple[Reach, Reach, Reach, Reach]] = {
    # call                member auditor operator admin
    "CreateKey": (_OWN, _OWN, _OWN, _ALL),
    "ListKeys": (_OWN, _ALL, _ALL, _ALL),
    "RevokeKey": (_OWN, _OWN, _OWN, _ALL),
    "SetKeyTerms": (_OWN, _OWN, _OWN, _ALL),
    "RenewKey": (_OWN, _OWN, _OWN, _ALL),
    "RotateKey": (_OWN, _OWN, _OWN, _ALL),
    "ImportKeys": (_OWN, _OWN, _OWN, _ALL),
    "BlockKey": (_NONE, _NONE, _ALL, _ALL),
    "UnblockKey": (_NONE, _NONE, _ALL, _ALL),
    "RequestQuota": (_OWN, _OWN, _OWN, _OWN),
    "ListQuotaRequests": (_OWN, _ALL, _ALL, _ALL),
    "DecideQuotaRequest": (_NONE, _NONE, _NONE, _ALL),
    "AddSigningKey": (_OWN, _OWN, _OWN, _ALL),
    "ListSigningKeys": (_OWN, _ALL, _ALL, _ALL),
    "RemoveSigningKey": (_OWN, _OWN, _OWN, _ALL),
    "AddUser": (_NONE, _NONE, _NONE, _ALL),
    "ImportUsers": (_NONE, _NONE, _NONE, _ALL),
    "ListUsers": (_NONE, _ALL, _ALL, _ALL),
    "RegisterBackend": (_NONE, _NONE, _ALL, _ALL),
    "ShowBackends": (_NONE, _ALL, _ALL, _ALL),
    "UnregisterBackend": (_NONE, _NONE, _ALL, _ALL),
    "NameBackendModels": (_NONE, _NONE, _ALL, _ALL),
    "AddBackendCredential": (_NONE, _NONE, _ALL, _ALL),
    "ListBackendCredentials": (_NONE, _ALL, _ALL, _ALL),
    "RemoveBackendCredential": (_NONE, _NONE, _ALL, _ALL),
    "InviteNode": (_NONE, _NONE, _ALL, _ALL),
    "ShowNodes": (_NONE, _ALL, _ALL, _ALL),
    "ShowModels": (_NONE, _ALL, _ALL, _ALL),
    "ShowUsage": (_OWN, _ALL, _ALL, _ALL),
    "QueryUsage": (_OWN, _ALL, _ALL, _ALL),
    "ReadLedger": (_OWN, _ALL, _ALL, _ALL),
    "ListDeadLetters": (_NONE, _ALL, _ALL, _ALL),
    "ShowDeadLetter": (_NONE, _ALL, _ALL, _ALL),
    "RetryDeadLetters": (_NONE, _NONE, _ALL, _ALL),
    "ChangeUser": (_NONE, _NONE, _NONE, _ALL),
    "ChangeKey": (_NONE, _NONE, _NONE, _ALL),
    "AddGroup": (_NONE, _NONE, _NONE, _ALL),
    "ListGroups": (_NONE, _ALL, _ALL, _ALL),
    "ChangeGroup": (_NONE, _NONE, _NONE, _ALL),
    "RemoveGroup": (_NONE, _NONE, _NONE, _ALL),
    "PresetGroups": (_NONE, _NONE, _NONE, _ALL),
    "SetLimits": (_NONE, _NONE, _NONE, _ALL),
    "AddBudget": (_NONE, _NONE, _NONE, _ALL),
    "ChangeBudget": (_NONE, _NONE, _NONE, _ALL),
    "RemoveBudget": (_NONE, _NONE, _NONE, _ALL),
    "SetMemberLimits": (_NONE, _NONE, _NONE, _ALL),
    "ShowMemberLimits": (_NONE, _ALL, _ALL, _ALL),
    "ListQuotas": (_NONE, _ALL, _ALL, _ALL),
    "ShowQuota": (_OWN, _ALL, _ALL, _ALL),
    "SetModelTerms": (_NONE, _NONE, _NONE, _ALL),
    "RemoveModelTerms": (_NONE, _NONE, _NONE, _ALL),
    "ListModelTerms": (_NONE, _ALL, _ALL, _ALL),
    "SetPoolTerms": (_NONE, _NONE, _ALL, _ALL),
    "RemovePoolTerms": (_NONE, _NONE, _ALL, _ALL),
    "ListPools": (_NONE, _ALL, _ALL, _ALL),
    "SetPrice": (_NONE, _NONE, _NONE, _ALL),
    "CancelPrice": (_NONE, _NONE, _NONE, _ALL),
    "ListPrices": (_NONE, _ALL, _ALL, _ALL),
    "ShowCost": (_OWN, _ALL, _ALL, _ALL),
    "OpenBalance": (_NONE, _NONE, _NONE, _ALL),
    "CloseBalance": (_NONE, _NONE, _NONE, _ALL),
    "PostBalance": (_NONE, _NONE, _NONE, _ALL),
    "ListBalances": (_NONE, _ALL, _ALL, _ALL),
    "ShowBalance": (_OWN, _ALL, _ALL, _ALL),
    "ApplyFleet": (_NONE, _NONE, _ALL, _ALL),
    "ChangeBackend": (_NONE, _NONE, _ALL, _ALL),
    "ChangeNode": (_NONE, _NONE, _ALL, _ALL),
    "ChangePool": (_NONE, _NONE, _ALL, _ALL),
    "ExportFleet": (_NONE, _ALL, _ALL, _ALL),
    "ShowFleetVersions": (_NONE, _ALL, _ALL, _ALL),
    "ShowHistory": (_NONE, _ALL, _ALL, _ALL),
    "ShowSeries": (_NONE, _ALL, _ALL, _ALL),
    "ShowEnergy": (_NONE, _ALL, _ALL, _ALL),
    "SetModelAlias": (_NONE, _NONE, _ALL, _ALL),
    "RemoveModelAlias": (_NONE, _NONE, _ALL, _ALL),
    "SetModelRule": (_NONE, _NONE, _ALL, _ALL),
    "RemoveModelRule": (_NONE, _NONE, _ALL, _ALL),
    "ListModelRules": (_NONE, _ALL, _ALL, _ALL),
    "SetModelFallback": (_NONE, _NONE, _ALL, _ALL),
    "RemoveModelFallback": (_NONE, _NONE, _ALL, _ALL),
    "ViewQueue": (_NONE, _ALL, _ALL, _ALL),
    "ViewExplanation": (_NONE, _ALL, _ALL, _ALL),
    "ViewDump": (_NONE, _NONE, _ALL, _ALL),
    "DrainBackend": (_NONE, _NONE, _ALL, _ALL),
    "DrainNode": (_NONE, _NONE, _ALL, _ALL),
    "ScheduleMaintenance": (_NONE, _NONE, _ALL, _ALL),
    "ShowMaintenance": (_NONE, _ALL, _ALL, _ALL),
    "CancelMaintenance": (_NONE, _NONE, _ALL, _ALL),
    "ShowBackendHealth": (_NONE, _ALL, _ALL, _ALL),
    "StartModelJob": (_NONE, _NONE, _ALL, _ALL),
    "ListModelJobs": (_NONE, _ALL, _ALL, _ALL),
    "FollowModelJob": (_NONE, _ALL, _ALL, _ALL),
    "CancelModelJob": (_NONE, _NONE, _ALL, _ALL),
    "DescribeModel": (_NONE, _ALL, _ALL, _ALL),
    "PinModel": (_NONE, _NONE, _ALL, _ALL),
    "ListModelPins": (_NONE, _ALL, _ALL, _ALL),
    "ShowFoundBackends": (_NONE, _ALL, _ALL, _ALL),
    "AdoptBackend": (_NONE, _NONE, _ALL, _ALL),
    "SetNodeDiscovery": (_NONE, _NONE, _ALL, _ALL),
    "CommandNode": (_NONE, _NONE, _ALL, _ALL),
    "ListAlerts": (_NONE, _ALL, _ALL, _ALL),
    "ShowAlert": (_NONE, _ALL, _ALL, _ALL),
    "AckAlert": (_NONE, _NONE, _ALL, _ALL),
    "SilenceAlerts": (_NONE, _NONE, _ALL, _ALL),
    "UnsilenceAlerts": (_NONE, _NONE, _ALL, _ALL),
    "WatchAlerts": (_NONE, _ALL, _ALL, _ALL),
    "TestAlerts": (_NONE, _NONE, _ALL, _ALL),
    "ShowStatus": (_NONE, _ALL, _ALL, _ALL),
    "ListAudit": (_NONE, _ALL, _ALL, _ALL),
    "VerifyAudit": (_NONE, _ALL, _ALL, _ALL),
    # What people asked and were told is not for those who run machines.
    "SearchRecordings": (_NONE, _ALL, _NONE, _ALL),
    "ShowRecording": (_NONE, _ALL, _NONE, _ALL),
    "DeleteRecordings": (_NONE, _NONE, _NONE, _ALL),
    "ListRecordingPolicies": (_NONE, _ALL, _ALL, _ALL),
    "SetRecordingPolicy": (_NONE, _NONE, _NONE, _ALL),
    "AddSubscription": (_OWN, _OWN, _ALL, _ALL),
    "ListSubscriptions": (_OWN, _ALL, _ALL, _ALL),
    "RemoveSubscription": (_OWN, _OWN, _ALL, _ALL),
    "TestSubscription": (_OWN, _OWN, _ALL, _ALL),
    "ListEvents": (_OWN, _ALL, _ALL, _ALL),
    "ShowEvent": (_OWN, _ALL, _ALL, _ALL),
    "RetryDeliveries": (_NONE, _NONE, _ALL, _ALL),
    "SetBudgetThresholds": (_NONE, _NONE, _NONE, _ALL),
    "ListAddressRules": (_NONE, _ALL, _ALL, _ALL),
    "SetAddressPolicy": (_NONE, _NONE, _NONE, _ALL),
    "AddAddressRule": (_NONE, _NONE, _NONE, _ALL),
    "RemoveAddressRule": (_NONE, _NONE, _NONE, _ALL),
    "ListBans": (_NONE, _ALL, _ALL, _ALL),
    "AddBan": (_NONE, _NONE, _ALL, _ALL),
    "RemoveBan": (_NONE, _NONE, _ALL, _ALL),
    "ListSecurityEvents": (_NONE, _ALL, _ALL, _ALL),
    "WatchSecurityEvents": (_NONE, _ALL, _ALL, _ALL),
    "WhoAmI": (_OWN, _OWN, _OWN, _OWN),
    "ShowUser": (_OWN, _ALL, _ALL, _ALL),
    "AddServiceAccount": (_NONE, _NONE, _NONE, _ALL),
    "SetUserRights": (_NONE, _NONE, _NONE, _ALL),
    "ListCustomRoles": (_NONE, _ALL, _ALL, _ALL),
    "SetCustomRole": (_NONE, _NONE, _NONE, _ALL),
    "RemoveCustomRole": (_NONE, _NONE, _NONE, _ALL),
    "CreateToken": (_OWN, _OWN, _OWN, _ALL),
    "ListTokens": (_OWN, _ALL, _ALL, _ALL),
    "RevokeToken": (_OWN, _OWN, _OWN, _ALL),
    "ListSessions": (_OWN, _ALL, _ALL, _ALL),
    "EndSession": (_OWN, _OWN, _OWN, _ALL),
    "EndSessions": (_OWN, _OWN, _OWN, _ALL),
    "ResetPassword": (_NONE, _NONE, _NONE, _ALL),
    "ChangePassword": (_OWN, _OWN, _OWN, _OWN),
}
_COLUMN = {role: column for column, role in enumerate(Role)}


def reach(role: Role, call: str) -> Reach:
    row = _MATRIX.get(call)
    return row[_COLUMN[role]] if row else Reach.NONE


def calls() -> tuple[str, ...]:
    """Every call that somebody may make."""
    return tuple(_MATRIX)
