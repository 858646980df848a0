"""All of MindRouter's routes. Those of its first version, which stood under /admin, are here as well."""

from __future__ import annotations

from dataclasses import replace

from forebay_admin.seeds.mindrouter import (
    audit,
    backends,
    groups,
    history,
    keys,
    nodes,
    overview,
    queue,
    quota_requests,
    users,
)
from forebay_admin.seeds.route import SeedRoute

PREFIX, FIRST_PREFIX = "/api/admin", "/admin"

_FIRST = (
    "/backends/register",
    "/backends/{backend_id}/disable",
    "/backends/{backend_id}/enable",
    "/backends/{backend_id}/drain",
    "/backends/{backend_id}/refresh",
    "/queue",
    "/audit/search",
)

_ALL: tuple[SeedRoute, ...] = (
    *backends.ROUTES,
    *nodes.ROUTES,
    *users.ROUTES,
    *keys.ROUTES,
    *groups.ROUTES,
    *quota_requests.ROUTES,
    *queue.ROUTES,
    *audit.ROUTES,
    *overview.ROUTES,
    *history.ROUTES,
)
ROUTES: tuple[SeedRoute, ...] = (
    *(replace(route, path=f"{PREFIX}{route.path}") for route in _ALL),
    *(replace(route, path=f"{FIRST_PREFIX}{route.path}") for route in _ALL if route.path in _FIRST),
)
