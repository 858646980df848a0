"""The audit log, for operators: looking for what was done, and checking that the log still is what was written."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import audit_pb2 as wire
from forebay_admin.audit.audit_store import Interface
from forebay_admin.audit.chain import BEGINNING, Fault, Walk, parse_anchor
from forebay_admin.audit.log_store import Found, Wanted, first_unchained, links_after, read_head, search
from forebay_admin.wire_forms import moment

_MOST_LISTED, _USUAL_LISTED = 1000, 100
_AT_ONCE = 2000
"""Links between two words on how far the check is. Each lot is a transaction of its own: a long check holds nothing."""
_LONGEST_TEXT = 200


class AuditDesk:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(self, request: wire.ListAuditRequest) -> wire.ListAuditResponse:
        """Raises BadInput, Unavailable."""
        if request.limit > _MOST_LISTED:
            raise BadInput(f"At most {_MOST_LISTED} entries are told at once.")
        limit = request.limit or _USUAL_LISTED
        wanted = _wanted(request)
        async with self._database.reading() as connection:
            found = await search(connection, wanted, limit + 1)
        shown = found[:limit]
        return wire.ListAuditResponse(
            entries=[_to_wire(one) for one in shown],
            next_page=str(shown[-1].entry.id) if len(found) > limit else "",
        )

    async def verify(self, request: wire.VerifyAuditRequest) -> AsyncGenerator[wire.VerifyAuditResponse, None]:
        """What is written meanwhile is not looked at. Raises BadInput, Unavailable."""
        anchor = parse_anchor(request.anchor) if request.anchor else None
        first = request.from_seq or 1
        async with self._database.reading() as connection:
            head = await read_head(connection)
        last = request.to_seq or head.seq
        if first < 1 or last > head.seq or (last < first and head.seq > 0):
            raise BadInput(f"The log has links 1 to {head.seq}: say from which to which of them.")
        if anchor is not None and anchor.seq < first:
            raise BadInput(f"The anchor is of link {anchor.seq}, and the check begins after it.")
        if anchor is not None and request.to_seq and anchor.seq > last:
            raise BadInput(f"The anchor is of link {anchor.seq}, and the check ends before it.")
        walk = Walk(first, BEGINNING if first == 1 else None, anchor)
        links = max(0, last - first + 1)
        fault: Fault | None = None
        while fault is None and walk.expected <= last:
            async with self._database.reading() as connection:
                found = await links_after(connection, walk.expected - 1, last, _AT_ONCE)
            fault = walk.check(found)
            if not found:
                break
            yield wire.VerifyAuditResponse(checked=walk.expected - first, links=links)
        if fault is None:
            fault = walk.end(head, last)
        if fault is None:
            async with self._database.reading() as connection:
                fault = await first_unchained(connection)
        yield wire.VerifyAuditResponse(
            checked=walk.expected - first,
            links=links,
            done=True,
            fault=_fault_to_wire(fault) if fault is not None else None,
            anchor=str(walk.last) if fault is None and links else "",
        )


def _wanted(request: wire.ListAuditRequest) -> Wanted:
    """Raises BadInput."""
    if request.interface and request.interface not in set(Interface):
        raise BadInput(f"There is no interface {request.interface[:60]!r}; there are {', '.join(Interface)}.")
    if len(request.text) > _LONGEST_TEXT:
        raise BadInput(f"A text to look for has at most {_LONGEST_TEXT} letters.")
    if request.page and not (request.page.isascii() and request.page.isdigit() and len(request.page) < 19):
        raise BadInput("This is no page of the audit log: begin anew.")
    return Wanted(
        since=moment(request.from_us) if request.from_us else None,
        until=moment(request.to_us) if request.to_us else None,
        actor=request.actor,
        action=request.action,
        subject=request.subject,
        interface=request.interface,
        address=request.address,
        text=request.text,
        before_id=int(request.page) if request.page else None,
    )


def _to_wire(found: Found) -> wire.AuditEntry:
    entry = found.entry
    return wire.AuditEntry(
        id=entry.id,
        at_us=entry.at_us,
        actor=entry.actor,
        actor_key_id=entry.actor_key_id,
        interface=entry.interface,
        address=entry.address,
        action=entry.action,
        subject=entry.subject,
        before=entry.before or "",
        after=entry.after or "",
        seq=found.seq,
        hash=found.hash,
    )


def _fault_to_wire(fault: Fault) -> wire.AuditFault:
    return wire.AuditFault(damage=fault.damage.value, seq=fault.seq, entry_id=fault.entry_id, why=fault.why)
