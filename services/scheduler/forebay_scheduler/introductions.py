"""Gateway processes that are new here: none is given a slot before a stored snapshot names it.

A successor grants nothing until the gateways of the last snapshot have spoken. One that is missing from it would not be
waited for, and what it holds would be granted a second time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from forebay_scheduler.request import GatewayName, Holding

log = logging.getLogger(__name__)

_LONGEST_S = 1.0  # without the bus a new gateway has to serve too; then its slots are only safe while this leader lives


class Introductions:
    def __init__(self) -> None:
        self._stored: set[tuple[GatewayName, int]] = set()
        self._waiting: dict[tuple[GatewayName, int], asyncio.Event] = {}
        self.wanted = asyncio.Event()
        """Set while somebody waits for the next snapshot."""

    async def introduce(self, gateway: GatewayName, generation: int) -> None:
        """Returns when a stored snapshot names this process, at once if one does already; or when that takes too long."""
        process = gateway, generation
        if process in self._stored:
            return
        stored = self._waiting.setdefault(process, asyncio.Event())
        self.wanted.set()
        try:
            async with asyncio.timeout(_LONGEST_S):
                await stored.wait()
        except TimeoutError:
            log.warning(
                "a gateway begins without a stored snapshot that names it",
                extra={"action": "introduce", "gateway": gateway, "generation": generation},
            )

    def newcomers(self) -> list[Holding]:
        """They hold nothing yet. Asked for in the moment in which a snapshot is made."""
        self.wanted.clear()
        return [Holding(*process, {}) for process in self._waiting]

    def note_stored(self, holdings: Iterable[Holding]) -> None:
        """The snapshot with these is stored."""
        self._stored = {(holding.gateway, holding.generation) for holding in holdings}
        for process in self._stored & self._waiting.keys():
            self._waiting.pop(process).set()
