"""OllamaFlow's two kinds of things in its words. A frontend is a pool here, with the host that it answers at and the models
that its backends should have; what else stands in one is as it always is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, fleet_pb2, registry_pb2, types_pb2
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.shapes import backend_status
from forebay_admin.seeds.refusals import NoCounterpart

_PLACEMENTS = {
    "RoundRobin": "round_robin",
    "Random": "random",
    "ExpectedTtft": "expected_ttft",
    "LeastLoaded": "least_loaded",
    "Weighted": "weighted",
}
"""The last three are ours alone, told and taken in the same way."""
ANY_HOST = "*"
DEFAULT_POOL = "default"

_NOT_HERE: Mapping[str, str] = {
    "PinnedEmbeddingsProperties": "set rules for a pool or model: PATCH /api/v1/model-rules.",
    "PinnedCompletionsProperties": "set rules for a pool or model: PATCH /api/v1/model-rules.",
    "Querystring": "the address of an engine ends with its path.",
    "Headers": "engines get one key, as BearerToken.",
}
"""What is refused unless it is empty, and why."""
_ALWAYS_ON = ("AllowEmbeddings", "AllowCompletions", "AllowRetries")
_LABEL, _MOST_LABELS = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII), 64
"""As the registry takes them: it is asked for them when the backend is there already."""
_HOST = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)
_KINDS = {
    "Ollama": types_pb2.ENGINE_KIND_OLLAMA,
    "OpenAI": types_pb2.ENGINE_KIND_OPENAI,
    "vLLM": types_pb2.ENGINE_KIND_VLLM,
}


def demand_kept(body: Fields) -> None:
    """Raises NoCounterpart for what would be lost."""
    for name, instead in _NOT_HERE.items():
        if body.raw(name):
            raise NoCounterpart(f"{name} has no counterpart here: {instead}")
    for name in _ALWAYS_ON:
        if body.flag(name) is False:
            raise NoCounterpart(f"{name} is always true here; keys say what may be asked for (calls of a key).")


def kind_of(body: Fields) -> types_pb2.EngineKind.ValueType:
    """Unspecified where none is said: it is found out then."""
    for name in ("ApiFormat", "BackendType"):
        if body.is_said(name):
            return _KINDS[body.word(name, tuple(_KINDS), "OpenAI")]
    return types_pb2.ENGINE_KIND_UNSPECIFIED


def url_of(body: Fields) -> str:
    """Raises BadInput."""
    host, port = body.text("Hostname", "localhost", longest=253), body.whole("Port", 8000, least=1, most=65_535)
    if not _HOST.fullmatch(host):
        raise BadInput(f"Hostname: {host[:80]!r} is neither a host's name nor an address.")
    return f"{'https' if body.flag('Ssl') else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def labels_of(body: Fields, held: Mapping[str, str] | None = None) -> dict[str, str]:
    """`held`: those that the backend has, which keep what is written on them. Raises BadInput."""
    names = body.texts("Labels") or []
    if wrong := next((name for name in names if not _LABEL.fullmatch(name)), None):
        raise BadInput(f"Labels: {wrong[:80]!r} cannot be one: use letters, digits, '.', '_', '/' and '-'.")
    if len(names) > _MOST_LABELS:
        raise BadInput(f"Labels: there may be at most {_MOST_LABELS}.")
    return {name: (held or {}).get(name, "true") for name in names}


def backend_shape(backend: registry_pb2.Backend) -> dict[str, Any]:
    """The engine's key is never told."""
    parts = urlsplit(backend.url)
    return {
        "Identifier": backend.name,
        "Name": backend.name,
        "Hostname": parts.hostname or "",
        "Port": parts.port or (443 if parts.scheme == "https" else 80),
        "Ssl": parts.scheme == "https",
        "MaxParallelRequests": backend.slots,
        "ApiFormat": "Ollama" if backend.kind == types_pb2.ENGINE_KIND_OLLAMA else "OpenAI",
        "Labels": sorted(backend.labels),
        "AllowEmbeddings": True,
        "AllowCompletions": True,
        "Active": backend.enabled,
    }


def health_shape(backend: registry_pb2.Backend, running: int, now: float) -> dict[str, Any]:
    is_well, since = backend_status(backend) == "healthy", backend.health_since_us
    lasts = _span(now - since / 1_000_000) if since else None
    when = datetime.fromtimestamp(since / 1_000_000, UTC).isoformat() if since else None
    told = {
        **backend_shape(backend),
        "Healthy": is_well,
        "HealthySinceUtc" if is_well else "UnhealthySinceUtc": when,
        "Uptime" if is_well else "Downtime": lasts,
        "ActiveRequests": running,
    }
    return {name: value for name, value in told.items() if value is not None}


def frontend_shape(pool: admin_pb2.Pool, backends: list[str]) -> dict[str, Any]:
    words, described = {ours: theirs for theirs, ours in _PLACEMENTS.items()}, pool.described
    return {
        "Identifier": pool.terms.pool,
        "Name": pool.terms.pool,
        "Hostname": _first_host(described),
        "LoadBalancing": words.get(pool.terms.placement, "ExpectedTtft"),
        "Backends": sorted(backends),
        "RequiredModels": list(described.required_models),
        "UseStickySessions": pool.terms.sticky,
        "AllowEmbeddings": True,
        "AllowCompletions": True,
        "AllowRetries": True,
        "Active": True,
    }


def _first_host(pool: fleet_pb2.PoolSpec) -> str:
    return pool.hosts[0] if pool.hosts else ANY_HOST


def pool_of(body: Fields, name: str, held: fleet_pb2.PoolSpec | None) -> fleet_pb2.PoolSpec:
    """What a frontend says, as a pool; what it cannot say stays as it is held."""
    pool = fleet_pb2.PoolSpec(name=name)
    if held is not None:
        pool.path_prefix, pool.pull = held.path_prefix, held.pull
        if held.HasField("locality_window"):
            pool.locality_window = held.locality_window
    host = body.text("Hostname", ANY_HOST, longest=253)
    if held is not None and host == _first_host(held):
        pool.hosts.extend(held.hosts)  # of which a frontend tells one
    elif host != ANY_HOST:
        pool.hosts.append(host)
    pool.required_models.extend(body.texts("RequiredModels") or [])
    pool.placement = _PLACEMENTS[body.word("LoadBalancing", tuple(_PLACEMENTS), "RoundRobin")]
    pool.sticky = bool(body.flag("UseStickySessions", False))
    return pool


def _span(seconds: float) -> str:
    """As .NET writes a span of time: 1.02:03:04."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}.{clock}" if days else clock
