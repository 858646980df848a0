"""How far a memory of this replica is abreast of the changes that it follows, and waiting until it is. For the memories that
this replica itself decides by."""

from __future__ import annotations

import asyncio

_CATCH_UP_S = 2.0


class Abreast:
    def __init__(self) -> None:
        self._version = 0
        self._moved = asyncio.Condition()

    @property
    def is_loaded(self) -> bool:
        """There is something to decide by."""
        return self._version > 0

    async def loaded(self) -> None:
        """Returns when there is something to decide by."""
        await self._until(1)

    async def caught_up(self, version: int) -> None:
        """Returns when this replica decides by `version`, so that whoever was just told of a change finds it made here; and
        after two seconds anyway, since the change itself is committed."""
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self._until(version)
        except TimeoutError:
            return

    async def _reach(self, version: int) -> None:
        """It goes by `version` now. It can be lower than before: the database was restored."""
        async with self._moved:
            self._version = version
            self._moved.notify_all()

    async def _until(self, version: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._version >= version)
