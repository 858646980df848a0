"""What vLLM and SGLang answer about how they were started, read into facts. Pure, and as wary as `answers`.

These pages are long and hold keys among other settings: what is not named here is not looked at, and none of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forebay_registry.engines.answers import MAX_TOKENS, object_in, whole, word_in

_MOST_SLOTS = 1_000_000
_MOST_REPLICAS = 1_000


@dataclass(frozen=True, slots=True)
class Started:
    slots: int | None = None
    """Generations at once, of all replicas together."""
    kv_tokens: int | None = None
    """That fit in the cache, of all replicas together."""
    version: str = ""


def read_sglang_info(body: bytes) -> Started:
    """`GET /server_info`, or `/get_server_info` of those before 0.5."""
    page = object_in(body)
    replicas = whole(page.get("dp_size"), _MOST_REPLICAS) or 1
    states = [state for state in _list(page.get("internal_states")) if isinstance(state, dict)]
    told = [whole(state.get("effective_max_running_requests_per_dp"), _MOST_SLOTS) or 0 for state in states]
    of_one = whole(page.get("max_running_requests"), _MOST_SLOTS) or 0
    room = whole(page.get("max_total_num_tokens"), MAX_TOKENS) or 0
    return Started(
        slots=sum(told) or of_one or None,
        kv_tokens=room * replicas or None,
        version=word_in(page.get("version")),
    )


def read_vllm_info(body: bytes) -> Started:
    """`GET /server_info?config_format=json`, which vLLM has in its development mode alone."""
    config = _object(object_in(body).get("vllm_config"))
    slots = whole(_object(config.get("scheduler_config")).get("max_num_seqs"), _MOST_SLOTS) or 0
    replicas = whole(_object(config.get("parallel_config")).get("data_parallel_size"), _MOST_REPLICAS) or 1
    return Started(slots=slots * replicas or None)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value[:_MOST_REPLICAS] if isinstance(value, list) else []
