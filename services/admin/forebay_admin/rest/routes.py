"""Which address stands for which of the operators' calls. Pure: the table is the whole of it.

The address holds what its placeholders are named after (`places`, where the field is called otherwise). What else is said
stands in the query of a GET or DELETE, and in the body of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_KB, _MB = 1024, 1024 * 1024
LIMIT, AFTER, HAS_MORE = "limit", "after", "has_more"
"""Of a call that tells pages itself."""


class Verb(StrEnum):
    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    """Makes it so, in place of what there was."""
    PATCH = "PATCH"
    """What is not said stays as it is."""
    DELETE = "DELETE"


GET, POST, PUT, PATCH, DELETE = Verb


class Flow(StrEnum):
    """How a call that has several answers is told."""

    ONE = "one"
    """It has one."""
    FIRST = "first"
    """Only the first of them, as any other."""
    STREAM = "stream"
    """Each as it comes: lines of JSON, or events where the client asks for `text/event-stream`."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A list that is told in pages."""

    list: str
    """The field of the answer."""
    by: tuple[str, ...]
    """What tells its things apart: fields of theirs, the fields within those after a dot."""
    from_call: bool = False
    """The call tells a page: it takes `limit` and `after`, the id of the last thing before, and says `has_more`. Else it
    tells everything, and the page is cut out of that."""

    @property
    def said(self) -> tuple[str, ...]:
        """Fields of the request that the page says."""
        return (LIMIT, AFTER) if self.from_call else ()


@dataclass(frozen=True, slots=True)
class Route:
    call: str
    """A method of the service Operator."""
    verb: Verb
    path: str
    """Below /api/v1."""
    about: str
    """What it does, in a few words."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Placeholder of the path → field, where its name is another; the fields within it after a dot."""
    body: str = ""
    """The field of the request that the body is. Empty: all of it."""
    fixed: Mapping[str, bool] = field(default_factory=dict)
    """What this address says by itself, and nobody else may."""
    status: int = 200
    pages: Pages | None = None
    flow: Flow = Flow.ONE
    refused_by: str = ""
    """The field of the answer that holds problems: with any of them nothing was done."""
    most_body_bytes: int = 64 * _KB
    has_file: bool = False
    """Whether the answer is also to be had as a file."""

    @property
    def has_body(self) -> bool:
        return self.verb in (POST, PUT, PATCH)

    @property
    def tag(self) -> str:
        return self.path.split("/")[1]


def _of(field: str) -> Mapping[str, str]:
    return {field.rpartition(".")[2]: field}


def _list(field: str, *by: str) -> Pages:
    return Pages(field, by)


def _paged(field: str) -> Pages:
    """Of things with ids, of which there may be very many."""
    return Pages(field, ("id",), from_call=True)


ROUTES: tuple[Route, ...] = (
    # People and their keys
    Route("CreateKey", POST, "/keys", "Make a key; it is told this once", status=201),
    Route("ListKeys", GET, "/keys", "List keys", pages=_paged("keys")),
    Route("ChangeKey", PATCH, "/keys/{key_id}", "Change a key's share"),
    Route("RevokeKey", DELETE, "/keys/{key_id}", "Revoke a key, for good"),
    Route("SetKeyTerms", PATCH, "/keys/{key_id}/terms", "Change what a key is called, and what it may"),
    Route("RenewKey", PUT, "/keys/{key_id}/expiry", "Let a key live longer or shorter"),
    Route("RotateKey", POST, "/keys/{key_id}/rotation", "Give a key another secret; it is told this once", status=201),
    Route("BlockKey", PUT, "/keys/{key_id}/block", "Have a key refused for a while, or until it is unblocked"),
    Route("UnblockKey", DELETE, "/keys/{key_id}/block", "Let a blocked key work again"),
    Route(
        "ImportKeys",
        POST,
        "/keys/import",
        "Make the keys of a CSV file, told this once, or show what that would do",
        refused_by="problems",
        most_body_bytes=5 * _MB,
    ),
    Route("AddSigningKey", POST, "/keys/{key_id}/signing-keys", "Have a key trust a public key", status=201),
    Route(
        "ListSigningKeys", GET, "/signing-keys", "List trusted public keys", pages=_list("signing_keys", "fingerprint")
    ),
    Route("RemoveSigningKey", DELETE, "/signing-keys/{fingerprint}", "Trust a public key no more"),
    Route("AddUser", POST, "/users", "Add a user", status=201),
    Route("ListUsers", GET, "/users", "List users", pages=_paged("users")),
    Route("ChangeUser", PATCH, "/users/{name}", "Change a user's group or share, or have them wait"),
    Route(
        "ImportUsers",
        POST,
        "/users/import",
        "Add the users of a CSV file, or show what that would do",
        refused_by="problems",
        most_body_bytes=5 * _MB,
    ),
    Route("AddGroup", POST, "/groups", "Add a group", status=201),
    Route("ListGroups", GET, "/groups", "List groups, parents first", pages=_list("groups", "id")),
    Route("ChangeGroup", PATCH, "/groups/{name}", "Change a group's parent or share, or have it wait"),
    Route("RemoveGroup", DELETE, "/groups/{name}", "Remove an empty group"),
    Route("PresetGroups", POST, "/group-presets/{preset}", "Make the groups of a preset"),
    # Who people are to Forebay, what they may do, and what lets them in
    Route("WhoAmI", GET, "/me", "Who asks, and what they may"),
    Route("ListAccessRequests", GET, "/access-requests", "List who asks to be let in", pages=_list("requests", "id")),
    Route("DecideAccessRequest", PUT, "/access-requests/{id}/decision", "Make a user for who asks, or deny it"),
    Route("ShowUser", GET, "/users/{name}", "One user, with what they are let in by"),
    Route("SetUserRights", PATCH, "/users/{name}/rights", "Set a user's role and custom roles, or let them in no more"),
    Route("AddServiceAccount", POST, "/service-accounts", "Add a user that is a program", status=201),
    Route("ListCustomRoles", GET, "/roles", "List custom roles, and all permissions"),
    Route("SetCustomRole", PUT, "/roles/{name}", "Make a custom role of permissions"),
    Route("RemoveCustomRole", DELETE, "/roles/{name}", "Remove a custom role that nobody has"),
    Route("CreateToken", POST, "/tokens", "Make a narrow token; it is told this once", status=201),
    Route("ListTokens", GET, "/tokens", "List narrow tokens", pages=_list("tokens", "id")),
    Route("RevokeToken", DELETE, "/tokens/{id}", "Revoke a narrow token, for good"),
    Route("ListSessions", GET, "/sessions", "List who is signed in", pages=_list("sessions", "id")),
    Route("EndSession", DELETE, "/sessions/{id}", "Sign a session out"),
    Route("EndSessions", DELETE, "/users/{user}/sessions", "Sign a user out everywhere"),
    Route("ResetPassword", POST, "/users/{user}/password-reset", "Have a user set a password", status=201),
    Route("ChangePassword", POST, "/me/password", "Change one's own password"),
    # What was done
    Route("ListAudit", GET, "/audit", "Who did what, the newest first"),
    Route("VerifyAudit", GET, "/audit/verification", "Whether the log still is what was written", flow=Flow.STREAM),
    Route("SearchRecordings", GET, "/recordings", "Find requests by what was said, the newest first"),
    Route("ShowRecording", GET, "/recordings/{id}", "What was asked, and what was answered"),
    Route("DeleteRecordings", DELETE, "/recordings/{id}", "Delete what is kept of a request"),
    Route("DeleteRecordings", DELETE, "/users/{user}/recordings", "Delete what is kept of a user's requests"),
    Route("ListRecordingPolicies", GET, "/recording-policies", "Of whose requests what is kept"),
    Route("SetRecordingPolicy", PUT, "/recording-policies", "Say of whose requests what is to be kept", body="policy"),
    # What happened, and who is told
    Route("ListEvents", GET, "/events", "What happened, the newest first, and who was told"),
    Route("ShowEvent", GET, "/events/{id}", "One event, and who was told"),
    Route("RetryDeliveries", POST, "/event-retries", "Tell anew what was given up"),
    Route("ListSubscriptions", GET, "/event-subscriptions", "Who is told of events"),
    Route("AddSubscription", POST, "/event-subscriptions", "Have somebody told of events", status=201),
    Route("RemoveSubscription", DELETE, "/event-subscriptions/{id}", "Have somebody told no more"),
    Route("TestSubscription", POST, "/event-subscriptions/{id}/test", "Tell somebody something now"),
    Route("SetBudgetThresholds", PUT, "/budgets/{id}/thresholds", "Say which parts of a budget are told"),
    # From where Forebay may be reached, and what happened that somebody should look at
    Route("ListSecurityEvents", GET, "/security/events", "What was refused, banned and done, the newest first"),
    Route("WatchSecurityEvents", GET, "/security/events/live", "The same as it happens", flow=Flow.STREAM),
    Route("ListBans", GET, "/security/bans", "Which addresses are banned", pages=_list("bans", "network")),
    Route("AddBan", PUT, "/security/bans", "Ban an address or a network"),
    Route("RemoveBan", DELETE, "/security/bans", "Take a ban back"),
    Route("ListAddressRules", GET, "/security/address-rules", "Which addresses are denied and allowed, and how"),
    Route("SetAddressPolicy", PATCH, "/security/address-policy", "How addresses are let in, and when they are banned"),
    Route("AddAddressRule", PUT, "/security/address-rules", "Deny or allow an address or a network"),
    Route("RemoveAddressRule", DELETE, "/security/address-rules", "Take one out of such a list"),
    # Limits and budgets
    Route("ListQuotas", GET, "/quotas", "List everybody's limits and budgets", pages=_list("quotas", "kind", "id")),
    Route("ShowQuota", GET, "/quota", "What limits the caller"),
    Route("ShowQuota", GET, "/users/{user}/quota", "What limits a user", places=_of("subject.user")),
    Route("ShowQuota", GET, "/groups/{group}/quota", "What limits a group", places=_of("subject.group")),
    Route("ShowQuota", GET, "/keys/{key_id}/quota", "What limits a key", places=_of("subject.key_id")),
    Route("SetLimits", PATCH, "/users/{user}/quota", "Set a user's limits", places=_of("subject.user")),
    Route("SetLimits", PATCH, "/groups/{group}/quota", "Set a group's limits", places=_of("subject.group")),
    Route("SetLimits", PATCH, "/keys/{key_id}/quota", "Set a key's limits", places=_of("subject.key_id")),
    Route("AddBudget", POST, "/users/{user}/budgets", "Give a user a budget", places=_of("subject.user"), status=201),
    Route("AddBudget", POST, "/groups/{group}/budgets", "Give a group one", places=_of("subject.group"), status=201),
    Route("AddBudget", POST, "/keys/{key_id}/budgets", "Give a key one", places=_of("subject.key_id"), status=201),
    Route("ChangeBudget", PATCH, "/budgets/{id}", "Change what a budget amounts to"),
    Route("RemoveBudget", DELETE, "/budgets/{id}", "Remove a budget"),
    Route("ShowMemberLimits", GET, "/member-limits", "What new members of groups start with"),
    Route("ShowMemberLimits", GET, "/groups/{group}/member-limits", "What a group's new members start with"),
    Route("SetMemberLimits", PATCH, "/groups/{group}/member-limits", "Set what a group's new members start with"),
    Route("RequestQuota", POST, "/quota-requests", "Ask for more", status=201),
    Route("ListQuotaRequests", GET, "/quota-requests", "List requests for more", pages=_list("requests", "id")),
    Route("DecideQuotaRequest", PUT, "/quota-requests/{id}/decision", "Approve or deny a request for more"),
    # Prices, costs, balances
    Route("ListPrices", GET, "/prices", "List prices", pages=_list("prices", "model", "starts_at_us")),
    Route("SetPrice", POST, "/prices", "Set what a model costs from a moment on", status=201),
    Route("CancelPrice", DELETE, "/prices/{id}", "Take a price back that has not begun"),
    Route("ShowCost", GET, "/requests/{request_id}/cost", "What a request cost, or why it was not charged"),
    Route("ListBalances", GET, "/balances", "List what was paid in advance", pages=_list("balances", "name", "id")),
    Route(
        "OpenBalance", POST, "/users/{user}/balance", "Have a user pay in advance", places=_of("owner.user"), status=201
    ),
    Route("OpenBalance", POST, "/groups/{group}/balance", "Have a group do so", places=_of("owner.group"), status=201),
    Route("ShowBalance", GET, "/balance", "The balance that pays for the caller"),
    Route("ShowBalance", GET, "/users/{user}/balance", "A user's balance", places=_of("owner.user")),
    Route("ShowBalance", GET, "/groups/{group}/balance", "A group's balance", places=_of("owner.group")),
    Route("ShowBalance", GET, "/balances/{id}", "A balance, also one that is closed", places=_of("owner.id")),
    Route("PostBalance", POST, "/balances/{id}/postings", "Top a balance up, or adjust it", places=_of("owner.id")),
    Route("CloseBalance", DELETE, "/balances/{id}", "Have nothing paid in advance any more", places=_of("owner.id")),
    Route("ShowUsage", GET, "/usage", "Sum up what was used", fixed={"rows": False}),
    Route("ShowUsage", GET, "/usage/rows", "The newest requests in the ledger", fixed={"rows": True}),
    Route("QueryUsage", GET, "/usage/sums", "Add up what was used, by whatever tells requests apart, in parts of time"),
    Route("ReadLedger", GET, "/usage/ledger", "All requests of a time, page by page, as they were begun"),
    Route("ListDeadLetters", GET, "/usage/dead-letters", "List what could not be a row of the ledger"),
    Route("ShowDeadLetter", GET, "/usage/dead-letters/{id}", "Show what could not be a row"),
    Route("RetryDeadLetters", POST, "/usage/dead-letters/retry", "Try again to make rows of what could not be"),
    # Backends, nodes, pools: the fleet
    Route("RegisterBackend", POST, "/backends", "Add a backend", status=201),
    Route("ShowBackends", GET, "/backends", "List backends", pages=_list("backends", "id")),
    Route("ShowBackendHealth", GET, "/backends/{name}", "How a backend is, and was"),
    Route("ChangeBackend", PATCH, "/backends/{name}", "Change how a backend is wanted"),
    Route("UnregisterBackend", DELETE, "/backends/{name}", "Remove a backend"),
    Route("NameBackendModels", PATCH, "/backends/{name}/model-names", "Name a backend's models"),
    Route("ProbeBackend", POST, "/backends/{name}/probe", "Look at a backend now"),
    Route("DrainBackend", POST, "/backends/{name}/drain", "Send a backend nothing new", fixed={"undo": False}),
    Route("DrainBackend", DELETE, "/backends/{name}/drain", "Send a backend requests again", fixed={"undo": True}),
    Route("AddBackendCredential", POST, "/backends/{backend}/credentials", "Give a backend's own key", status=201),
    Route("ListBackendCredentials", GET, "/backends/{backend}/credentials", "List a backend's keys, by label"),
    Route("RemoveBackendCredential", DELETE, "/backends/{backend}/credentials/{label}", "Forget a backend's key"),
    Route("ShowFoundBackends", GET, "/found-backends", "List engines that were found"),
    Route("AdoptBackend", POST, "/found-backends/{name}/adopt", "Make what was found a backend"),
    Route("InviteNode", POST, "/node-invitations", "Invite a machine", status=201),
    Route("ShowNodes", GET, "/nodes", "List nodes, with what they last told", pages=_list("nodes", "id")),
    Route("ChangeNode", PATCH, "/nodes/{name}", "Change what is said of a node"),
    Route("DrainNode", POST, "/nodes/{node}/drain", "Send a node's backends nothing new", fixed={"undo": False}),
    Route("DrainNode", DELETE, "/nodes/{node}/drain", "Send a node's backends requests again", fixed={"undo": True}),
    Route("SetNodeDiscovery", PATCH, "/nodes/{node}/discovery", "What is done with engines found on a node"),
    Route("CommandNode", POST, "/nodes/{node}/commands", "Have a node's agent do something", flow=Flow.STREAM),
    Route("ScheduleMaintenance", POST, "/maintenance", "Announce maintenance", status=201),
    Route("ShowMaintenance", GET, "/maintenance", "List maintenance windows", pages=_list("windows", "id")),
    Route("CancelMaintenance", DELETE, "/maintenance/{id}", "Call maintenance off"),
    Route("ListPools", GET, "/pools", "List pools", pages=_list("pools", "terms.pool")),
    Route("ChangePool", PATCH, "/pools/{name}", "Describe a pool, and set how it places requests"),
    Route("SetPoolTerms", PATCH, "/pools/{pool}/terms", "Set how a pool places requests"),
    Route("RemovePoolTerms", DELETE, "/pools/{pool}/terms", "Have a pool place requests as usual"),
    Route("ExportFleet", GET, "/fleet", "The fleet as operators want it"),
    Route(
        "ApplyFleet",
        POST,
        "/fleet/apply",
        "Make the fleet so",
        fixed={"dry_run": False},
        refused_by="problems",
        most_body_bytes=4 * _MB,
    ),
    Route(
        "ApplyFleet",
        POST,
        "/fleet/diff",
        "What applying that would change",
        fixed={"dry_run": True},
        refused_by="problems",
        most_body_bytes=4 * _MB,
    ),
    Route("ShowFleetVersions", GET, "/fleet/versions", "Who changed the fleet, and how"),
    # Models
    Route("ShowModels", GET, "/models", "List the fleet's models", pages=_list("models", "name")),
    Route("DescribeModel", GET, "/models/{model}", "What engines say of a model"),
    Route("PinModel", POST, "/models/{model}/pin", "Keep a model loaded", fixed={"undo": False}),
    Route("PinModel", POST, "/models/{model}/unpin", "Keep a model loaded no more", fixed={"undo": True}),
    Route(
        "ListModelPins",
        GET,
        "/model-pins",
        "List models that are kept loaded",
        pages=_list("pins", "backend_id", "model"),
    ),
    Route("StartModelJob", POST, "/model-jobs", "Pull, delete, copy, load or unload a model", status=202),
    Route("ListModelJobs", GET, "/model-jobs", "List jobs, the newest first"),
    Route("FollowModelJob", GET, "/model-jobs/{id}", "How a job goes", flow=Flow.FIRST),
    Route("FollowModelJob", GET, "/model-jobs/{id}/progress", "How a job goes on, until it ends", flow=Flow.STREAM),
    Route("CancelModelJob", POST, "/model-jobs/{id}/cancel", "Cancel a job"),
    Route("ListModelTerms", GET, "/model-terms", "List prices and weights", pages=_list("terms", "model")),
    Route("SetModelTerms", PATCH, "/model-terms/{model}", "Set what a model costs and weighs"),
    Route("RemoveModelTerms", DELETE, "/model-terms/{model}", "Have a model cost nothing and weigh one"),
    Route("ListModelRules", GET, "/model-rules", "List aliases, rules and fallbacks"),
    Route("SetModelRule", PATCH, "/model-rules", "Set what is done to requests"),
    Route("RemoveModelRule", DELETE, "/model-rules", "Do it no more"),
    Route(
        "SetModelAlias",
        PUT,
        "/model-aliases/{alias}",
        "Name a model otherwise",
        places=_of("alias.alias"),
        body="alias",
    ),
    Route("RemoveModelAlias", DELETE, "/model-aliases/{alias}", "Remove a model's other name"),
    Route(
        "SetModelFallback",
        PUT,
        "/model-fallbacks/{model}",
        "Say which models are asked instead",
        places=_of("fallback.model"),
        body="fallback",
    ),
    Route("RemoveModelFallback", DELETE, "/model-fallbacks/{model}", "Ask no other model instead"),
    # What is and was going on
    Route("ShowStatus", GET, "/status", "How all parts of Forebay are"),
    Route("ListAlerts", GET, "/alerts", "List alerts, the open ones first"),
    Route("ShowAlert", GET, "/alerts/{id}", "One alert"),
    Route("AckAlert", POST, "/alerts/{id}/ack", "Say that somebody knows"),
    Route("WatchAlerts", GET, "/alert-events", "Open alerts, then what becomes of each", flow=Flow.STREAM),
    Route("SilenceAlerts", POST, "/alert-silences", "Tell nobody for a while", status=201),
    Route("UnsilenceAlerts", DELETE, "/alert-silences", "Tell of them again"),
    Route("TestAlerts", POST, "/alert-tests", "Send webhooks an alert now"),
    Route("ViewQueue", GET, "/queue", "Who waits, and what runs"),
    Route("ViewExplanation", GET, "/requests/{request_id}/explanation", "Why a request went as it did"),
    Route("ViewDump", GET, "/scheduler/dump", "All that the scheduler knows"),
    Route("ShowHistory", GET, "/history", "How nodes, GPUs, backends or models were", has_file=True),
    Route("ShowSeries", GET, "/history/series", "Of what there is history"),
    Route("ShowEnergy", GET, "/energy", "Whose energy it was"),
)
