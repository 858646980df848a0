"""The audit log as the console shows it: who did what, and what of it changed. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forebay.wire.v1 import audit_pb2
from forebay_admin.audit.audit_store import Interface
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.watch.spans import from_us, unix

PATH = "/console/audit"
AT_ONCE = 100
THROUGH = tuple(Interface)
_OF_REQUESTS = ("recording.read",)
"""Actions whose subject is a request."""
COLUMNS = (
    Column("at", Kind.MOMENT),
    Column("actor", Kind.TEXT),
    Column("actor_key_id", Kind.TEXT),
    Column("interface", Kind.TEXT),
    Column("address", Kind.TEXT),
    Column("action", Kind.TEXT),
    Column("subject", Kind.TEXT),
    Column("before", Kind.TEXT),
    Column("after", Kind.TEXT),
    Column("seq", Kind.WHOLE),
    Column("hash", Kind.TEXT),
)


@dataclass(frozen=True, slots=True)
class Difference:
    name: str
    """Of what was changed; empty: of the whole."""
    before: str | None
    """None: it was not there, or said nothing."""
    after: str | None


@dataclass(frozen=True, slots=True)
class EntryRow:
    id: int
    at: float | None
    actor: str
    actor_path: str
    key_id: str
    through: str
    address: str
    action: str
    action_path: str
    subject: str
    subject_path: str
    explained_path: str
    """Where the subject is a request: to what became of it."""
    differences: Sequence[Difference]
    others: int
    """So many facts are told that stayed as they were, or say nothing."""
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class AuditView:
    rows: Sequence[EntryRow]
    next_href: str
    first_href: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of a check of the chain, or how far it is."""

    checked: int
    links: int
    done: bool
    fault: str
    """Empty: nothing is wrong so far."""
    anchor: str


def asked_for(query: Form) -> audit_pb2.ListAuditRequest:
    """A page of the log, as its address says. Raises WrongField."""
    through = query.get("through")
    if through and through not in THROUGH:
        raise WrongField("through", f"Things are done through {', '.join(THROUGH)}.")
    return audit_pb2.ListAuditRequest(
        from_us=from_us(query, "from"),
        to_us=from_us(query, "to"),
        actor=query.get("actor"),
        action=query.get("action"),
        subject=query.get("subject"),
        interface=through,
        address=query.get("address"),
        text=query.get("text"),
        limit=AT_ONCE,
        page=query.get("page"),
    )


def audit_view(told: audit_pb2.ListAuditResponse, query: Mapping[str, str]) -> AuditView:
    return AuditView(
        tuple(_row(entry) for entry in told.entries),
        address(PATH, query, page=told.next_page) if told.next_page else "",
        address(PATH, query, page="") if query.get("page") else "",
    )


def differences(before: str, after: str) -> tuple[Sequence[Difference], int]:
    """What changed between two JSON objects, by name, and of how many names nothing is to be said: they stayed as they were,
    or are empty. An object that is empty was not told."""
    old, new = _facts(before), _facts(after)
    if old is None or new is None:
        whole = [Difference("", before or None, after or None)] if before or after else []
        return whole, 0
    names = [*old, *(name for name in new if name not in old)]
    pairs = [Difference(name, _word(old.get(name)), _word(new.get(name))) for name in names]
    found = [one for one in pairs if one.before != one.after]
    return found, len(names) - len(found)


def verdict(told: audit_pb2.VerifyAuditResponse) -> Verdict:
    fault = ""
    if told.HasField("fault"):
        where = f"link {told.fault.seq:,}" if told.fault.seq else f"entry {told.fault.entry_id:,}"
        fault = f"{told.fault.damage.replace('_', ' ').capitalize()}, {where}: {told.fault.why}"
    return Verdict(told.checked, told.links, told.done, fault, told.anchor)


def entry_rows_of_file(entries: Sequence[audit_pb2.AuditEntry]) -> Sequence[Row]:
    return tuple(
        {
            "at_us": entry.at_us,
            "actor": entry.actor,
            "actor_key_id": entry.actor_key_id,
            "interface": entry.interface,
            "address": entry.address,
            "action": entry.action,
            "subject": entry.subject,
            "before": entry.before,
            "after": entry.after,
            "seq": entry.seq,
            "hash": entry.hash.hex(),
        }
        for entry in entries
    )


def _row(entry: audit_pb2.AuditEntry) -> EntryRow:
    changed, others = differences(entry.before, entry.after)
    return EntryRow(
        entry.id,
        unix(entry.at_us),
        entry.actor,
        address(PATH, {}, actor=entry.actor),
        entry.actor_key_id,
        entry.interface,
        entry.address,
        entry.action,
        address(PATH, {}, action=entry.action),
        entry.subject,
        address(PATH, {}, subject=entry.subject),
        f"/console/explain/{step(entry.subject)}" if entry.action in _OF_REQUESTS and entry.subject else "",
        changed,
        others,
        entry.seq,
        entry.hash.hex(),
    )


def _facts(text: str) -> dict[str, Any] | None:
    """None where it is no object."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _word(value: Any) -> str | None:
    if value is None or value in ("", [], {}):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
