"""The pages about what happened: the audit log, recordings, security, events."""

from __future__ import annotations

from typing import Any

from forebay_admin.web.live import Live
from forebay_admin.web.visit import Visits
from forebay_admin.web.watch.addresses import AddressesPages
from forebay_admin.web.watch.audit import AuditPages
from forebay_admin.web.watch.events import EventsPages
from forebay_admin.web.watch.recordings import RecordingsPages
from forebay_admin.web.watch.security import SecurityPages


def watch_pages(visits: Visits, live: Live) -> tuple[Any, ...]:
    return (
        AuditPages(visits),
        RecordingsPages(visits),
        SecurityPages(visits, live),
        AddressesPages(visits),
        EventsPages(visits),
    )
