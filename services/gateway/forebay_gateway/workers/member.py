"""One worker as its parent sees it: a process, and what it tells over its line."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress

import orjson

from forebay.errors import CannotStart
from forebay_gateway.workers.line import UNASKED, Line, open_line
from forebay_gateway.workers.orders import Orders
from forebay_gateway.workers.sums import Page, from_plain

log = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0


class Member:
    """Use `start_member`."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: Line) -> None:
        self.number = number
        self.process = process
        self.missing: dict[str, str] = {"start": "still starting"}
        """What keeps it from being ready, as it told last."""
        self.page: Page = {}
        """Its metrics, as it told them last."""
        self.heard_at = asyncio.get_running_loop().time()
        self.news = asyncio.Event()
        """Set whenever it has told something."""
        self._line = line
        self._questions = itertools.count(UNASKED + 1)
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._listening = asyncio.create_task(self._listen(), name=f"line of worker {number}")

    @property
    def has_come_up(self) -> bool:
        return "start" not in self.missing

    @property
    def is_ready(self) -> bool:
        return not self.missing

    async def look(self, within_s: float) -> None:
        """Asks for its metrics; `page` has them afterwards, or still those before if it is slow or has gone."""
        number = next(self._questions)
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        self._line.send(number, b"")
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await answered
        self._asked.pop(number, None)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended already."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def wait(self) -> int:
        """Until it has ended and its last words are read; its exit status, -N for signal N."""
        status = await self.process.wait()
        # A child of its own that it left behind, or a debugger, might hold the other end open.
        await asyncio.wait([self._listening], timeout=_LAST_WORDS_S)
        self._listening.cancel()
        await self._line.hang_up()
        return status

    async def _listen(self) -> None:
        while (told := await self._line.receive()) is not None:
            number, body = told
            self._take(orjson.loads(body))
            asked = self._asked.get(number)
            if asked is not None and not asked.done():
                asked.set_result(None)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)

    def _take(self, told: dict[str, object]) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        missing, page = told["missing"], told["page"]
        assert isinstance(missing, dict)
        self.missing = missing
        if isinstance(page, list):
            self.page = from_plain(page)
        self.news.set()


async def start_member(orders: Orders) -> Member:
    """Raises CannotStart."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: what lies in the working directory is not what our modules are called like.
                *(sys.executable, "-P", "-m", "forebay_gateway.worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), orders.listener, orders.crowd),
            )
        except OSError as error:
            raise CannotStart(f"Worker {orders.number} of the gateway cannot be started: {error.strerror}.") from error
        theirs.close()
        line = await open_line(socket.socket(fileno=os.dup(ours.fileno())))
    line.send(UNASKED, pickle.dumps(orders))
    return Member(orders.number, process, line)
