"""What engines answer, read into facts. Pure: bytes in, facts out, BadAnswer for anything that cannot be meant.

Engines differ, change with every release and are sometimes something else entirely (a login page, a proxy's error), so
nothing is taken on trust: wrong types are left out, not guessed. Asking is `probe`'s part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import orjson

from forebay_registry.backend import EngineKind, Load, Model

MAX_MODELS = 5_000
MAX_NAME = 512
MAX_TOKENS = 2**31 - 1
MAX_BYTES = 2**50
_MAX_SLOTS = 100_000
_MAX_WORD = 100

_OWNERS = {
    "llamacpp": EngineKind.LLAMACPP,
    "llama.cpp": EngineKind.LLAMACPP,
    "vllm": EngineKind.VLLM,
    "sglang": EngineKind.SGLANG,
}
_GEMINI_METHODS = {"generateContent": "chat", "embedContent": "embedding"}
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


class BadAnswer(Exception):
    """The answer is not what this page of an engine says."""


@dataclass(frozen=True, slots=True)
class ModelList:
    models: tuple[Model, ...]
    kind: EngineKind | None
    """What the list itself tells about the engine that wrote it."""


@dataclass(frozen=True, slots=True)
class ModelPage:
    models: tuple[Model, ...]
    next_page: str | None
    """What its address has beside that of the first one. None: this is the last."""


@dataclass(frozen=True, slots=True)
class Props:
    """llama.cpp's /props."""

    total_slots: int | None
    has_slots_page: bool
    has_metrics_page: bool
    capabilities: tuple[str, ...]
    version: str
    models_at_once: int | None
    """Of its router, which starts a server for each model."""
    is_router: bool


def read_models(body: bytes) -> ModelList:
    """`GET /v1/models` of any OpenAI-compatible server. llama.cpp says the context of one slot in `meta.n_ctx`."""
    page = object_in(body)
    listed = page.get("data")
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `data`")
    spoken = {name: words_in(m.get("capabilities")) for m, name in named(page.get("models"), "name")}
    models, kinds = [], set()
    for entry, name in named(listed, "id"):
        can = spoken.get(name) or words_in(entry.get("capabilities"))
        # llama.cpp answers to each of a model's aliases, so each is a name that a client may use.
        model = _listed(entry, name, can)
        models += [replace(model, name=each) for each in (name, *words_in(entry.get("aliases")))]
        kinds.add(_OWNERS.get(str(entry.get("owned_by")).lower()))
    return ModelList(_with_parents(distinct(models)), kinds.pop() if len(kinds) == 1 else None)


def read_routed(body: bytes) -> tuple[str, ...]:
    """The models on the same page of llama.cpp's router of which a server runs, each by one name."""
    return tuple(name for entry, name in named(object_in(body).get("data"), "id") if _state_of(entry) == "loaded")


def read_anthropic_models(body: bytes) -> ModelPage:
    """`GET /v1/models` of Anthropic. Every Claude chats and calls tools; what else one can it tells."""
    page = object_in(body)
    listed = page.get("data")
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `data`")
    models = tuple(
        Model(name, whole(entry.get("max_input_tokens"), MAX_TOKENS) or None, _claude_can(entry.get("capabilities")))
        for entry, name in named(listed, "id")
        if entry.get("lifecycle") != "retired"
    )
    last = page.get("last_id")
    if page.get("has_more") is True and isinstance(last, str) and last:
        return ModelPage(models, f"after_id={quote(last, safe='')}")
    return ModelPage(models, None)


def read_gemini_models(body: bytes) -> ModelPage:
    """`GET /v1beta/models` of Gemini: those that answer or embed, by the names without `models/`."""
    page = object_in(body)
    listed = page.get("models", [])
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `models`")
    models = []
    for entry, name in named(listed, "name"):
        methods = words_in(entry.get("supportedGenerationMethods"))
        can = [word for method, word in _GEMINI_METHODS.items() if method in methods]
        if can:
            thinks = ["thinking"] if entry.get("thinking") is True else []
            context = whole(entry.get("inputTokenLimit"), MAX_TOKENS) or None
            models.append(Model(name.removeprefix("models/"), context, tuple(sorted([*can, *thinks]))))
    token = page.get("nextPageToken")
    return ModelPage(tuple(models), f"pageToken={quote(token, safe='')}" if isinstance(token, str) and token else None)


def is_ollama_version(body: bytes) -> bool:
    """Whether this is what Ollama answers to `GET /api/version`."""
    try:
        return isinstance(object_in(body).get("version"), str)
    except BadAnswer:
        return False


def read_props(body: bytes) -> Props:
    page = object_in(body)
    modalities = page.get("modalities")
    spoken = [name for name, has in modalities.items() if has is True] if isinstance(modalities, dict) else []
    if isinstance(page.get("chat_template"), str) and page["chat_template"]:
        spoken.append("chat")
    return Props(
        total_slots=whole(page.get("total_slots"), _MAX_SLOTS) or None,
        # Older servers do not say; then trying tells.
        has_slots_page=page.get("endpoint_slots") is not False,
        has_metrics_page=page.get("endpoint_metrics") is not False,
        capabilities=words_in(spoken),
        version=word_in(page.get("build_info")),
        models_at_once=whole(page.get("max_instances"), _MAX_SLOTS) or None,
        is_router=page.get("role") == "router",
    )


def read_slots(body: bytes, now: float) -> Load:
    """llama.cpp's `GET /slots`: how many of its slots work; it does not tell how many requests wait."""
    slots = _json(body)
    if not isinstance(slots, list) or not all(isinstance(s, dict) for s in slots):
        raise BadAnswer("its list of slots is no list")
    return Load(sum(slot.get("is_processing") is True for slot in slots), None, None, now)


def read_error(body: bytes) -> str:
    """The message in an error's body, at most a line; empty when there is none."""
    try:
        page = object_in(body)
    except BadAnswer:
        return ""
    error = page.get("error", page.get("detail", page.get("message")))
    if isinstance(error, dict):
        error = error.get("message")
    return " ".join(error.split())[:200] if isinstance(error, str) else ""


def distinct(models: Iterable[Model]) -> tuple[Model, ...]:
    """By name, each once: some servers list a model once per replica."""
    return tuple({m.name: m for m in sorted(models, key=lambda m: m.name)}.values())


# --- small readers ----------------------------------------------------------------------------------------------------


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadAnswer("its answer is not JSON") from error


def object_in(body: bytes) -> dict[str, Any]:
    page = _json(body)
    if not isinstance(page, dict):
        raise BadAnswer("its answer is not a JSON object")
    return page


def named(listed: Any, field: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The objects of a list that have a usable name, with it."""
    for entry in listed[:MAX_MODELS] if isinstance(listed, list) else ():
        name = entry.get(field) if isinstance(entry, dict) else None
        if isinstance(name, str) and name and len(name) <= MAX_NAME and name.isprintable():
            yield entry, name


def _listed(entry: Mapping[str, Any], name: str, can: tuple[str, ...]) -> Model:
    given, state = entry.get("meta"), _state_of(entry)
    meta = given if isinstance(given, dict) else {}
    return Model(
        name,
        _context_of(entry),
        can,
        loaded=None if state is None else state == "loaded",
        size_bytes=whole(meta.get("size"), MAX_BYTES) or None,
        parent=word_in(entry.get("parent"), MAX_NAME),
        quantization=word_in(meta.get("ftype")),
        trained_context_length=whole(meta.get("n_ctx_train"), MAX_TOKENS) or None,
    )


def _state_of(entry: Mapping[str, Any]) -> str | None:
    """llama.cpp's router tells of each model whether a server of it runs."""
    status = entry.get("status")
    state = status.get("value") if isinstance(status, dict) else None
    return state if isinstance(state, str) else None


def _with_parents(models: tuple[Model, ...]) -> tuple[Model, ...]:
    """An adapter's context is that of the model it adapts. A parent that is not there is none."""
    by_name = {model.name: model for model in models}
    joined = []
    for model in models:
        parent = by_name.get(model.parent) if model.parent != model.name else None
        if parent is not None:
            joined.append(replace(model, context_length=model.context_length or parent.context_length))
        else:
            joined.append(replace(model, parent=""))
    return tuple(joined)


def _claude_can(told: Any) -> tuple[str, ...]:
    can = {"chat", "tools"}
    for theirs, ours in (("image_input", "vision"), ("thinking", "thinking")):
        capability = told.get(theirs) if isinstance(told, dict) else None
        if isinstance(capability, dict) and capability.get("supported") is True:
            can.add(ours)
    return tuple(sorted(can))


def _context_of(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    if isinstance(meta, dict) and (n_ctx := whole(meta.get("n_ctx"), MAX_TOKENS)):
        return n_ctx
    return next((n for field in _CONTEXT_FIELDS if (n := whole(entry.get(field), MAX_TOKENS))), None)


def words_in(given: Any) -> tuple[str, ...]:
    """Capabilities as a list, or as a table of word → true."""
    if isinstance(given, dict):
        given = [word for word, has in given.items() if has is True]
    if not isinstance(given, list):
        return ()
    return tuple(sorted({w for w in given[:64] if isinstance(w, str) and w.isprintable() and 0 < len(w) <= 64}))


def whole(value: Any, most: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None


def word_in(value: Any, most: int = _MAX_WORD) -> str:
    """A short printable text; empty for anything else."""
    return value if isinstance(value, str) and len(value) <= most and value.isprintable() else ""
