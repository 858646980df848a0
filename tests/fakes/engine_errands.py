"""Requests that the fake engine serves in one go, without making tokens: which pages there are, and the one slot that each
holds for `ttft_s` (a sound: until it is sent). What they answer is told by `engine_measuring`, `engine_media` and
`engine_tokenizing`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes.engine_flavours import Flavour, Traits
from tests.fakes.engine_jobs import Jobs
from tests.fakes.engine_measuring import (
    embed,
    embed_for_older_ollama,
    embed_for_ollama,
    moderate,
    rank_for_sglang,
    rerank,
    score,
)
from tests.fakes.engine_media import draw, redraw, speak, transcribe, translate
from tests.fakes.engine_orders import Pace
from tests.fakes.engine_pages import Pages, UnknownModel
from tests.fakes.engine_record import Ending, Seen
from tests.fakes.engine_refusals import json_object
from tests.fakes.engine_sending import SEEN, send_in_pieces, send_json, send_whole
from tests.fakes.engine_tokenizing import apply_template, tokenize_for_llama_cpp, tokenize_for_vllm

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Errand:
    run: Callable[[Mapping[str, Any]], Json | list[Json] | str | bytes]
    """From a body to JSON, a text, or a sound. Raises BadOrder."""
    needs_model: bool = True
    """Otherwise a body may name one, and then it must be there."""


def errands_of(flavour: Flavour, traits: Traits, context_tokens: int) -> dict[str, Errand]:
    """By path."""
    errands = {"/v1/embeddings": Errand(lambda body: embed(body, traits))}
    if flavour in (Flavour.ANY, Flavour.OLLAMA):
        errands["/api/embed"] = Errand(embed_for_ollama)
        errands["/api/embeddings"] = Errand(embed_for_older_ollama)
    if flavour is Flavour.OLLAMA:
        return errands
    if flavour is Flavour.SGLANG:
        return {
            **errands,
            "/v1/rerank": Errand(rank_for_sglang, needs_model=False),
            "/tokenize": Errand(lambda body: tokenize_for_vllm(body, max_model_len=context_tokens), needs_model=False),
        }
    errands |= dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), Errand(rerank))
    errands |= dict.fromkeys(("/score", "/v1/score"), Errand(score))
    errands |= {
        "/v1/moderations": Errand(moderate, needs_model=False),
        "/v1/images/generations": Errand(draw),
        "/v1/images/edits": Errand(redraw),
        "/v1/audio/speech": Errand(speak),
        "/v1/audio/transcriptions": Errand(transcribe),
        "/v1/audio/translations": Errand(translate),
    }

    def tokenize(body: Mapping[str, Any]) -> Json:
        if flavour is Flavour.LLAMA_CPP or (flavour is Flavour.ANY and "content" in body):
            return tokenize_for_llama_cpp(body)
        return tokenize_for_vllm(body, max_model_len=context_tokens)

    errands["/tokenize"] = Errand(tokenize, needs_model=False)
    if flavour is not Flavour.VLLM:
        errands["/apply-template"] = Errand(apply_template, needs_model=False)
    return errands


class Errands:
    def __init__(self, *, pages: Pages, traits: Traits, jobs: Jobs, pace: Pace) -> None:
        self.pace = pace
        self._pages = pages
        self._slots = pages.slots
        self._record = pages.record
        self._traits = traits
        self._jobs = jobs
        self._errands = errands_of(pages.flavour, traits, pages.context_tokens)

    def routes(self) -> list[web.RouteDef]:
        return [web.post(path, self._serve) for path in self._errands]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        seen, errand = request[SEEN], self._errands[request.path]
        body = json_object(seen)
        seen.model, seen.width = str(body.get("model") or ""), 1
        is_known = self._traits.answers_any_model or self._pages.knows(seen.model)
        if not is_known and (seen.model or errand.needs_model):
            raise UnknownModel(seen.model)
        pace = self.pace.wished(seen.model, seen.headers, body)
        if request.path.startswith("/api/"):
            self._pages.use(seen.model, body.get("keep_alive"))
        made = errand.run(body)
        if isinstance(made, bytes):
            return await self._send_sound(request, made, pace)
        await self._jobs.while_connected(self._work(seen, pace))
        if isinstance(made, str):
            return await send_whole(request, made.encode(errors="replace"), "text/plain; charset=utf-8")
        self._record.totals["prompt_tokens"] += _prompt_tokens(made)
        return await send_json(request, made)

    async def _work(self, seen: Seen, pace: Pace) -> None:
        async with self._slots.hold(1):
            seen.started_at = time.monotonic()
            await asyncio.sleep(pace.ttft_s)
        seen.freed_at = time.monotonic()
        seen.ending = Ending.FINISHED

    async def _send_sound(self, request: web.Request, raw: bytes, pace: Pace) -> web.StreamResponse:
        """A piece at the pace of a token."""
        seen = request[SEEN]
        async with self._slots.hold(1):
            try:
                seen.started_at = time.monotonic()
                await asyncio.sleep(pace.ttft_s)
                response = await send_in_pieces(request, raw, "audio/wav", every_s=1 / pace.tokens_per_s)
            finally:
                seen.freed_at = time.monotonic()
        seen.ending = Ending.FINISHED
        return response


def _prompt_tokens(told: Json | list[Json]) -> int:
    if isinstance(told, list):
        return 0
    counted: int = told.get("usage", {}).get("prompt_tokens") or told.get("prompt_eval_count") or 0
    return counted
