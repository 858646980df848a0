"""Watches a cluster, for ever. What it said last stays while it is away; where a watch cannot go on, all is listed anew."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from forebay.config import read_secret
from forebay.errors import CannotStart, ForebayError
from forebay.metrics import Number
from forebay_registry.discovery.kubernetes.collection import MOST_OBJECTS, Collection, Expired, NotTheApi, read_list
from forebay_registry.discovery.kubernetes.objects import MOST_BACKENDS, Key, Named, named_by
from forebay_registry.discovery.kubernetes.settings import ALL_NAMESPACES, KubernetesSettings
from forebay_registry.discovery.offers import Offer

log = logging.getLogger(__name__)

CALL_S = 15.0
WATCH_S = 300
"""After which the API ends a watch by itself and is asked again."""
_SPARE_S = 30.0
_SHORT_S = 1.0
_BEFORE_LIST_S = 0.05
"""Listing costs the API the most, and one that forgets at once would be asked without end."""
_PAGE = 500
_MOST_PAGES = 100
_MOST_BODY = 64 << 20
_MOST_LINE = 4 << 20


@dataclass(frozen=True, slots=True)
class Tally:
    lists: Number = field(default_factory=Number)
    events: Number = field(default_factory=Number)
    failures: Number = field(default_factory=Number)


class Refused(ForebayError):
    """The API does not answer what was asked."""


class Cluster:
    def __init__(
        self,
        settings: KubernetesSettings,
        tally: Tally | None = None,
        *,
        first_pause_s: float = 0.5,
        most_pause_s: float = 30.0,
        watch_s: int = WATCH_S,
    ) -> None:
        self._settings = settings
        self._tally = tally or Tally()
        self._first_pause_s, self._most_pause_s, self._watch_s = first_pause_s, most_pause_s, watch_s
        self._watched = [
            _Watched(f"{api}{_place(namespace)}/{kind}", kind)
            for namespace in settings.namespaces
            for api, kind in (("/api/v1", "services"), ("/apis/discovery.k8s.io/v1", "endpointslices"))
        ]
        self._named = Named()
        self._is_read = True
        """`_named` is of what the collections hold."""
        self._told: dict[Key, str] = {}

    @property
    def offers(self) -> tuple[Offer, ...]:
        if not self._is_read:  # here, and not at each event: pods that start again make thousands of them
            self._is_read = True
            self._tell()
        return self._named.offers

    @property
    def is_known(self) -> bool:
        return self._named.is_whole and all(watched.is_live for watched in self._watched)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with _open_session(self._settings) as session, asyncio.TaskGroup() as tasks:
                    for watched in self._watched:
                        tasks.create_task(self._keep(session, watched), name=f"kubernetes-{watched.kind}")
            except Refused as error:  # a CA that cannot be read yet must not end the registry
                self._note_failure(self._watched[0], error)
                await asyncio.sleep(self._most_pause_s)

    async def _keep(self, session: aiohttp.ClientSession, watched: _Watched) -> None:
        loop, pause_s = asyncio.get_running_loop(), self._first_pause_s
        while True:
            began = loop.time()
            try:
                if not watched.collection.version:
                    await self._list(session, watched)
                await self._watch(session, watched)
                wait_s = 0.0
                if loop.time() - began < _SHORT_S:  # nothing that keeps its word ends a watch at once
                    wait_s = pause_s
            except Expired:
                watched.collection.version = ""
                wait_s = _BEFORE_LIST_S
            except (ForebayError, aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
                self._note_failure(watched, error)
                if isinstance(error, NotTheApi):
                    watched.collection.version = ""
                wait_s = pause_s * random.uniform(0.5, 1.0)
            except Exception as error:
                # Whatever the API sends: what the cluster named stays, and the registry goes on.
                log.exception("Kubernetes could not be heard", extra={"action": "internal", "what": watched.kind})
                self._note_failure(watched, error)
                watched.collection.version = ""
                wait_s = self._most_pause_s
            lasted = loop.time() - began >= _SHORT_S
            pause_s = self._first_pause_s if lasted else min(2 * pause_s, self._most_pause_s)
            await asyncio.sleep(wait_s)

    async def _list(self, session: aiohttp.ClientSession, watched: _Watched) -> None:
        items, more, version = [], "", ""
        for _ in range(_MOST_PAGES):
            query = f"limit={_PAGE}" + (f"&continue={quote(more, safe='')}" if more else "")
            async with asyncio.timeout(CALL_S), self._get(session, watched, query) as response:
                page, version, more = read_list(await _read(response))
            items += page
            if not more:
                break
            if len(items) > MOST_OBJECTS:
                raise NotTheApi(f"The cluster names more than {MOST_OBJECTS} {watched.kind}; narrow the selector.")
        else:  # what is not on these pages is not gone
            raise NotTheApi(f"The list of {watched.kind} has no end.")
        self._tally.lists.value += 1
        watched.collection.begin(items, version)
        self._note_live(watched)
        self._is_read = False

    async def _watch(self, session: aiohttp.ClientSession, watched: _Watched) -> None:
        """Until the API ends it. Raises Expired, and what a connection raises."""
        version = quote(watched.collection.version, safe="")
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={self._watch_s}&resourceVersion={version}"
        async with asyncio.timeout(self._watch_s + _SPARE_S), self._get(session, watched, query) as response:
            self._note_live(watched)
            async for line in _lines(response):
                self._tally.events.value += 1
                if watched.collection.take(line):
                    self._is_read = False

    @asynccontextmanager
    async def _get(
        self, session: aiohttp.ClientSession, watched: _Watched, query: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        selector = quote(self._settings.selector, safe="")
        url = f"{self._settings.api}{watched.path}?labelSelector={selector}&{query}"
        headers = {"accept": "application/json", **await asyncio.to_thread(_authorization, self._settings)}
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == 410:
                raise Expired
            if response.status != 200:
                raise Refused(_why(response.status, watched, self._settings))
            if response.content_type != "application/json":
                raise NotTheApi(f"{self._settings.api} answers {response.content_type}, not JSON.")
            yield response

    def _tell(self) -> None:
        was_whole = self._named.is_whole
        services = _merged(w.collection for w in self._watched if w.kind == "services")
        slices = _merged(w.collection for w in self._watched if w.kind == "endpointslices")
        self._named = named_by(services, slices)
        if was_whole and not self._named.is_whole:
            fields = {"action": "kubernetes_too_many", "most": MOST_BACKENDS}
            log.warning("the cluster names more backends than are taken: none of its goes any more", extra=fields)
        for key, why in self._named.problems.items():
            if self._told.get(key) != why:
                fields = {"action": "kubernetes_problem", "service": f"{key.namespace}/{key.name}", "why": why}
                log.warning("a Service's backends are left out", extra=fields)
        self._told = dict(self._named.problems)

    def _note_live(self, watched: _Watched) -> None:
        if not watched.is_live:
            log.info("Kubernetes is watched", extra={"action": "kubernetes_live", "what": watched.kind})
        watched.is_live, watched.failure = True, ""

    def _note_failure(self, watched: _Watched, error: BaseException) -> None:
        self._tally.failures.value += 1
        why = error.message if isinstance(error, ForebayError) else (str(error) or type(error).__name__)
        if why != watched.failure:
            fields = {"action": "kubernetes_away", "what": watched.kind, "why": why}
            log.warning("Kubernetes is not heard: what it named stays", extra=fields)
        watched.is_live, watched.failure = False, why


@dataclass(slots=True)
class _Watched:
    path: str
    kind: str
    collection: Collection = field(default_factory=Collection)
    is_live: bool = False
    """Heard since its last failure."""
    failure: str = ""
    """Why it is not, as it was logged."""


@asynccontextmanager
async def _open_session(settings: KubernetesSettings) -> AsyncIterator[aiohttp.ClientSession]:
    """Raises Refused for a CA that cannot be read."""
    try:
        tls = await asyncio.to_thread(_tls, settings)
    except (OSError, ssl.SSLError) as error:
        raise Refused(f"The CA of Kubernetes {settings.ca_file} cannot be read: {error}.") from error
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CALL_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": "forebay-registry"},
    ) as session:
        yield session


def _tls(settings: KubernetesSettings) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file is not None else None


def _authorization(settings: KubernetesSettings) -> dict[str, str]:
    if settings.token_file is None:
        return {}
    try:
        return {"authorization": f"Bearer {read_secret(settings.token_file).decode()}"}
    except (CannotStart, UnicodeDecodeError) as error:
        raise Refused(str(error)) from error


def _why(status: int, watched: _Watched, settings: KubernetesSettings) -> str:
    match status:
        case 401:
            return f"The API at {settings.api} does not accept the token of {settings.token_file} (401)."
        case 403:
            return (
                f"The account may not list and watch {watched.kind} (403). Give it a Role with the verbs get, list and "
                "watch on services and on endpointslices of discovery.k8s.io."
            )
        case _:
            return f"The API at {settings.api} answers {status} to {watched.path}."


def _place(namespace: str) -> str:
    return "" if namespace == ALL_NAMESPACES else f"/namespaces/{namespace}"


def _merged(collections: Iterable[Collection]) -> dict[Key, Any]:
    return {key: item for collection in collections for key, item in collection.objects.items()}


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(256 << 10):
        size += len(chunk)
        if size > _MOST_BODY:
            raise NotTheApi("The list is too long.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines only: one that the end of the connection cuts off comes again with the next watch."""
    held = bytearray()
    async for chunk in response.content.iter_any():
        held += chunk
        if len(held) > _MOST_LINE:
            raise NotTheApi("A line of the watch is too long.")
        *whole, rest = bytes(held).split(b"\n")
        held = bytearray(rest)
        for line in whole:
            if line.strip():
                yield line
