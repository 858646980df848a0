"""OllamaFlow's frontends, which are pools here. A backend is in one pool: that a frontend names it moves it there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from forebay.errors import AlreadyExists, BadInput, NotFound, NotPossible
from forebay.wire.v1 import admin_pb2, fleet_pb2
from forebay_admin.seeds import fleet_edit
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.ollamaflow.shapes import DEFAULT_POOL, demand_kept, frontend_shape, pool_of
from forebay_admin.seeds.refusals import Dialect, NoCounterpart
from forebay_admin.seeds.route import Answer, SeedRoute


async def list_frontends(asking: Asking) -> Any:
    return await _shown(asking)


async def show(asking: Asking) -> Any:
    return await _one(asking, asking.path["id"])


async def create(asking: Asking) -> Any:
    body = asking.body()
    name = body.text("Identifier", needed=True, longest=63)
    body.done()
    export = await asking.call("ExportFleet")
    if any(pool.name == name for pool in export.fleet.pools):
        raise AlreadyExists(f"A frontend with identifier {name} already exists.")
    await _apply(asking, body, name, export)
    return Answer(await _one(asking, name), status=201)


async def replace(asking: Asking) -> Any:
    body, name = asking.body(), asking.path["id"]
    await _one(asking, name)
    if body.text("Identifier", name) != name:
        raise BadInput("A frontend keeps its identifier: add it under the other one, and delete this one.")
    await _apply(asking, body, name, await asking.call("ExportFleet"))
    return await _one(asking, name)


async def remove(asking: Asking) -> Any:
    """Its backends go to the pool of all who are in none."""
    name = asking.path["id"]
    await _one(asking, name)
    if name == DEFAULT_POOL:
        raise NotPossible("The pool default is always there.")
    export = await asking.call("ExportFleet")
    if any(pool.name == name for pool in export.fleet.pools):
        await fleet_edit.remove(asking, "pool", name, move_to=DEFAULT_POOL)
    with suppress(NotFound):  # where nobody had said how it places requests
        await asking.make("RemovePoolTerms", admin_pb2.RemovePoolTermsRequest(pool=name))
    return Answer(None, status=204)


async def _apply(asking: Asking, body: Fields, name: str, export: fleet_pb2.ExportFleetResponse) -> None:
    """The pool and all of its backends at once, or nothing. Raises BadInput, NoCounterpart, NotPossible."""
    held = next((pool for pool in export.fleet.pools if pool.name == name), None)
    wanted = fleet_pb2.FleetSpec(pools=[pool_of(body, name, held)])
    named = body.texts("Backends")
    if body.flag("Active") is False:
        raise NoCounterpart("A frontend is always active here: disable its backends, or delete it.")
    demand_kept(body)
    body.done()
    wanted.backends.extend(_moved(export.fleet, name, named) if named is not None else ())
    order = fleet_pb2.ApplyFleetRequest(wanted=wanted, base_version=export.version)
    fleet_edit.demand_none((await asking.make("ApplyFleet", order)).problems)


def _moved(fleet: fleet_pb2.FleetSpec, name: str, named: list[str]) -> list[fleet_pb2.BackendSpec]:
    """Those that come and those that go. Raises BadInput, NotPossible."""
    described = {pool.name for pool in fleet.pools} - {DEFAULT_POOL}
    backends = {backend.name: backend for backend in fleet.backends}
    if unknown := [one for one in named if one not in backends]:
        raise BadInput(f"There is no backend {unknown[0]}.")
    moved = []
    for backend in backends.values():
        pool = backend.pool or DEFAULT_POOL
        if (backend.name in named) is (pool == name):
            continue
        if backend.name in named and pool in described:
            raise NotPossible(f"{backend.name} is in the frontend {pool}, and a backend is in one at a time here.")
        one = fleet_pb2.BackendSpec()
        one.CopyFrom(backend)
        one.pool = name if backend.name in named else DEFAULT_POOL
        moved.append(one)
    return moved


async def _shown(asking: Asking) -> list[dict[str, Any]]:
    backends = (await asking.call("ShowBackends")).backends
    pools: list[admin_pb2.Pool] = list((await asking.call("ListPools")).pools)
    return [
        frontend_shape(pool, [backend.name for backend in backends if backend.pool == pool.terms.pool])
        for pool in pools
    ]


async def _one(asking: Asking, name: str) -> dict[str, Any]:
    """Raises NotFound."""
    found = next((one for one in await _shown(asking) if one["Identifier"] == name), None)
    if found is None:
        raise NotFound(f"There is no frontend {name}.")
    return found


_SHOWN = ("ListPools", "ShowBackends")
_ALL, _ONE = "/frontends", "/frontends/{id}"
ROUTES = tuple(
    SeedRoute(verb, path, make, calls, Dialect.OLLAMAFLOW)
    for verb, path, make, calls in (
        ("GET", _ALL, list_frontends, _SHOWN),
        ("GET", _ONE, show, _SHOWN),
        ("PUT", _ALL, create, (*fleet_edit.CALLS, *_SHOWN)),
        ("PUT", _ONE, replace, (*fleet_edit.CALLS, *_SHOWN)),
        ("DELETE", _ONE, remove, ("RemovePoolTerms", *fleet_edit.CALLS, *_SHOWN)),
    )
)
