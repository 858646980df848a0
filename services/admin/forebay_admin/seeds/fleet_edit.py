"""The wanted fleet without one thing: for removals that no operators' call makes by itself."""

from __future__ import annotations

from collections.abc import Iterable

from forebay.errors import BadInput, NotPossible
from forebay.wire.v1 import fleet_pb2
from forebay_admin.seeds.asking import Asking

CALLS = ("ExportFleet", "ApplyFleet")

_SECTIONS = {"node": "nodes", "pool": "pools"}


async def remove(asking: Asking, kind: str, name: str, *, move_to: str = "") -> None:
    """`kind`: node or pool. `move_to`: the pool that takes the backends of this one. Raises NotPossible where it cannot be
    done, or where more would go with it: somebody else's thing is never swept away."""
    export = await asking.call("ExportFleet")
    wanted = fleet_pb2.FleetSpec()
    wanted.CopyFrom(export.fleet)
    held = getattr(wanted, _SECTIONS[kind])
    kept = [one for one in held if one.name != name]
    if len(kept) == len(held):
        raise NotPossible(f"Nobody has described the {kind} {name}; there is nothing to remove.")
    del held[:]
    held.extend(kept)
    moved = set()
    for backend in wanted.backends:
        if kind == "pool" and backend.pool == name:
            backend.pool = move_to
            moved.add(backend.name)
    order = fleet_pb2.ApplyFleetRequest(wanted=wanted, prune=True, dry_run=True, base_version=export.version)
    planned = await asking.make("ApplyFleet", order)
    demand_none(planned.problems)
    others = [
        change.name
        for change in planned.changes
        if (change.kind, change.name) != (kind, name) and not (change.kind == "backend" and change.name in moved)
    ]
    if others:
        raise NotPossible(f"With it would go or change {', '.join(others[:3])}: use a fleet file (forebay apply).")
    if not any((change.kind, change.name) == (kind, name) for change in planned.changes):
        raise NotPossible(
            f"The {kind} {name} stays: an agent has joined as it." if kind == "node" else f"{name} stays."
        )
    order.dry_run = False
    demand_none((await asking.make("ApplyFleet", order)).problems)  # of what changed in between


def demand_none(problems: Iterable[fleet_pb2.FleetProblem]) -> None:
    """Raises BadInput."""
    if told := "; ".join(f"{problem.path}: {problem.why}" for problem in problems):
        raise BadInput(told)
