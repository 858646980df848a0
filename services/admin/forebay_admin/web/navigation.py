"""The menu: what there is to see, and of that what the one who looks may see. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    title: str
    path: str
    call: str | None
    """The operators' call that the page lives on; None: everybody who is signed in."""
    icon: str = ""
    whole: bool = False
    """Only for who may make the call about everything, and not about their own things alone."""
    also: tuple[str, ...] = ()
    """Other paths whose pages lie below it."""


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    places: tuple[Place, ...]


_BUDGETS = ("/console/limits", "/console/balances")
_POLICIES = ("/console/recording-policies",)

GROUPS = (
    Group(
        "You",
        (
            Place("Overview", "/me", None, "home"),
            Place("Chat", "/chat", None, "chat"),
            Place("Keys", "/me/keys", "ListKeys", "key"),
            Place("Usage", "/me/usage", "QueryUsage", "chart"),
            Place("Limits", "/me/limits", "ShowQuota", "gauge"),
            Place("Explain", "/console/explain", "ShowCost", "question"),
            Place("Sessions", "/me/sessions", "ListSessions", "device"),
            Place("Preferences", "/me/preferences", None, "sliders"),
        ),
    ),
    Group(
        "Fleet",
        (
            Place("Overview", "/console", "ShowStatus", "pulse", whole=True),
            Place("Nodes", "/console/nodes", "ShowNodes", "server", whole=True),
            Place("Backends", "/console/backends", "ShowBackends", "plug", whole=True),
            Place("Models", "/console/models", "DescribeModel", "box", whole=True),
            Place("Queue", "/console/queue", "ViewQueue", "queue", whole=True),
        ),
    ),
    Group(
        "People",
        (
            Place("Users", "/console/users", "ListUsers", "user", whole=True, also=("/console/import/users",)),
            Place("Groups", "/console/groups", "ListGroups", "users", whole=True),
            Place("Roles", "/console/roles", "ListCustomRoles", "shield", whole=True),
            Place("Keys", "/console/keys", "ListKeys", "key", whole=True, also=("/console/import/keys",)),
            Place("Budgets", "/console/budgets", "ListQuotas", "coins", whole=True, also=_BUDGETS),
            Place("Requests", "/console/requests", "ListQuotaRequests", "inbox", whole=True),
        ),
    ),
    Group(
        "Records",
        (
            Place("Usage and cost", "/console/usage", "QueryUsage", "chart"),
            Place("Audit", "/console/audit", "ListAudit", "list", whole=True),
            Place("Recordings", "/console/recordings", "SearchRecordings", "text", whole=True, also=_POLICIES),
            Place("Security", "/console/security", "ListSecurityEvents", "lock", whole=True),
            Place("Events", "/console/events", "ListEvents", "bell", whole=True),
        ),
    ),
    Group(
        "System",
        (
            Place("Configuration", "/console/configuration", "ShowFleetVersions", "history", whole=True),
            Place("Settings", "/console/settings", "ListModelTerms", "sliders", whole=True),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Item:
    title: str
    path: str
    icon: str
    is_here: bool


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    items: tuple[Item, ...]


def menu(path: str, may: Callable[[Place], bool]) -> tuple[Section, ...]:
    """`path`: of the page that is looked at; the entry that it lies below is marked, the nearest one."""
    shown = [(group, [place for place in group.places if may(place)]) for group in GROUPS]
    roots = [(root, p.path) for _, places in shown for p in places for root in (p.path, *p.also)]
    above = [(root, of) for root, of in roots if path == root or path.startswith(f"{root}/")]
    _, here = max(above, key=lambda one: len(one[0]), default=("", ""))
    return tuple(
        Section(group.title, tuple(Item(p.title, p.path, p.icon, p.path == here) for p in places))
        for group, places in shown
        if places
    )
