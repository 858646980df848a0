"""One look at one engine: is it there, which models has it, how busy is it. What the answers mean is read in `answers`; when
to look, and what a failure leads to, is decided elsewhere.

The list of models is the test of health, since an engine that cannot give it cannot serve. How busy it is, `telemetry` asks
apart, less often and with less patience."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from forebay.clock import Clock
from forebay_registry.backend import EngineKind, Load, Model, Seen
from forebay_registry.engines import answers, gauges, ollama_answers, provider_answers
from forebay_registry.engines.answers import BadAnswer
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.pages import Pages, Refusing, headers_for
from forebay_registry.engines.telemetry import Behind, Telemetry

_ANTHROPIC_LIST = "/v1/models?limit=1000"
_GEMINI_LIST = "/v1beta/models?pageSize=1000"
_COHERE_LIST = "/v1/models?page_size=1000"
_AZURE_DEPLOYMENTS = "/deployments?api-version=2023-03-15-preview"
_MOST_PAGES = 20
_LONGEST_REASON = 500


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
    took_s: float | None = None
    """How long the engine took to say that it is there, without its gauges."""


@dataclass(frozen=True, slots=True)
class Failed:
    outcome: Outcome
    reason: str
    """One sentence, for the operator."""


class Probe:
    """Looks at any number of engines at once over one session; none waits for another."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        timeout_s: float = 3.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._timeout_s = timeout_s
        self._telemetry = telemetry or Telemetry(clock)
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
        kind = target.kind or found
        pages = Pages(self._session, target.url, headers_for(kind, target.bearer))
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                seen, behind = await self._ask(pages, kind)
        except (Refusing, BadAnswer, TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            self._telemetry.note_absence(target.url)
            failed = self._failed(error, urlsplit(target.url).netloc)
            return replace(failed, reason=_plain(failed.reason))
        took_s = self._clock.monotonic() - began
        seen, load = await self._telemetry.add_to(seen, pages, behind)
        return Answered(seen, load, took_s)

    def _failed(self, error: Exception, place: str) -> Failed:
        match error:
            case Refusing():
                return Failed(error.outcome, f"The engine at {place} {error}.")
            case BadAnswer():
                return Failed(Outcome.BAD_ANSWER, f"What answers at {place} is not an engine of this kind: {error}.")
            case TimeoutError():
                return Failed(Outcome.TIMEOUT, f"The engine at {place} did not answer within {self._timeout_s:g} s.")
            case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
                return Failed(Outcome.REFUSED, f"Nothing listens at {place}.")
            case aiohttp.ClientConnectorError():
                return Failed(Outcome.UNREACHABLE, f"{place} cannot be reached: {_said(error)}.")
            case _:
                return Failed(Outcome.UNREACHABLE, f"The connection to {place} failed: {_said(error)}.")

    async def _ask(self, pages: Pages, kind: EngineKind | None) -> tuple[Seen, Behind | None]:
        match kind:
            case EngineKind.OLLAMA:
                return Seen(kind, None, await self._ollama_models(pages)), None
            case EngineKind.LLAMACPP:
                return await self._llamacpp(pages)
            case EngineKind.VLLM | EngineKind.SGLANG:
                await pages.get("/health")
                listed = answers.read_models(await pages.demand("/v1/models"))
                return Seen(kind, None, listed.models), None
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

    async def _find_out(self, pages: Pages) -> tuple[EngineKind | None, answers.ModelList]:
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
            if metrics is not None and (kind := gauges.kind_of_page(metrics)):
                return kind, listed
            props = await pages.get("/props")
            if props is not None and _has_slots(props):
                return EngineKind.LLAMACPP, listed
            if answers.is_ollama_version(await pages.get("/api/version") or b""):
                return EngineKind.OLLAMA, listed
        except Refusing as error:
            # A proxy may forbid what it does not know; anything else may pass.
            return (EngineKind.OPENAI if error.outcome is Outcome.CREDENTIAL else None), listed
        return EngineKind.OPENAI, listed

    async def _all_pages(
        self, pages: Pages, read: Callable[[bytes], answers.ModelPage], address: str
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

    async def _azure_models(self, pages: Pages) -> tuple[Model, ...]:
        """A deployment is asked for by its own name, and the v1 API lists what could be deployed instead. This list is the
        older one, of which Azure's own libraries made use."""
        try:
            page = await pages.get(_AZURE_DEPLOYMENTS)
        except Refusing as error:
            if error.outcome is Outcome.CREDENTIAL:
                raise
            page = None
        if page is not None:
            return provider_answers.read_azure_deployments(page)
        return answers.read_models(await pages.demand("/v1/models")).models

    async def _ollama_models(self, pages: Pages) -> tuple[Model, ...]:
        models = ollama_answers.read_tags(await pages.demand("/api/tags"))
        resident = await pages.get("/api/ps")
        if resident is None:
            return tuple(replace(m, loaded=None) for m in models)
        return ollama_answers.with_resident(models, resident)

    async def _llamacpp(self, pages: Pages) -> tuple[Seen, Behind | None]:
        await pages.get("/health")
        listing = await pages.demand("/v1/models")
        models = answers.read_models(listing).models
        page = await pages.get("/props")
        if page is None:
            return Seen(EngineKind.LLAMACPP, None, models), None
        props = answers.read_props(page)
        models = tuple(replace(m, capabilities=tuple(sorted({*m.capabilities, *props.capabilities}))) for m in models)
        seen = Seen(
            EngineKind.LLAMACPP,
            props.total_slots,
            models,
            models_at_once=props.models_at_once,
            version=props.version,
        )
        return seen, Behind(props, answers.read_routed(listing) if props.is_router else ())


def _has_slots(props: bytes) -> bool:
    try:
        return answers.read_props(props).total_slots is not None
    except BadAnswer:
        return False


def _plain(text: str) -> str:
    """Engines may say anything, and neither the wire nor Postgres takes all of it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:_LONGEST_REASON])


def _said(error: BaseException) -> str:
    os_error = getattr(error, "os_error", None)
    return " ".join(str(os_error or error).split()).rstrip(".") or type(error).__name__
