"""OllamaFlow's backends. Its thresholds and paths of health checks are taken and left: the registry looks in its own way."""

from __future__ import annotations

from typing import Any

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay.wire.v1 import admin_pb2, fleet_parts_pb2, registry_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.backends import keep_unsaid, node_names
from forebay_admin.seeds.ollamaflow.shapes import (
    DEFAULT_POOL,
    backend_shape,
    demand_kept,
    health_shape,
    kind_of,
    labels_of,
    url_of,
)
from forebay_admin.seeds.refusals import Dialect
from forebay_admin.seeds.route import Answer, SeedRoute


async def list_backends(asking: Asking) -> Any:
    return [backend_shape(backend) for backend in (await asking.call("ShowBackends")).backends]


async def show(asking: Asking) -> Any:
    return backend_shape(await _held(asking, asking.path["id"]))


async def list_health(asking: Asking) -> Any:
    held = await _running(asking)
    backends = (await asking.call("ShowBackends")).backends
    return [health_shape(backend, held.get(backend.id, 0), asking.now) for backend in backends]


async def show_health(asking: Asking) -> Any:
    backend = await _held(asking, asking.path["id"])
    return health_shape(backend, (await _running(asking)).get(backend.id, 0), asking.now)


async def create(asking: Asking) -> Any:
    body = asking.body()
    name = body.text("Identifier", needed=True, longest=100)
    request = _order(body, name)
    if any(backend.name == name for backend in (await asking.call("ShowBackends")).backends):
        raise AlreadyExists(f"A backend with identifier {name} already exists.")
    return Answer(await _make(asking, request, body), status=201)


async def replace(asking: Asking) -> Any:
    backend, body = await _held(asking, asking.path["id"]), asking.body()
    if body.text("Identifier", backend.name) != backend.name:
        raise BadInput("A backend keeps its identifier: add it under the other one, and delete this one.")
    request = _order(body, backend.name)
    request.replace, request.node = True, (await node_names(asking)).get(backend.node_id, "")
    keep_unsaid(request, backend)
    return await _make(asking, request, body)


async def remove(asking: Asking) -> Any:
    backend = await _held(asking, asking.path["id"])
    pools = (await asking.call("ListPools")).pools
    linked = any(pool.terms.pool == backend.pool and pool.HasField("described") for pool in pools)
    if linked and backend.pool != DEFAULT_POOL:
        raise BadInput(f"The backend {backend.name} is linked to the frontend {backend.pool} and cannot be deleted.")
    await asking.make("UnregisterBackend", admin_pb2.UnregisterBackendRequest(name=backend.name))
    return Answer(None, status=204)


def _order(body: Fields, name: str) -> admin_pb2.RegisterBackendRequest:
    """Raises BadFields, NoCounterpart."""
    request = admin_pb2.RegisterBackendRequest(
        name=name,
        url=url_of(body),
        kind=kind_of(body),
        slots=body.whole("MaxParallelRequests", 4, least=1, most=10_000) or 4,
        bearer=body.text("BearerToken", longest=4096),
    )
    labels_of(body), body.flag("Active")
    demand_kept(body)
    body.done()
    return request


async def _make(asking: Asking, request: admin_pb2.RegisterBackendRequest, body: Fields) -> dict[str, Any]:
    before = (await _named(asking, request.name)) if request.replace else None
    backend = (await asking.make("RegisterBackend", request)).backend
    held = dict(before.labels) if before is not None else {}
    labels, is_active = labels_of(body, held), body.flag("Active", True)
    gone = [name for name in held if name not in labels]
    if labels or gone or is_active is not backend.enabled:
        change = fleet_parts_pb2.ChangeBackendRequest(
            name=backend.name, labels=labels, enabled=is_active, reset=[f"labels.{name}" for name in gone]
        )
        await asking.make("ChangeBackend", change)
    return backend_shape(await _held(asking, backend.name))


async def _held(asking: Asking, name: str) -> registry_pb2.Backend:
    """Raises NotFound."""
    found = await _named(asking, name)
    if found is None:
        raise NotFound(f"There is no backend {name}.")
    return found


async def _named(asking: Asking, name: str) -> registry_pb2.Backend | None:
    backends = (await asking.call("ShowBackends")).backends
    return next((backend for backend in backends if backend.name == name), None)


async def _running(asking: Asking) -> dict[str, int]:
    return {one.backend_id: one.held for one in (await asking.call("ViewQueue")).queue.held}


_CHANGE = ("RegisterBackend", "ChangeBackend", "ShowBackends")
_ALL, _ONE = "/backends", "/backends/{id}"
ROUTES = tuple(
    SeedRoute(verb, path, make, calls, Dialect.OLLAMAFLOW)
    for verb, path, make, calls in (
        ("GET", _ALL, list_backends, ("ShowBackends",)),
        ("GET", f"{_ALL}/health", list_health, ("ShowBackends", "ViewQueue")),
        ("GET", f"{_ONE}/health", show_health, ("ShowBackends", "ViewQueue")),
        ("GET", _ONE, show, ("ShowBackends",)),
        ("PUT", _ALL, create, _CHANGE),
        ("PUT", _ONE, replace, (*_CHANGE, "ShowNodes")),
        ("DELETE", _ONE, remove, ("UnregisterBackend", "ListPools", "ShowBackends")),
    )
)
