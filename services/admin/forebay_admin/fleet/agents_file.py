"""The file of NATS users that `nats.conf` includes: one for each enrolled agent, kept equal to the database."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from forebay.database import Database
from forebay.errors import Unavailable
from forebay.nats_rights import render_agents
from forebay_admin.changes import Changes
from forebay_admin.fleet.invitation_store import list_agents

log = logging.getLogger(__name__)

_RETRY_S = 2.0


class AgentsFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever: an agent that enrols through another replica is let in by this one's NATS too."""
        known = 0
        while True:
            await changes.beyond(known)
            known = changes.version
            try:
                async with database.reading() as connection:
                    agents = await list_agents(connection)
                content = render_agents((agent.node, agent.public_nkey) for agent in agents)
                await asyncio.to_thread(self._replace, content.encode())
            except (Unavailable, OSError) as error:
                known = 0
                log.warning("agents file not written", extra={"action": "agents_file", "error": repr(error)})
                await asyncio.sleep(_RETRY_S)

    def _replace(self, content: bytes) -> None:
        """Whole or not at all, and only when it differs: NATS reads it again at every change."""
        if self._path.exists() and self._path.read_bytes() == content:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        fresh.replace(self._path)
        log.info("agents file written", extra={"action": "agents_file", "path": str(self._path)})
