"""The agent's metrics: how its samples fare, and the GPUs of the last one for whoever scrapes the node itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from forebay.metrics import Metrics
from forebay_gpu_agent.facts import Gpu, Sample

Rows = Iterable[tuple[Sequence[str], float]]

SAMPLES = "forebay_agent_samples"
LAST_SAMPLE = "forebay_agent_last_sample_timestamp_seconds"
GPU_STATE = "forebay_agent_gpu_state"
GPU_ERROR = "forebay_gpu_error"

GPU_VALUES: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
    ("forebay_gpu_utilization_percent", "Share of time in which a kernel ran.", lambda g: g.utilization_percent),
    ("forebay_gpu_memory_total_bytes", "Memory of the GPU.", lambda g: g.memory_total_bytes),
    ("forebay_gpu_memory_used_bytes", "Memory in use.", lambda g: g.memory_used_bytes),
    ("forebay_gpu_memory_free_bytes", "Memory free.", lambda g: g.memory_free_bytes),
    ("forebay_gpu_temperature_celsius", "Temperature.", lambda g: g.temperature_c),
    ("forebay_gpu_power_watts", "Power drawn.", lambda g: None if g.power_mw is None else g.power_mw / 1000),
)
"""Metric, what it says, where it lies."""


class Measures:
    def __init__(self, metrics: Metrics) -> None:
        self._last: Sample | None = None
        samples = metrics.counter(SAMPLES, "Samples taken, by what became of them.", ("outcome",))
        self._sent, self._dropped = samples.child("sent"), samples.child("dropped")
        self._took = metrics.histogram("forebay_agent_sample_seconds", "How long a sample took.").child()
        metrics.gauge(LAST_SAMPLE, "When the last sample was taken.", (), self._sampled_at)
        metrics.gauge(GPU_STATE, "1 for the state that holds.", ("state", "message"), self._state)
        metrics.gauge(GPU_ERROR, "1 while a GPU cannot be read.", ("gpu", "uuid", "error"), self._errors)
        for name, about, value in GPU_VALUES:
            metrics.gauge(name, about, ("gpu", "uuid", "name"), partial(self._values, value))

    def note(self, sample: Sample, took_s: float, *, sent: bool) -> None:
        self._last = sample
        self._took.observe(took_s)
        (self._sent if sent else self._dropped).value += 1

    def _sampled_at(self) -> Rows:
        return [((), self._last.sampled_at)] if self._last else []

    def _state(self) -> Rows:
        return [((self._last.gpus.state, self._last.gpus.message), 1)] if self._last else []

    def _errors(self) -> Rows:
        return [((str(g.index), g.uuid, g.error), 1) for g in self._gpus() if g.error]

    def _values(self, value: Callable[[Gpu], float | None]) -> Iterator[tuple[Sequence[str], float]]:
        for gpu in self._gpus():
            told = value(gpu)
            if told is not None:
                yield (str(gpu.index), gpu.uuid, gpu.name), told

    def _gpus(self) -> Sequence[Gpu]:
        return self._last.gpus.gpus if self._last else ()
