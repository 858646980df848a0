"""The pages about work: the queue, decisions, usage and cost, the configuration, settings."""

from __future__ import annotations

from typing import Any

from forebay_admin.config import AdminSettings
from forebay_admin.web.live import Live
from forebay_admin.web.visit import Visits
from forebay_admin.web.work.configuration import ConfigurationPages
from forebay_admin.web.work.explain import ExplainPages
from forebay_admin.web.work.letters import LettersPages
from forebay_admin.web.work.queue import QueuePages
from forebay_admin.web.work.settings import SettingsPages
from forebay_admin.web.work.usage import UsagePages


def work_pages(visits: Visits, live: Live, settings: AdminSettings) -> tuple[Any, ...]:
    return (
        QueuePages(visits, live),
        ExplainPages(visits),
        UsagePages(visits),
        ConfigurationPages(visits),
        LettersPages(visits),
        SettingsPages(visits, settings),
    )
