"""The pages that a gateway's prober reads: models, health, versions, gauges. They say what the fake engine is and how busy
it is; they change nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Library
from tests.fakes.engine_orders import BadOrder
from tests.fakes.engine_record import Record
from tests.fakes.engine_slots import Slots

VERSION = "0.33.0"
BLOCK_TOKENS = 16


class UnknownModel(Exception):
    """404, in the caller's dialect."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


@dataclass(frozen=True, slots=True)
class Pages:
    flavour: Flavour
    models: tuple[str, ...]
    context_tokens: int
    slots: Slots
    record: Record
    library: Library | None = None
    """What it lists and generates with instead of `models`, which may change."""

    @property
    def listed(self) -> tuple[str, ...]:
        return self.models if self.library is None else tuple(sorted(self.library.models))

    def generates(self, model: str) -> bool:
        return self.library is None or "completion" in self.library.can(model)

    def use(self, model: str, keep_alive: object) -> str:
        """Ollama's word for what became of the model in memory."""
        return "load" if self.library is None else self.library.use(model, keep_alive)

    def routes(self) -> list[web.RouteDef]:
        speaks = {self.flavour} if self.flavour is not Flavour.ANY else set(Flavour)
        routes = [web.get("/v1/models", self._openai_models)]
        if speaks & {Flavour.VLLM, Flavour.LLAMA_CPP, Flavour.SGLANG}:
            routes += [web.get("/health", self._health), web.get("/metrics", self._metrics)]
        if Flavour.VLLM in speaks:
            routes.append(web.get("/version", self._vllm_version))
        if Flavour.SGLANG in speaks:
            routes.append(web.get("/server_info", self._sglang_info))
        if Flavour.LLAMA_CPP in speaks:
            routes += [web.get("/slots", self._llama_slots), web.get("/props", self._llama_props)]
        if Flavour.OLLAMA in speaks:
            routes += [
                web.get("/", self._ollama_root),
                web.get("/api/version", self._ollama_version),
                web.get("/api/tags", self._ollama_tags),
                web.get("/api/ps", self._ollama_ps),
                web.post("/api/show", self._ollama_show),
            ]
        return routes

    def knows(self, model: str) -> bool:
        """By the name before a pace suffix (`@…`), and with or without Ollama's `:latest`."""
        if self.library is not None:
            return self.library.has(model)
        name = model.partition("@")[0].removesuffix(":latest")
        return model in self.models or name in {known.partition("@")[0] for known in self.models}

    async def _openai_models(self, request: web.Request) -> web.Response:
        data: list[dict[str, Any]] = []
        for model in self.listed:
            entry: dict[str, Any] = {"id": model, "object": "model", "created": int(time.time())}
            entry["owned_by"] = "sglang" if self.flavour is Flavour.SGLANG else "fake"
            if self.flavour in (Flavour.ANY, Flavour.VLLM, Flavour.SGLANG):
                entry["max_model_len"] = self.context_tokens
            if self.flavour in (Flavour.ANY, Flavour.LLAMA_CPP):
                entry["meta"] = {
                    "n_ctx": self.context_tokens,
                    "n_ctx_train": self.context_tokens,
                    "n_params": 1_000_000,
                }
            data.append(entry)
        return _json({"object": "list", "data": data})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response() if self.flavour in (Flavour.VLLM, Flavour.SGLANG) else _json({"status": "ok"})

    async def _vllm_version(self, request: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def _sglang_info(self, request: web.Request) -> web.Response:
        return _json(
            {
                "dp_size": 1,
                "max_running_requests": None,
                "max_total_num_tokens": self.slots.total * self.context_tokens,
                "internal_states": [{"effective_max_running_requests_per_dp": self.slots.total}],
                "version": VERSION,
            }
        )

    async def _llama_slots(self, request: web.Request) -> web.Response:
        return _json(
            [
                {"id": i, "n_ctx": self.context_tokens, "is_processing": i < self.slots.running}
                for i in range(self.slots.total)
            ]
        )

    async def _llama_props(self, request: web.Request) -> web.Response:
        return _json(
            {
                "default_generation_settings": {"n_ctx": self.context_tokens},
                "total_slots": self.slots.total,
                "model_alias": self.models[0],
                "model_path": f"/models/{self.models[0]}.gguf",
                "build_info": VERSION,
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        lines: list[str] = []
        if self.flavour in (Flavour.ANY, Flavour.VLLM):
            lines += self._vllm_metrics()
        if self.flavour in (Flavour.ANY, Flavour.LLAMA_CPP):
            lines += self._llama_metrics()
        if self.flavour is Flavour.SGLANG:
            lines += self._sglang_metrics()
        return web.Response(text="\n".join(lines) + "\n", headers={"content-type": "text/plain; version=0.0.4"})

    def _vllm_metrics(self) -> Iterator[str]:
        totals = self.record.totals
        label = f'engine="0",model_name="{self.models[0]}"'
        blocks = self.slots.total * self.context_tokens // BLOCK_TOKENS
        for name, kind, value in (
            ("num_requests_running", "gauge", self.slots.running),
            ("num_requests_waiting", "gauge", self.slots.waiting),
            ("kv_cache_usage_perc", "gauge", self.slots.running / self.slots.total),
            ("prefix_cache_queries_total", "counter", totals["prompt_tokens"]),
            ("prefix_cache_hits_total", "counter", 0),
            ("prompt_tokens_total", "counter", totals["prompt_tokens"]),
            ("generation_tokens_total", "counter", totals["completion_tokens"]),
        ):
            yield f"# TYPE vllm:{name} {kind}"
            yield f"vllm:{name}{{{label}}} {float(value)}"
        yield "# TYPE vllm:request_success_total counter"
        for reason in ("stop", "length"):
            yield f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {float(totals[reason])}'
        yield "# TYPE vllm:cache_config_info gauge"
        yield f'vllm:cache_config_info{{block_size="{BLOCK_TOKENS}",num_gpu_blocks="{blocks}"}} 1.0'

    def _sglang_metrics(self) -> Iterator[str]:
        totals = self.record.totals
        label = f'engine_type="unified",model_name="{self.models[0]}",pp_rank="0",tp_rank="0"'
        for name, kind, value in (
            ("num_running_reqs", "gauge", self.slots.running),
            ("num_queue_reqs", "gauge", self.slots.waiting),
            ("num_grammar_queue_reqs", "gauge", 0),
            ("num_used_tokens", "gauge", self.slots.running * self.context_tokens),
            ("token_usage", "gauge", self.slots.running / self.slots.total),
            ("max_total_num_tokens", "gauge", self.slots.total * self.context_tokens),
            ("prompt_tokens_total", "counter", totals["prompt_tokens"]),
            ("generation_tokens_total", "counter", totals["completion_tokens"]),
        ):
            yield f"# TYPE sglang:{name} {kind}"
            yield f"sglang:{name}{{{label}}} {float(value)}"

    def _llama_metrics(self) -> Iterator[str]:
        totals = self.record.totals
        for name, kind, value in (
            ("requests_processing", "gauge", self.slots.running),
            ("requests_deferred", "gauge", self.slots.waiting),
            ("prompt_tokens_total", "counter", totals["prompt_tokens"]),
            ("tokens_predicted_total", "counter", totals["completion_tokens"]),
        ):
            yield f"# TYPE llamacpp:{name} {kind}"
            yield f"llamacpp:{name} {value}"

    async def _ollama_root(self, request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _ollama_version(self, request: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def _ollama_tags(self, request: web.Request) -> web.Response:
        return _json({"models": [_tag(model) | {"modified_at": "2026-01-02T03:04:05.6Z"} for model in self.listed]})

    async def _ollama_ps(self, request: web.Request) -> web.Response:
        loaded = {
            "expires_at": "2318-01-02T03:04:05.6Z",
            "size_vram": 300_000_000,
            "context_length": self.context_tokens,
        }
        resident = self.models if self.library is None else sorted(self.library.resident)
        return _json({"models": [_tag(model) | loaded for model in resident]})

    async def _ollama_show(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError as error:
            raise BadOrder(str(error)) from error
        model = str(body.get("model") or body.get("name") or "")
        if not self.knows(model):
            raise UnknownModel(model)
        return _json(
            {
                "license": "",
                "modelfile": f"FROM {model}\n",
                "parameters": "",
                "template": "{{ .Prompt }}",
                "details": _tag(model)["details"],
                "model_info": {"general.architecture": "fake", "fake.context_length": self.context_tokens},
                "capabilities": ["completion", "embedding"] if self.library is None else self.library.can(model),
                "modified_at": "2026-01-02T03:04:05.6Z",
            }
        )


def _tag(model: str) -> dict[str, Any]:
    name = model if ":" in model else f"{model}:latest"
    return {
        "name": name,
        "model": name,
        "size": 300_000_000,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "fake",
            "families": ["fake"],
            "parameter_size": "1M",
            "quantization_level": "Q4_K_M",
        },
    }


def _json(body: Any) -> web.Response:
    return web.json_response(body)
