"""Every route that MindRouter documents is there, at each of its addresses; nothing stands in the table that nobody wrote
down here."""

from __future__ import annotations

from forebay_admin.seeds.http import ROUTES
from forebay_admin.seeds.refusals import Dialect

_BACKEND, _NODE, _USER, _GROUP = "/backends/{backend_id}", "/nodes/{node_id}", "/users/{user_id}", "/groups/{group_id}"
_TELEMETRY, _ENERGY = "/telemetry", "/telemetry/energy"

DOCUMENTED = {
    *(("POST", "/backends/register"), ("GET", "/backends"), ("PATCH", _BACKEND)),
    *(("POST", f"{_BACKEND}/{act}") for act in ("disable", "enable", "refresh", "ollama/pull", "ollama/delete")),
    ("GET", f"{_BACKEND}/ollama/pull/{{job_id}}"),
    *(
        ("POST", "/nodes/register"),
        ("GET", "/nodes"),
        ("PATCH", _NODE),
        ("DELETE", _NODE),
        ("POST", f"{_NODE}/refresh"),
    ),
    *(("GET", "/users"), ("POST", "/users"), ("GET", _USER), ("PATCH", _USER), ("DELETE", _USER)),
    *(("POST", f"{_USER}/reset-password"), ("POST", f"{_USER}/api-keys")),
    *(("GET", "/api-keys"), ("POST", "/api-keys/{key_id}/revoke"), ("DELETE", "/api-keys/{key_id}")),
    *(("GET", "/groups"), ("POST", "/groups"), ("PATCH", _GROUP), ("DELETE", _GROUP)),
    *(("GET", "/quota-requests"), ("POST", "/quota-requests/{request_id}/review")),
    *(("GET", path) for path in ("/queue", "/queue/monitor", "/audit/search", "/audit/{request_id}", "/top-users")),
    ("GET", "/conversations/export"),
    *(("GET", f"{_TELEMETRY}/{path}") for path in ("overview", "latest", "export")),
    *(
        ("GET", f"{_TELEMETRY}/{what}/{{{one}_id}}/history")
        for what, one in (("backends", "backend"), ("nodes", "node"))
    ),
    ("GET", f"{_TELEMETRY}/gpus/{{gpu_id}}/history"),
    *(("GET", f"{_ENERGY}/{path}") for path in ("nodes/{node_id}/history", "cluster/history", "export")),
}
OF_THE_DASHBOARD = {("POST", f"{_BACKEND}/drain"), ("DELETE", _BACKEND)}
"""Which had no route of its own there."""
OF_ITS_FIRST_VERSION = {
    *(("POST", f"{_BACKEND}/{act}") for act in ("disable", "enable", "refresh", "drain")),
    *(("POST", "/backends/register"), ("GET", "/queue"), ("GET", "/audit/search")),
}


def test_every_documented_route_is_there_and_no_other() -> None:
    ours = {(route.verb, route.path) for route in ROUTES if route.dialect is Dialect.MINDROUTER}
    assert ours == {
        *((verb, f"/api/admin{path}") for verb, path in DOCUMENTED | OF_THE_DASHBOARD),
        *((verb, f"/admin{path}") for verb, path in OF_ITS_FIRST_VERSION),
    }
