"""What Ollama's clients are told of models and versions: what the Ollama engines say, and the fleet's other models besides.

Pure. An engine that answers nonsense is as if it had said nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.parts import as_timestamp
from forebay_gateway.fleet import OfferedModel

# Without an Ollama engine. The command line only compares it with its own, but other clients refuse an old Ollama or look
# here for what it can; by this one it had all that is translated here and that a client could not do without.
_VERSION_WITHOUT_OLLAMA = "0.12.0"

_NUMBERS = re.compile(r"\d{1,9}(?:\.\d{1,9}){1,3}", re.ASCII)

_CAPABILITIES = {
    # Ollama's own words first, then those of llama.cpp's server, then what other engines say.
    "completion": "completion",
    "tools": "tools",
    "insert": "insert",
    "vision": "vision",
    "embedding": "embedding",
    "thinking": "thinking",
    "audio": "audio",
    "image": "image",
    "multimodal": "vision",
    "chat": "completion",
    "text": "completion",
    "embeddings": "embedding",
    "reasoning": "thinking",
    "function_calling": "tools",
    "tool_calling": "tools",
    "infill": "insert",
}


def tags(
    models: Sequence[OfferedModel],
    told: Iterable[Any],
    capabilities: Mapping[str, Iterable[str]],
    known_since: float,
) -> Json:
    """`models`: those that the key may use. `told`: the engines' answers to `GET /api/tags`. `capabilities`: by model, in
    the engines' words. `known_since`: seconds since the epoch, for models of which no engine tells when they changed.
    The same model on several engines is told of once, as the one with the newest says."""
    since = as_timestamp(known_since)
    newest: dict[str, Json] = {}
    for entry in _entries(told, models):
        if _moment(entry.get("modified_at")) == _NEVER:
            entry["modified_at"] = since
        known = newest.get(entry["name"])
        if known is None or _moment(entry["modified_at"]) > _moment(known["modified_at"]):
            newest[entry["name"]] = entry
    for model in models:
        if model.name not in newest:
            newest[model.name] = _entry(model.name, capabilities.get(model.name, ()), since)
    return {"models": _latest_first(newest.values(), "modified_at")}


def as_the_fleet_calls(told: Json, names: Mapping[str, str]) -> Json:
    """One engine's answer to `GET /api/tags` or `/api/ps`. `names`: at the engine → in the fleet, where they differ."""
    entries = told.get("models")
    if not isinstance(entries, list) or not any(names):
        return told
    renamed = [
        {**entry, "name": name, "model": name}
        if isinstance(entry, dict) and (name := names.get(str(entry.get("name")))) is not None
        else entry
        for entry in entries
    ]
    return {**told, "models": renamed}


def running(models: Sequence[OfferedModel], told: Iterable[Any]) -> Json:
    """`told`: the engines' answers to `GET /api/ps`. A model that several have loaded is told of once: for as long as the
    last of them keeps it, in the most memory."""
    loaded: dict[str, Json] = {}
    for entry in _entries(told, models):
        known = loaded.get(entry["name"])
        if known is None:
            loaded[entry["name"]] = entry
            continue
        vram = max((known.get("size_vram"), entry.get("size_vram")), key=_bytes)
        later = max(known, entry, key=lambda each: _moment(each.get("expires_at")))
        loaded[entry["name"]] = {**later, "size_vram": vram} if _bytes(vram) else later
    return {"models": _latest_first(loaded.values(), "expires_at")}


def shown(model: OfferedModel, capabilities: Iterable[str]) -> Json:
    """What `POST /api/show` tells of a model that no Ollama engine has. `capabilities`: in the engines' words."""
    facts: Json = {"general.architecture": "unknown"}
    if model.context_length is not None:
        facts["unknown.context_length"] = model.context_length
    return {
        "license": "",
        "modelfile": f"# {model.name} does not run on Ollama, so that it has no Modelfile.",
        "parameters": "",
        "template": "",
        "details": _details(),
        "model_info": facts,
        "capabilities": as_capabilities(capabilities),
    }


def least_version(told: Iterable[Any]) -> str:
    """`told`: the healthy engines' answers to `GET /api/version`, or the versions in them. The lowest, since any of them may
    answer a client that relies on it."""
    words = [each.get("version") if isinstance(each, dict) else each for each in told]
    versions = [word for word in words if isinstance(word, str) and _NUMBERS.match(word)]
    return min(versions, key=_rank, default=_VERSION_WITHOUT_OLLAMA)


def as_capabilities(words: Iterable[str]) -> list[str]:
    """In Ollama's words. What is not known to embed is taken to chat: clients offer nothing without a word."""
    known = {_CAPABILITIES[word.lower()] for word in words if word.lower() in _CAPABILITIES}
    if "embedding" not in known:
        known.add("completion")
    return [word for word in dict.fromkeys(_CAPABILITIES.values()) if word in known]


def _entries(told: Iterable[Any], models: Sequence[OfferedModel]) -> Iterator[Json]:
    """Of models that may be told of, by each of their names."""
    names: dict[str, list[str]] = {}
    for model in models:
        names.setdefault(model.alias_of or model.name, []).append(model.name)
    for page in told:
        listed = page.get("models") if isinstance(page, dict) else None
        for entry in listed if isinstance(listed, list) else ():
            name = (entry.get("name") or entry.get("model")) if isinstance(entry, dict) else None
            for known_as in names.get(name, ()) if isinstance(name, str) else ():
                yield {**entry, "name": known_as, "model": known_as}


def _entry(name: str, capabilities: Iterable[str], since: str) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": since,
        "size": 0,
        "digest": sha256(name.encode()).hexdigest(),  # clients tell models apart by it
        "details": _details(),
        "capabilities": as_capabilities(capabilities),
    }


def _details() -> Json:
    return {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": [],
        "parameter_size": "",
        "quantization_level": "",
    }


def _latest_first(entries: Iterable[Json], field: str) -> list[Json]:
    by_name = sorted(entries, key=lambda entry: str(entry["name"]))
    return sorted(by_name, key=lambda entry: _moment(entry.get(field)), reverse=True)


_NEVER = datetime.min.replace(tzinfo=UTC)


def _moment(told: Any) -> datetime:
    """RFC 3339, with any offset and nanoseconds."""
    try:
        moment = datetime.fromisoformat(told)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return _NEVER


def _bytes(told: Any) -> int:
    return told if isinstance(told, int) and not isinstance(told, bool) else 0


def _rank(version: str) -> tuple[list[int], bool]:
    """A candidate (0.12.0-rc1) comes before its release."""
    numbers = _NUMBERS.match(version)
    assert numbers is not None
    return [int(number) for number in numbers[0].split(".")], "-" not in version
