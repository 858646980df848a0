"""One look at one engine: is it there, which models has it, how busy is it. What the answers mean is read in `answers`; when
to look, and what a failure leads to, is decided elsewhere.

The list of models is the test of health, since an engine that cannot give it cannot serve. Gauges are asked for apart, with
less patience: llama.cpp answers them between two batches only, and being busy is no fault."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from forebay.clock import Clock
from forebay_registry.backend import EngineKind, Load, Model, Seen
from forebay_registry.engines import answers, provider_answers
from forebay_registry.engines.answers import BadAnswer
from forebay_registry.health.conditions import Outcome

MAX_BODY_BYTES = 8 * 1024 * 1024
_ANTHROPIC_LIST = "/v1/models?limit=1000"
_GEMINI_LIST = "/v1beta/models?pageSize=1000"
_COHERE_LIST = "/v1/models?page_size=1000"
_AZURE_DEPLOYMENTS = "/deployments?api-version=2023-03-15-preview"
_MOST_PAGES = 20
_NOT_THERE = frozenset({404, 405, 501})
_NO_CREDENTIAL = frozenset({401, 402, 403})
_NO_CREDENTIAL_WORDS = re.compile(r"API key (?:not valid|expired)|credit balance is too low", re.IGNORECASE)
"""Of providers that say so with status 400."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to look at."""

    url: str
    kind: EngineKind | None
    """None: find out."""
    bearer: str | None = None
    others: tuple[str, ...] = ()
    """Further credentials, for when this one is refused."""

    def __repr__(self) -> str:  # a credential must not reach a log by way of a traceback
        return f"Target({self.url!r}, {self.kind!r}, bearer={'…' if self.bearer else None})"


@dataclass(frozen=True, slots=True)
class Answered:
    seen: Seen
    load: Load | None
    """None when this look could not tell."""


@dataclass(frozen=True, slots=True)
class Failed:
    outcome: Outcome
    reason: str
    """One sentence, for the operator."""


class Probe:
    """Looks at any number of engines at once over one session; none waits for another."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, *, timeout_s: float = 3.0, gauges_timeout_s: float = 1.0
    ) -> None:
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self._gauges_timeout_s = gauges_timeout_s
        self._accepted: dict[str, str] = {}
        """By address, the credential that did last where there are several."""

    async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed:
        """Ends within both timeouts for each credential that is refused. `found` is the kind that an earlier look found
        out."""
        if not target.others:
            return await self._look(target, found)
        last = self._accepted.get(target.url)
        assert target.bearer is not None
        bearers = sorted((target.bearer, *target.others), key=lambda bearer: bearer != last)
        for bearer in bearers:
            answer = await self._look(replace(target, bearer=bearer, others=()), found)
            if isinstance(answer, Answered) or answer.outcome is not Outcome.CREDENTIAL:
                self._accepted[target.url] = bearer
                break
        return answer

    async def _look(self, target: Target, found: EngineKind | None) -> Answered | Failed:
        pages = _Pages(self._session, target)
        place = urlsplit(target.url).netloc
        try:
            async with asyncio.timeout(self._timeout_s):
                seen, gauges = await self._ask(pages, target.kind or found)
        except _Refusing as error:
            return Failed(error.outcome, f"The engine at {place} {error}.")
        except BadAnswer as error:
            return Failed(Outcome.BAD_ANSWER, f"What answers at {place} is not an engine of this kind: {error}.")
        except TimeoutError:
            return Failed(Outcome.TIMEOUT, f"The engine at {place} did not answer within {self._timeout_s:g} s.")
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ConnectionRefusedError):
                return Failed(Outcome.REFUSED, f"Nothing listens at {place}.")
            return Failed(Outcome.UNREACHABLE, f"{place} cannot be reached: {_said(error)}.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Failed(Outcome.UNREACHABLE, f"The connection to {place} failed: {_said(error)}.")
        try:
            async with asyncio.timeout(self._gauges_timeout_s):
                load = await gauges() if gauges else None
        except (TimeoutError, _Refusing, BadAnswer, aiohttp.ClientError, OSError, ValueError):
            load = None  # it serves; that it does not tell how busy it is says nothing against it
        return Answered(seen, load)

    async def _ask(self, pages: _Pages, kind: EngineKind | None) -> tuple[Seen, _Gauges | None]:
        match kind:
            case EngineKind.OLLAMA:
                return Seen(kind, None, await self._ollama_models(pages)), None
            case EngineKind.LLAMACPP:
                return await self._llamacpp(pages)
            case EngineKind.VLLM | EngineKind.SGLANG:
                await pages.get("/health")
                listed = answers.read_models(await pages.demand("/v1/models"))
                return Seen(kind, None, listed.models), lambda: self._metrics(pages, kind)
            case EngineKind.ANTHROPIC:
                return Seen(
                    kind, None, await self._all_pages(pages, answers.read_anthropic_models, _ANTHROPIC_LIST)
                ), None
            case EngineKind.GEMINI:
                return Seen(kind, None, await self._all_pages(pages, answers.read_gemini_models, _GEMINI_LIST)), None
            case EngineKind.COHERE:
                models = await self._all_pages(pages, provider_answers.read_cohere_models, _COHERE_LIST)
                return Seen(kind, None, models), None
            case EngineKind.AZURE:
                return Seen(kind, None, await self._azure_models(pages)), None
            case EngineKind.OPENROUTER:
                await pages.get("/v1/key")  # its list of models is for everybody, and says nothing of the credential
                return Seen(kind, None, provider_answers.read_openrouter_models(await pages.demand("/v1/models"))), None
            case EngineKind.OPENAI:
                return Seen(kind, None, answers.read_models(await pages.demand("/v1/models")).models), None
            case None:
                found, listed = await self._find_out(pages)
                if found is None:  # another engine's page did not answer for certain: ask again next time
                    return Seen(None, None, listed.models), None
                return await self._ask(pages, found)

    async def _find_out(self, pages: _Pages) -> tuple[EngineKind | None, answers.ModelList]:
        """By what only one engine says. Whatever lists its models and is none of them is `openai`."""
        page = await pages.get("/v1/models")
        if page is None:
            if answers.is_ollama_version(await pages.get("/api/version") or b""):
                return EngineKind.OLLAMA, answers.ModelList((), None)
            raise BadAnswer("it has no /v1/models and is not Ollama")
        listed = answers.read_models(page)
        if listed.kind is not None:
            return listed.kind, listed
        try:
            metrics = await pages.get("/metrics")
            if metrics is not None and (kind := answers.kind_of_gauges(metrics.decode(errors="replace"))):
                return kind, listed
            props = await pages.get("/props")
            if props is not None and _has_slots(props):
                return EngineKind.LLAMACPP, listed
            if answers.is_ollama_version(await pages.get("/api/version") or b""):
                return EngineKind.OLLAMA, listed
        except _Refusing as error:
            # A proxy may forbid what it does not know; anything else may pass.
            return (EngineKind.OPENAI if error.outcome is Outcome.CREDENTIAL else None), listed
        return EngineKind.OPENAI, listed

    async def _all_pages(
        self, pages: _Pages, read: Callable[[bytes], answers.ModelPage], address: str
    ) -> tuple[Model, ...]:
        """Of a list that names its next page."""
        models: list[Model] = []
        next_page: str | None = ""
        for _ in range(_MOST_PAGES):
            page = read(await pages.demand(address + (f"&{next_page}" if next_page else "")))
            models += page.models
            next_page = page.next_page
            if next_page is None:
                break
        return answers.distinct(models)

    async def _azure_models(self, pages: _Pages) -> tuple[Model, ...]:
        """A deployment is asked for by its own name, and the v1 API lists what could be deployed instead. This list is the
        older one, of which Azure's own libraries made use."""
        try:
            page = await pages.get(_AZURE_DEPLOYMENTS)
        except _Refusing as error:
            if error.outcome is Outcome.CREDENTIAL:
                raise
            page = None
        if page is not None:
            return provider_answers.read_azure_deployments(page)
        return answers.read_models(await pages.demand("/v1/models")).models

    async def _ollama_models(self, pages: _Pages) -> tuple[Model, ...]:
        models = answers.read_ollama_tags(await pages.demand("/api/tags"))
        resident = await pages.get("/api/ps")
        if resident is None:
            return tuple(replace(m, loaded=None) for m in models)
        return answers.with_loaded(models, resident)

    async def _llamacpp(self, pages: _Pages) -> tuple[Seen, _Gauges | None]:
        await pages.get("/health")
        listed = answers.read_models(await pages.demand("/v1/models"))
        page = await pages.get("/props")
        if page is None:
            return Seen(EngineKind.LLAMACPP, None, listed.models), lambda: self._metrics(pages, EngineKind.LLAMACPP)
        props = answers.read_props(page)
        models = tuple(
            replace(m, capabilities=tuple(sorted({*m.capabilities, *props.capabilities}))) for m in listed.models
        )
        return Seen(EngineKind.LLAMACPP, props.total_slots, models), lambda: self._llamacpp_load(pages, props)

    async def _llamacpp_load(self, pages: _Pages, props: answers.Props) -> Load | None:
        # /metrics first: it also tells how many wait. It is off unless the server was started with --metrics.
        if props.has_metrics_page and (load := await self._metrics(pages, EngineKind.LLAMACPP)):
            return load
        slots = await pages.get("/slots") if props.has_slots_page else None
        return answers.read_slots(slots, self._clock.now()) if slots is not None else None

    async def _metrics(self, pages: _Pages, kind: EngineKind) -> Load | None:
        page = await pages.get("/metrics")
        return answers.read_gauges(page.decode(errors="replace"), kind, self._clock.now()) if page is not None else None


_Gauges = Callable[[], Awaitable[Load | None]]


class _Refusing(Exception):
    """It answered, and not as a healthy engine does; the text goes on after "The engine at HOST"."""

    def __init__(self, outcome: Outcome, said: str) -> None:
        super().__init__(said)
        self.outcome = outcome


class _Pages:
    """GETs below one base URL, with its credential, and with an end to how much is read."""

    def __init__(self, session: aiohttp.ClientSession, target: Target) -> None:
        self._session = session
        self._base = target.url
        self._headers = _headers_for(target.kind, target.bearer)

    async def demand(self, path: str) -> bytes:
        page = await self.get(path)
        if page is None:
            raise BadAnswer(f"it has no {path}")
        return page

    async def get(self, path: str) -> bytes | None:
        """The body of a 200; None where the engine has no such page. Raises _Refusing."""
        # Redirects are not followed: a credential is for the address that was registered.
        async with self._session.get(self._base + path, headers=self._headers, allow_redirects=False) as response:
            body = await _read(response)
            if response.status == 200:
                return body
            if response.status in _NOT_THERE:
                return None
            said = answers.read_error(body)
            if response.status in _NO_CREDENTIAL or (response.status == 400 and _NO_CREDENTIAL_WORDS.search(said)):
                raise _Refusing(Outcome.CREDENTIAL, f"does not accept the credential it was given ({response.status})")
            if 300 <= response.status < 400:
                where = response.headers.get("location", "elsewhere")[:200]
                raise _Refusing(Outcome.STATUS, f"sends to {where}; register that address instead")
            raise _Refusing(Outcome.STATUS, f"answers {path} with {response.status}" + (f" ({said})" if said else ""))


def _headers_for(kind: EngineKind | None, credential: str | None) -> dict[str, str]:
    """How an engine of this kind wants to be shown a credential."""
    match kind:
        case EngineKind.ANTHROPIC:
            return {"anthropic-version": "2023-06-01"} | ({"x-api-key": credential} if credential else {})
        case EngineKind.GEMINI:
            return {"x-goog-api-key": credential} if credential else {}
        case EngineKind.AZURE:
            return {"api-key": credential} if credential else {}
        case _:
            return {"authorization": f"Bearer {credential}"} if credential else {}


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(64 * 1024):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            raise BadAnswer(f"its answer is longer than {MAX_BODY_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _has_slots(props: bytes) -> bool:
    try:
        return answers.read_props(props).total_slots is not None
    except BadAnswer:
        return False


def _said(error: BaseException) -> str:
    os_error = getattr(error, "os_error", None)
    return " ".join(str(os_error or error).split()).rstrip(".") or type(error).__name__
