"""Telling webhooks: one task for each, so that a slow or dead one delays nobody, and nothing here is waited for. What waits
is decided in `outbox`; what outlives this process is the part of `watch`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from forebay.clock import Clock
from forebay.webhook import TIMEOUT_S, Posted, host_of, post
from forebay_registry.alerts.book import Event
from forebay_registry.alerts.outbox import Letter, Outbox
from forebay_registry.alerts.webhooks import Webhook
from forebay_registry.alerts.wire import body_of

log = logging.getLogger(__name__)

_MOST_WAIT_S = 60.0
_MOST_OVER = 20_000
"""While Postgres is away. Beyond, a letter may be sent once more by the next registry."""

Place = tuple[str, str]
"""The name of a webhook, and the id of a letter for it."""


@dataclass(slots=True)
class Receiver:
    """One webhook, and how it has been."""

    webhook: Webhook
    secret: bytes = field(repr=False)
    outbox: Outbox
    news: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: int = 0
    given_up: int = 0
    delivered_at: float | None = None
    failing_since: float | None = None
    last_error: str = ""

    @property
    def host(self) -> str:
        return host_of(self.webhook.url)


class Deliveries:
    def __init__(
        self,
        webhooks: Iterable[tuple[Webhook, bytes]],
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`webhooks`: each with its secret."""
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self.receivers = {webhook.name: self._receiver(webhook, secret) for webhook, secret in webhooks}
        self.over: dict[Place, None] = {}
        """Letters that are over, and may be forgotten by whoever keeps them."""
        self.on_over: Callable[[], None] = lambda: None
        """Hears that there are such."""

    def put(self, event: Event) -> dict[Place, Letter]:
        """The letters that it makes, to be kept."""
        if event.is_quiet:
            return {}
        letter = Letter(event.id, event.alert.id, event.alert.events, event.at, body_of(event))
        wanting = [r for r in self.receivers.values() if r.webhook.wants(event.alert.rule, event.alert.severity)]
        for receiver in wanting:
            self._put(receiver, (letter,))
        return {(receiver.webhook.name, letter.id): letter for receiver in wanting}

    def adopt(self, letters: Mapping[str, Sequence[Letter]]) -> None:
        """What a registry before this one left to be told."""
        for name, waiting in letters.items():
            if name in self.receivers:
                self._put(self.receivers[name], waiting)

    def forget(self) -> None:
        """All that waits: another registry tells it."""
        for receiver in self.receivers.values():
            receiver.outbox = Outbox(random.random)
        self.over.clear()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for receiver in self.receivers.values():
                tasks.create_task(self._serve(receiver), name=f"webhook-{receiver.webhook.name}")

    async def send(self, receiver: Receiver, event: Event) -> Posted:
        """Now and once, out of turn; how it went is nobody's history."""
        return await self._post(receiver, event.id, body_of(event))

    def _put(self, receiver: Receiver, letters: Iterable[Letter]) -> None:
        gone = receiver.outbox.put(letters, self._clock.monotonic())
        if gone:
            receiver.given_up += len(gone)
            self._over(receiver, gone)
            fields = {"action": "webhook_overflow", "webhook": receiver.webhook.name, "lost": len(gone)}
            log.error("too much waits for a webhook: what is oldest is given up", extra=fields)
        receiver.news.set()

    async def _serve(self, receiver: Receiver) -> None:
        while True:
            receiver.news.clear()
            outbox = receiver.outbox
            letter, wait_s = outbox.next(self._clock.monotonic())
            if letter is None:
                await _either(receiver.news, min(_MOST_WAIT_S, wait_s) if wait_s is not None else None)
                continue
            posted = await self._post(receiver, letter.id, letter.body)
            self._note(receiver, letter, posted)
            over = outbox.sent(letter, posted, self._clock.monotonic(), self._clock.now())
            if over and not posted.is_delivered:
                receiver.given_up += len(over)
            self._over(receiver, over)

    async def _post(self, receiver: Receiver, message_id: str, body: bytes) -> Posted:
        return await post(
            self._session,
            receiver.webhook.url,
            receiver.secret,
            message_id,
            body,
            now=self._clock.now(),
            timeout_s=self._timeout_s,
        )

    def _note(self, receiver: Receiver, letter: Letter, posted: Posted) -> None:
        fields = {"webhook": receiver.webhook.name, "alert": letter.alert_id, "said": posted.said}
        if posted.is_delivered:
            if receiver.failing_since is not None:
                log.info("webhook takes messages again", extra={"action": "webhook_back", **fields})
            receiver.delivered += 1
            receiver.delivered_at, receiver.failing_since, receiver.last_error = self._clock.now(), None, ""
            return
        if receiver.failing_since is None:
            receiver.failing_since = self._clock.now()
            log.warning("webhook fails; messages wait and are sent again", extra={"action": "webhook_fails", **fields})
        receiver.last_error = posted.said

    def _over(self, receiver: Receiver, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self.over[receiver.webhook.name, letter.id] = None
        if len(self.over) > _MOST_OVER:
            del self.over[next(iter(self.over))]
        if self.over:
            self.on_over()

    def _receiver(self, webhook: Webhook, secret: bytes) -> Receiver:
        return Receiver(webhook, secret, Outbox(random.random))


async def _either(event: asyncio.Event, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
