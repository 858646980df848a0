"""The wanted fleet's versions, and how two of them differ, as the pages show them. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import audit_pb2, fleet_pb2, usage_queries_pb2
from forebay_admin.fleet.fleet_file import FileProblem, FleetFile

_SIGNS = {
    fleet_pb2.FLEET_CHANGE_KIND_CREATED: ("+", "created", "good"),
    fleet_pb2.FLEET_CHANGE_KIND_CHANGED: ("~", "changed", "info"),
    fleet_pb2.FLEET_CHANGE_KIND_REMOVED: ("−", "removed", "bad"),
}
_NEAR_S = 5.0
"""Between a version and the audit's word of it: admin writes it after the registry's answer."""
_CONTEXT = 3
_SHOWN_CHANGES = 5


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    sign: str
    what: str
    tone: str
    kind: str
    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at: float
    actor: str
    through: str
    """grpc, rest, web …; empty: the audit does not say."""
    in_short: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class DiffLine:
    kind: str
    """added, removed, same, or gap: what is alike and left out."""
    text: str


@dataclass(frozen=True, slots=True)
class Diff:
    lines: tuple[DiffLine, ...]
    added: int
    removed: int

    @property
    def is_same(self) -> bool:
        return not (self.added or self.removed)


@dataclass(frozen=True, slots=True)
class Problem:
    line: int | None
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Letter:
    id: str
    at: float
    subject: str
    why: str
    bytes: int


def versions_of(
    told: fleet_pb2.ShowFleetVersionsResponse, audited: Iterable[audit_pb2.AuditEntry] = ()
) -> tuple[Version, ...]:
    entries = list(audited)
    return tuple(
        Version(
            number=one.version,
            at=one.at_us / 1e6,
            actor=one.actor,
            through=_through(one, entries),
            in_short=in_short(one.changes),
            changes=changes_of(one.changes),
        )
        for one in told.versions
    )


def changes_of(changes: Iterable[fleet_pb2.FleetChange]) -> tuple[Change, ...]:
    return tuple(
        Change(
            *_SIGNS.get(one.what, _SIGNS[fleet_pb2.FLEET_CHANGE_KIND_CHANGED]),
            one.kind,
            one.name,
            tuple(Field(field.field, _value(field.before), _value(field.after)) for field in one.fields),
        )
        for one in changes
    )


def in_short(changes: Sequence[fleet_pb2.FleetChange]) -> str:
    told = [f"{change.sign} {change.kind} {change.name}" for change in changes_of(changes[:_SHOWN_CHANGES])]
    more = len(changes) - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def diff_of(before: str, after: str) -> Diff:
    """Of two files, line by line, with a little around what differs."""
    old, new = before.splitlines(), after.splitlines()
    lines: list[DiffLine] = []
    added = removed = 0
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(_CONTEXT)):
        if number or group[0][1]:
            lines.append(DiffLine("gap", "…"))
        for tag, a0, a1, b0, b1 in group:
            if tag == "equal":
                lines += [DiffLine("same", text) for text in old[a0:a1]]
                continue
            lines += [DiffLine("removed", text) for text in old[a0:a1]]
            lines += [DiffLine("added", text) for text in new[b0:b1]]
            removed += a1 - a0
            added += b1 - b0
    return Diff(tuple(lines), added, removed)


def problems_of(file: FleetFile, told: Iterable[fleet_pb2.FleetProblem] = ()) -> list[Problem]:
    """Those of its form and those of its meaning, by line; none twice."""
    known = {problem.path for problem in file.problems}
    others = [FileProblem(one.path, one.why, file.line_of(one.path)) for one in told if one.path not in known]
    keys = [
        FileProblem(f"backends.{name}.bearer_file", _KEY_FILE, file.line_of(f"backends.{name}"))
        for name in file.key_files
    ]
    found = sorted((*file.problems, *others, *keys), key=lambda problem: problem.line or 0)
    return [Problem(one.line, "".join(c if c.isprintable() else "?" for c in one.path), one.why) for one in found]


def letters_of(told: usage_queries_pb2.ListDeadLettersResponse) -> tuple[Letter, ...]:
    return tuple(
        Letter(one.id, one.received_at_us / 1e6, getattr(one, "from"), one.why, one.bytes) for one in told.letters
    )


_KEY_FILE = "A page reads no files of yours: leave this out, and give the engine its key on the backend's page."


def _through(one: fleet_pb2.FleetVersion, entries: Sequence[audit_pb2.AuditEntry]) -> str:
    names = {change.name for change in one.changes}
    near = (
        entry.interface
        for entry in entries
        if entry.actor == one.actor and entry.subject in names and abs(entry.at_us - one.at_us) / 1e6 <= _NEAR_S
    )
    return next(near, "")


def _value(text: str) -> str:
    """JSON as a person would write it."""
    if not text:
        return "not set"
    try:
        read = json.loads(text)
    except ValueError:
        return text
    return read if isinstance(read, str) and read.isprintable() and read else text
