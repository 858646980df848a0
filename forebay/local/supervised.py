"""Keeps a child running: one that dies is started again, soon at first, then less and less eagerly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from forebay.errors import CannotStart
from forebay.local.process import Child, Command, Ready, start_child, told

Say = Callable[[str], None]
"""Receives one line for a person to read."""

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
_PROVEN_S = 10.0  # after running this long, a death is news again and not one more failure to start


class Supervised:
    """A child that is there until it is stopped. Made by `keep_running`."""

    def __init__(
        self, command: Command, ready: Ready, say: Say, before: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.command = command
        self.restarts = 0
        self._ready = ready
        self._say = say
        self._before = before
        self._child: Child | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that runs now; None between two."""
        return self._child.pid if self._child and self._child.is_running else None

    async def start(self) -> None:
        """Returns when it is ready. Raises CannotStart when it does not come up this first time."""
        if self._watching is None:
            child = await self._bring_up()
            self._watching = asyncio.create_task(self._watch(child), name=f"watch {self.command.name}")

    async def stop(self) -> None:
        """Ends it in good order; it stays down until `start`."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None
        if self._child is not None:
            await self._child.stop()

    def send(self, number: signal.Signals) -> None:
        """Nothing happens while it is down."""
        if self._child is not None:
            self._child.send(number)

    def hurry(self) -> None:
        """Ends it now, in good order or not, and for good. For a stop that somebody finds too slow."""
        if self._watching is not None:
            self._watching.cancel()  # its end is no news, and nothing to make good
        self.send(self.command.hurry_signal)

    async def _bring_up(self) -> Child:
        child = await self._spawn()
        try:
            await child.wait_ready(self._ready)
        except BaseException:
            await child.stop()
            raise
        return child

    async def _spawn(self) -> Child:
        if self._before is not None:
            await self._before()
        self._child = await start_child(self.command)
        return self._child

    async def _watch(self, child: Child) -> None:
        clock = asyncio.get_running_loop()
        delay_s, up_since = FIRST_DELAY_S, clock.time()
        while True:
            status = await child.wait()
            if clock.time() - up_since > _PROVEN_S:
                delay_s = FIRST_DELAY_S
            self._say(f"{self.command.name} ended ({told(status)}); starting it again in {delay_s:.1f} s.")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            up_since = clock.time()
            try:
                child = await self._spawn()
                await child.wait_ready(self._ready)
            except CannotStart as error:
                # One that runs but is not ready may wait for another part, or serve those it has: it is left alone.
                self._say(error.message)
            else:
                self.restarts += 1
                self._say(f"{self.command.name} runs again (process {child.pid}).")


@asynccontextmanager
async def keep_running(
    command: Command, ready: Ready, say: Say, before: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Supervised]:
    """The child is ready when entered and gone when left. `before` runs ahead of each start. Raises CannotStart."""
    supervised = Supervised(command, ready, say, before)
    await supervised.start()
    try:
        yield supervised
    finally:
        await supervised.stop()
