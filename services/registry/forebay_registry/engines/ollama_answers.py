"""What Ollama answers of its models, read into facts. Pure, and as wary as `answers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from forebay_registry.backend import Model
from forebay_registry.engines.answers import (
    MAX_BYTES,
    MAX_TOKENS,
    BadAnswer,
    distinct,
    named,
    object_in,
    whole,
    word_in,
    words_in,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What `POST /api/show` tells of a model, beyond what the list does."""

    capabilities: tuple[str, ...] = ()
    trained_context_length: int | None = None
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""


def read_tags(body: bytes) -> tuple[Model, ...]:
    """`GET /api/tags`: what is on disk. How long a context is depends on how a model is loaded, so only /api/ps tells."""
    listed = object_in(body).get("models")
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `models`")
    return distinct(_on_disk(entry, name) for entry, name in named(listed, "name"))


def with_resident(models: Iterable[Model], ps: bytes) -> tuple[Model, ...]:
    """The same models, those that `GET /api/ps` lists being resident, with the context they were loaded with, the memory
    they take, and until when they stay."""
    resident = {name: entry for entry, name in named(object_in(ps).get("models"), "name")}
    return tuple(_in_memory(model, resident[model.name]) if model.name in resident else model for model in models)


def read_show(body: bytes) -> Shown:
    """`POST /api/show`."""
    page = object_in(body)
    info = _object(page.get("model_info"))
    architecture = info.get("general.architecture")
    trained = info.get(f"{architecture}.context_length") if isinstance(architecture, str) else None
    return Shown(words_in(page.get("capabilities")), whole(trained, MAX_TOKENS) or None, *_details(page))


def with_shown(model: Model, shown: Shown | None) -> Model:
    """The list goes before: it is newer."""
    if shown is None:
        return model
    return replace(
        model,
        capabilities=model.capabilities or shown.capabilities,
        trained_context_length=model.trained_context_length or shown.trained_context_length,
        family=model.family or shown.family,
        parameter_size=model.parameter_size or shown.parameter_size,
        quantization=model.quantization or shown.quantization,
    )


def read_version(body: bytes) -> str:
    """`GET /api/version`, of Ollama and of vLLM's `/version` alike; empty when it does not say."""
    try:
        return word_in(object_in(body).get("version"))
    except BadAnswer:
        return ""


def _on_disk(entry: Mapping[str, Any], name: str) -> Model:
    family, parameter_size, quantization = _details(entry)
    return Model(
        name,
        capabilities=words_in(entry.get("capabilities")),
        loaded=False,
        disk_bytes=whole(entry.get("size"), MAX_BYTES) or None,
        family=family,
        parameter_size=parameter_size,
        quantization=quantization,
        digest=word_in(entry.get("digest")),
    )


def _in_memory(model: Model, entry: Mapping[str, Any]) -> Model:
    return replace(
        model,
        loaded=True,
        context_length=whole(entry.get("context_length"), MAX_TOKENS) or None,
        size_bytes=whole(entry.get("size"), MAX_BYTES) or None,
        vram_bytes=whole(entry.get("size_vram"), MAX_BYTES),
        expires_at=_moment(entry.get("expires_at")),
    )


def _details(page: Mapping[str, Any]) -> tuple[str, str, str]:
    """Family, size in parameters, quantization."""
    details = _object(page.get("details"))
    return (
        word_in(details.get("family")),
        word_in(details.get("parameter_size")),
        word_in(details.get("quantization_level")),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _moment(value: Any) -> float | None:
    """Seconds since the epoch; None for what is no moment, and for Go's zero time."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if at is None or at.tzinfo is None or at.year < 1970:
        return None
    return at.timestamp()
