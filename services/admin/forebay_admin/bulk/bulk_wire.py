"""Plans of files as protobuf. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forebay.wire.v1 import bulk_pb2
from forebay_admin.bulk.key_lines import KeyLine
from forebay_admin.bulk.sheet import Flaw
from forebay_admin.bulk.user_lines import UserLine
from forebay_admin.keys.terms_wire import terms_to_wire
from forebay_admin.wire_forms import band_to_wire


def flaws_to_wire(flaws: Iterable[Flaw]) -> Iterator[bulk_pb2.ImportProblem]:
    for flaw in flaws:
        yield bulk_pb2.ImportProblem(path=flaw.path, why=flaw.why, line=flaw.line, column=flaw.column)


def users_to_wire(lines: Iterable[UserLine]) -> Iterator[bulk_pb2.PlannedUser]:
    for line in lines:
        order = line.order
        yield bulk_pb2.PlannedUser(line=line.number, name=order.name, group=order.group, role=order.role.value)


def keys_to_wire(lines: Iterable[KeyLine]) -> Iterator[bulk_pb2.PlannedKey]:
    for line in lines:
        order, limits = line.order, line.order.limits
        yield bulk_pb2.PlannedKey(
            line=line.number,
            user=order.user,
            name=order.name,
            allowed_models=limits.allowed_models,
            band_cap=band_to_wire(limits.band_cap),
            pool=limits.pool,
            expires_in_s=line.expires_in_s,
            description=order.description,
            labels=order.labels,
            terms=terms_to_wire(limits.terms),
        )
