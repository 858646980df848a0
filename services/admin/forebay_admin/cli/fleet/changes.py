"""Changes of the fleet as people and scripts read them. What was before and after comes as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from forebay.wire.v1 import fleet_pb2
from forebay_admin.cli.plain import Plain, plain

_SIGNS = {
    fleet_pb2.FLEET_CHANGE_KIND_CREATED: "+",
    fleet_pb2.FLEET_CHANGE_KIND_CHANGED: "~",
    fleet_pb2.FLEET_CHANGE_KIND_REMOVED: "-",
}


def print_changes(changes: Iterable[fleet_pb2.FleetChange]) -> None:
    for change in changes:
        click.echo(f"{_SIGNS.get(change.what, '~')} {change.kind} {change.name}")
        for field in change.fields:
            if change.what == fleet_pb2.FLEET_CHANGE_KIND_CREATED:
                click.echo(f"    {field.field}: {_shown(field.after)}")
            elif change.what == fleet_pb2.FLEET_CHANGE_KIND_CHANGED:
                click.echo(f"    {field.field}: {_shown(field.before)} → {_shown(field.after)}")


def summary(changes: Iterable[fleet_pb2.FleetChange]) -> str:
    kinds = [change.what for change in changes]
    created, changed, removed = (kinds.count(kind) for kind in _SIGNS)
    return f"{created} created, {changed} changed, {removed} removed."


def in_short(changes: Iterable[fleet_pb2.FleetChange]) -> str:
    told = [f"{_SIGNS.get(change.what, '~')}{change.kind} {change.name}" for change in changes]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _shown(value: str) -> str:
    """JSON as a person would write it."""
    if not value:
        return "not set"
    read = json.loads(value)
    return read if isinstance(read, str) and read.isprintable() and read else value


def plain_change(change: fleet_pb2.FleetChange) -> Plain:
    fields = [
        {
            "field": field.field,
            "before": json.loads(field.before) if field.before else None,
            "after": json.loads(field.after) if field.after else None,
        }
        for field in change.fields
    ]
    return {**plain(change), "fields": fields}
