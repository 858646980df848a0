"""What Ollama's clients ask for beside answers: which models there are and are loaded, what one is, which version this is.

It is the union over the pool's Ollama engines, asked when a client asks, and what the fleet has besides."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web

from forebay.errors import ForebayError, NotAllowed
from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.fields import model_of, parse_object
from forebay_gateway.canonical.speech import dumped
from forebay_gateway.dialects.ollama import listing
from forebay_gateway.dialects.ollama.loading import Loading
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend, OfferedModel
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.refused import ModelUnknown
from forebay_gateway.rules.catalogue import find_model, may_ask, offered_to
from forebay_gateway.serving import Means

log = logging.getLogger(__name__)

_WITHIN_S = 5.0
_UNLOADED_WITHIN_S = 30.0


class OllamaPages:
    def __init__(self, means: Means) -> None:
        self._means = means
        self._since = means.clock.now()

    async def tags(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        models = self._offered_to(principal)
        told = await self._ask_all(principal, "/api/tags", call)
        can = {model.name: model.capabilities for model in models}
        return answer_page(listing.tags(models, told, can, self._since), call)

    async def running(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        told = await self._ask_all(principal, "/api/ps", call)
        models = [model for model in self._offered_to(principal) if not model.alias_of]  # each is loaded once
        return answer_page(listing.running(models, told), call)

    async def version(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Without a key too: command lines ask for it before anything else."""
        principal = None if call.is_anonymous else principal_of(self._means, call)
        told = [] if principal is None else await self._ask_all(principal, "/api/version", call)
        return answer_page({"version": listing.least_version(told)}, call)

    async def show(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        means, principal = self._means, principal_of(self._means, call)
        body = parse_object(await read_page_body(means, request), "`model`")
        asked = model_of(body.get("model") or body.get("name"))
        name = find_model(asked, principal.pool, means.fleet, means.model_rules)
        model = next((m for m in means.fleet.offered(principal.pool) if m.name == name), None)
        if name is None or model is None or not may_ask(principal, asked, name):
            raise ModelUnknown(f"There is no model {asked} for this API key. `ollama list` shows those there are.")
        for backend in means.fleet.serving(name, principal.pool):
            if backend.kind is EngineKind.OLLAMA:
                told = await self._ask(backend, "/api/show", call, dumped({**body, "model": backend.its_name_of(name)}))
                if told is not None:
                    return answer_page(told, call)
        return answer_page(listing.shown(model, model.capabilities), call)

    def _offered_to(self, principal: Principal) -> list[OfferedModel]:
        return offered_to(principal, self._means.fleet, self._means.model_rules)

    async def _ask_all(self, principal: Principal, path: str, call: Call) -> list[dict[str, Any]]:
        backends = self._means.fleet.of_kind(EngineKind.OLLAMA, principal.pool)
        told = await asyncio.gather(*(self._ask(backend, path, call) for backend in backends))
        return [
            listing.as_the_fleet_calls(body, {model.engine_name: name for name, model in backend.models.items()})
            for backend, body in zip(backends, told, strict=True)
            if body is not None
        ]

    async def _ask(
        self, backend: Backend, path: str, call: Call, body: bytes | None = None, within_s: float = _WITHIN_S
    ) -> dict[str, Any] | None:
        """None when it does not answer, or refuses."""
        return await ask_quietly(self._means, backend, path, call.request_id, body, within_s)


async def load_or_unload(means: Means, principal: Principal, loading: Loading, model: str, request_id: str) -> None:
    """An unload goes to every Ollama engine that has the model. A load needs nothing: it comes with the first request, to
    wherever the scheduler decides. Raises NotAllowed."""
    if not loading.is_unload:
        return
    if not principal.sees_backends:
        raise NotAllowed("This API key may not unload models; that takes an operator's.")
    await asyncio.gather(
        *(
            ask_quietly(
                means,
                backend,
                loading.path,
                request_id,
                loading.native_body(backend.its_name_of(model)),
                _UNLOADED_WITHIN_S,
            )
            for backend in means.fleet.serving(model, principal.pool)
            if backend.kind is EngineKind.OLLAMA
        )
    )


async def ask_quietly(
    means: Means, backend: Backend, path: str, request_id: str, body: bytes | None, within_s: float
) -> dict[str, Any] | None:
    try:
        return await means.upstream.ask(backend, path, body, request_id=request_id, within_s=within_s)
    except (TroubledEngine, ForebayError) as error:
        log.info(
            "engine not asked",
            extra={"action": "ask_failed", "backend": backend.id, "path": path, "error": str(error)},
        )
        return None
