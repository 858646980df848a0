"""The area of the fleet, put together."""

from __future__ import annotations

from typing import Any

from forebay_admin.web.fleet.backends import BackendsPages
from forebay_admin.web.fleet.data import DataPages
from forebay_admin.web.fleet.lately import LastHours
from forebay_admin.web.fleet.models import ModelPages
from forebay_admin.web.fleet.nodes import NodesPages
from forebay_admin.web.fleet.overview import OverviewPages
from forebay_admin.web.live import Live
from forebay_admin.web.visit import Visits


def fleet_pages(visits: Visits, live: Live) -> tuple[Any, ...]:
    hours = LastHours(visits.clock)
    return (
        OverviewPages(visits, live, hours),
        NodesPages(visits, live),
        BackendsPages(visits, live, hours),
        ModelPages(visits, live, hours),
        DataPages(visits),
    )
