"""An engine's Prometheus page, read into facts. Pure: bytes in, facts out; None where it has nothing of the engine's.

Names have changed from release to release, so each fact has all that it ever had, the newest first: of those that are on a
page the first counts. What the counters mean together is `rates`' part."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from forebay.prometheus_text import Sample, Scanner, labels_of
from forebay_registry.backend import EngineKind
from forebay_registry.engines.answers import MAX_NAME, BadAnswer
from forebay_registry.engines.rates import Counters

MOST_SAMPLES = 20_000
"""Of the families that are wanted. A hundred replicas have two thousand."""
_MOST_REQUESTS = 1_000_000
_MOST_TOKENS = 2**40
_MOST_LORAS = 64


class _Fact(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    SWAPPED = "swapped"
    KV_USED = "kv_used"
    KV_TOKENS = "kv_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    LOOKED_UP_TOKENS = "looked_up_tokens"
    FOUND_TOKENS = "found_tokens"
    PREEMPTIONS = "preemptions"
    TTFT_SUM = "ttft_sum"
    TTFT_COUNT = "ttft_count"
    QUEUE_SUM = "queue_sum"
    QUEUE_COUNT = "queue_count"


_OF_THE_SCHEDULER = frozenset(
    {
        _Fact.RUNNING,
        _Fact.WAITING,
        _Fact.SWAPPED,
        _Fact.KV_TOKENS,
        _Fact.PREEMPTIONS,
        _Fact.QUEUE_SUM,
        _Fact.QUEUE_COUNT,
    }
)
"""Each process of a replica (its ranks) may repeat these, so the largest of each replica counts, and replicas are summed."""
_CACHE_CONFIG = "vllm:cache_config_info"
_LORAS = "vllm:lora_requests_info"

_NAMES: Mapping[EngineKind, Mapping[_Fact, tuple[str, ...]]] = {
    # vLLM from 0.4 on. `gpu_…` are the names before 0.9; requests were swapped before 0.8.
    EngineKind.VLLM: {
        _Fact.RUNNING: ("vllm:num_requests_running",),
        _Fact.WAITING: ("vllm:num_requests_waiting",),
        _Fact.SWAPPED: ("vllm:num_requests_swapped",),
        _Fact.KV_USED: ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        _Fact.PROMPT_TOKENS: ("vllm:prompt_tokens_total",),
        _Fact.COMPLETION_TOKENS: ("vllm:generation_tokens_total",),
        _Fact.LOOKED_UP_TOKENS: ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        _Fact.FOUND_TOKENS: ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        _Fact.PREEMPTIONS: ("vllm:num_preemptions_total",),
        _Fact.TTFT_SUM: ("vllm:time_to_first_token_seconds_sum",),
        _Fact.TTFT_COUNT: ("vllm:time_to_first_token_seconds_count",),
        _Fact.QUEUE_SUM: ("vllm:request_queue_time_seconds_sum",),
        _Fact.QUEUE_COUNT: ("vllm:request_queue_time_seconds_count",),
    },
    EngineKind.SGLANG: {
        _Fact.RUNNING: ("sglang:num_running_reqs",),
        _Fact.WAITING: ("sglang:num_queue_reqs",),
        _Fact.KV_USED: ("sglang:token_usage",),
        _Fact.KV_TOKENS: ("sglang:max_total_num_tokens",),
        _Fact.PROMPT_TOKENS: ("sglang:prompt_tokens_total",),
        _Fact.COMPLETION_TOKENS: ("sglang:generation_tokens_total",),
        _Fact.FOUND_TOKENS: ("sglang:cached_tokens_total",),
        _Fact.PREEMPTIONS: ("sglang:num_retracted_requests_total",),
        _Fact.TTFT_SUM: ("sglang:time_to_first_token_seconds_sum",),
        _Fact.TTFT_COUNT: ("sglang:time_to_first_token_seconds_count",),
        _Fact.QUEUE_SUM: ("sglang:queue_time_seconds_sum",),
        _Fact.QUEUE_COUNT: ("sglang:queue_time_seconds_count",),
    },
    # The use of its cache is not told since 2025.
    EngineKind.LLAMACPP: {
        _Fact.RUNNING: ("llamacpp:requests_processing",),
        _Fact.WAITING: ("llamacpp:requests_deferred",),
        _Fact.KV_USED: ("llamacpp:kv_cache_usage_ratio",),
        _Fact.PROMPT_TOKENS: ("llamacpp:prompt_tokens_total",),
        _Fact.COMPLETION_TOKENS: ("llamacpp:tokens_predicted_total",),
        _Fact.FOUND_TOKENS: ("llamacpp:prompt_tokens_cached_total",),
    },
}
_REPLICA = {
    EngineKind.VLLM: re.compile(rb'(?:^|,)engine="([^"]*)"'),
    EngineKind.SGLANG: re.compile(rb'(?:^|,)dp_rank="([^"]*)"'),
}
_PRIORITY = re.compile(rb'(?:^|,)priority="[^"]')
"""SGLang tells a queue as a whole and again for each priority."""
_WRITER = re.compile(rb"\n(vllm|llamacpp|sglang):")
_WRITERS = {b"vllm": EngineKind.VLLM, b"llamacpp": EngineKind.LLAMACPP, b"sglang": EngineKind.SGLANG}


@dataclass(frozen=True, slots=True)
class Page:
    """None is what it does not tell, never zero."""

    running: int | None
    waiting: int | None
    swapped: int | None
    kv_used_fraction: float | None
    kv_tokens: int | None
    """That fit in the cache at once, of all replicas together."""
    running_loras: tuple[str, ...]
    counters: Counters


def _scanner_of(kind: EngineKind) -> Scanner:
    names = {name for names in _NAMES[kind].values() for name in names}
    return Scanner(names | ({_CACHE_CONFIG, _LORAS} if kind is EngineKind.VLLM else set()))


_SCANNERS = {kind: _scanner_of(kind) for kind in _NAMES}


def read_page(page: bytes, kind: EngineKind) -> Page | None:
    """None when it has none of the engine's gauges. Raises BadAnswer for one that goes on and on."""
    scanner = _SCANNERS.get(kind)
    if scanner is None:
        return None
    # A series that is there twice counts once: the later line of the same labels.
    found: dict[str, dict[bytes, Sample]] = {}
    for number, sample in enumerate(islice(scanner.scan(page), MOST_SAMPLES + 1)):
        if number == MOST_SAMPLES:
            raise BadAnswer(f"its metrics have more than {MOST_SAMPLES} samples of a few families")
        if kind is not EngineKind.SGLANG or not _PRIORITY.search(sample.labels):
            found.setdefault(sample.name, {})[sample.labels] = sample
    told = {
        fact: _joined(fact, next(found[name] for name in names if name in found).values(), _REPLICA.get(kind))
        for fact, names in _NAMES[kind].items()
        if any(name in found for name in names)
    }
    told = {fact: value for fact, value in told.items() if math.isfinite(value)}  # sums may be no numbers any more
    if not told.keys() & {_Fact.RUNNING, _Fact.WAITING, _Fact.KV_USED}:
        return None
    kv_tokens = _tokens(told.get(_Fact.KV_TOKENS)) or _room(found.get(_CACHE_CONFIG, {}).values())
    return Page(
        running=_requests(told.get(_Fact.RUNNING)),
        waiting=_requests(told.get(_Fact.WAITING)),
        swapped=_requests(told.get(_Fact.SWAPPED)),
        kv_used_fraction=_fraction(told.get(_Fact.KV_USED)),
        kv_tokens=kv_tokens,
        running_loras=_loras(found.get(_LORAS, {}).values()),
        counters=_counters(told, kind),
    )


def kind_of_page(page: bytes) -> EngineKind | None:
    """Which engine writes such a Prometheus page."""
    found = _WRITER.search(b"\n" + page)
    return None if found is None else _WRITERS[found[1]]


def summed(pages: Collection[Page]) -> Page | None:
    """As one, of several models behind one address; None of none. What one of them does not tell is not known of all."""
    if not pages:
        return None
    first = next(iter(pages))
    return Page(
        running=_sum([page.running for page in pages]),
        waiting=_sum([page.waiting for page in pages]),
        swapped=None,
        kv_used_fraction=None,
        kv_tokens=None,
        running_loras=(),
        counters=first.counters if len(pages) == 1 else Counters(),
    )


def _joined(fact: _Fact, samples: Iterable[Sample], replica: re.Pattern[bytes] | None) -> float:
    values = list(samples)
    if fact is _Fact.KV_USED:  # the fullest replica's
        return max(sample.value for sample in values)
    if fact not in _OF_THE_SCHEDULER:
        return sum(sample.value for sample in values)
    of_replica: dict[bytes, float] = {}
    for sample in values:
        match = replica.search(sample.labels) if replica is not None else None
        which = match[1] if match is not None else b""
        of_replica[which] = max(of_replica.get(which, 0.0), sample.value)
    return sum(of_replica.values())


def _counters(told: Mapping[_Fact, float], kind: EngineKind) -> Counters:
    prompt, found = told.get(_Fact.PROMPT_TOKENS), told.get(_Fact.FOUND_TOKENS)
    looked_up = told.get(_Fact.LOOKED_UP_TOKENS)
    if kind is EngineKind.SGLANG:
        looked_up = prompt
    elif kind is EngineKind.LLAMACPP and prompt is not None and found is not None:
        looked_up = prompt + found  # it counts as prompt what it did not find
    return Counters(
        prompt_tokens=prompt,
        completion_tokens=told.get(_Fact.COMPLETION_TOKENS),
        looked_up_tokens=looked_up,
        found_tokens=found,
        preemptions=told.get(_Fact.PREEMPTIONS),
        ttft_sum_s=told.get(_Fact.TTFT_SUM),
        ttft_count=told.get(_Fact.TTFT_COUNT),
        queue_sum_s=told.get(_Fact.QUEUE_SUM),
        queue_count=told.get(_Fact.QUEUE_COUNT),
    )


def _room(configs: Iterable[Sample]) -> int | None:
    """vLLM's configuration of its cache, a line for each replica. The number of blocks is that of all replicas together;
    newer ones also tell the tokens of this replica, which is right for models with several kinds of attention too."""
    blocks, tokens = 0, 0
    for sample in configs:
        labels = labels_of(sample)
        blocks = max(blocks, _whole(labels.get("num_gpu_blocks", "")) * _whole(labels.get("block_size", "")))
        tokens += _whole(labels.get("kv_cache_size_tokens", ""))
    return _tokens(tokens or blocks)


def _loras(infos: Iterable[Sample]) -> tuple[str, ...]:
    """vLLM writes a line for each set of adapters that it ever ran, with the time of it as the value."""
    newest = max(infos, key=lambda sample: sample.value, default=None)
    if newest is None:
        return ()
    names = (name.strip() for name in labels_of(newest).get("running_lora_adapters", "").split(",")[:_MOST_LORAS])
    return tuple(sorted({name for name in names if name and len(name) <= MAX_NAME and name.isprintable()}))


def _whole(text: str) -> int:
    """0 for what is no number, such as `None`."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def _requests(value: float | None) -> int | None:
    return round(value) if value is not None and value <= _MOST_REQUESTS else None


def _fraction(value: float | None) -> float | None:
    """To a thousandth: finer is noise. A little more than all is all; much more is no fraction."""
    return min(1.0, round(value, 3)) if value is not None and value <= 1.05 else None


def _tokens(value: float | None) -> int | None:
    return int(value) if value is not None and 1 <= value <= _MOST_TOKENS else None


def _sum(values: list[int | None]) -> int | None:
    told = [value for value in values if value is not None]
    return sum(told) if len(told) == len(values) else None
