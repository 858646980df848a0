"""Between the desired state of the fleet and the messages that tell it. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from forebay.clock import micros
from forebay.plain_message import Problem, plain_of, read_message
from forebay.wire.v1 import fleet_pb2 as wire
from forebay_registry.backend import Pool
from forebay_registry.wanted.specs import SECTIONS, FleetOrder, read_order
from forebay_registry.wanted.state import Change, Document, Kind, Spec, Version, pool_spec

KEPT_BY_ADMIN = {Kind.POOL: ("placement", "sticky", "locality_window"), Kind.MODEL: ("aliases",)}
"""Fields of a spec that are not ours."""


def from_spec(spec: wire.FleetSpec) -> tuple[FleetOrder, list[Problem]]:
    """What is ours of it."""
    told = plain_of(spec)
    return read_order({kind: [_ours(kind, entry) for entry in told.get(SECTIONS[kind], ())] for kind in Kind})


def from_tables(tables: Mapping[Kind, Sequence[Mapping[str, Any]]]) -> tuple[FleetOrder, list[Problem]]:
    """The same from tables of a configuration file."""
    spec, misfits = read_message(wire.FleetSpec(), {SECTIONS[kind]: list(entries) for kind, entries in tables.items()})
    order, problems = from_spec(spec)
    foreign = [
        Problem(f"{SECTIONS[kind]}.{entry.get('name', number)}.{field}", "This is kept by admin; it cannot stand here.")
        for kind, fields in KEPT_BY_ADMIN.items()
        for number, entry in enumerate(tables.get(kind, ()), start=1)
        for field in fields
        if field in entry
    ]
    told = {problem.path for problem in misfits}
    # What did not fit was left out: that it is missing then is no second problem.
    return order, misfits + foreign + [problem for problem in problems if problem.path not in told]


def to_spec(document: Document) -> wire.FleetSpec:
    told = {SECTIONS[kind]: list(specs.values()) for kind, specs in document.items()}
    # What a newer version wrote down and this one does not know is left out.
    return read_message(wire.FleetSpec(), told)[0]


def to_pool(pool: Pool) -> wire.PoolSpec:
    return read_message(wire.PoolSpec(), pool_spec(pool))[0]


def to_changes(changes: Iterable[Change]) -> list[wire.FleetChange]:
    return [_to_change(change) for change in changes]


def to_problems(problems: Iterable[Problem]) -> list[wire.FleetProblem]:
    return [wire.FleetProblem(path=problem.path, why=problem.why) for problem in problems]


def to_version(version: Version) -> wire.FleetVersion:
    return wire.FleetVersion(
        version=version.number, at_us=micros(version.at), actor=version.actor, changes=to_changes(version.changes)
    )


def _ours(kind: Kind, entry: Spec) -> Spec:
    foreign = KEPT_BY_ADMIN.get(kind, ())
    return {name: value for name, value in entry.items() if name not in foreign}


def _to_change(change: Change) -> wire.FleetChange:
    before, after = change.before or {}, change.after or {}
    if change.before is None:
        what = wire.FLEET_CHANGE_KIND_CREATED
    elif change.after is None:
        what = wire.FLEET_CHANGE_KIND_REMOVED
    else:
        what = wire.FLEET_CHANGE_KIND_CHANGED
    return wire.FleetChange(
        kind=change.kind,
        name=change.name,
        what=what,
        fields=[
            wire.FieldChange(field=field, before=_json(before, field), after=_json(after, field))
            for field in sorted({*before, *after} - {"name"})
            if before.get(field) != after.get(field)
        ],
    )


def _json(spec: Spec, field: str) -> str:
    return orjson.dumps(spec[field], option=orjson.OPT_SORT_KEYS).decode() if field in spec else ""
