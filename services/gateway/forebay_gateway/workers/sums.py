"""The metrics of all workers as those of one gateway. Pure.

Counts and distributions are added, those of workers that have died included, so that they never go down. Of what is measured
now, the living are added; where that makes no sense, since each tells the same thing, the worst of them counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import Metric

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

_WORST: Mapping[str, Callable[[float, float], float]] = {
    "forebay_gateway_fleet_version": min,
    "forebay_gateway_scheduler_connected": min,
    "forebay_gateway_bus_connected": min,
    "forebay_gateway_local": max,
    "forebay_gateway_bans": max,
    "forebay_gateway_credentials_quarantined": max,
    "forebay_gateway_first_token_seconds": max,
}
_GROWS = ("counter", "histogram")


@dataclass(slots=True)
class Family:
    name: str
    kind: str
    about: str
    samples: dict[Key, float] = field(default_factory=dict)


Page = dict[str, Family]
"""By the family's name."""


def read_page(metrics: Iterable[Metric]) -> Page:
    return {
        metric.name: Family(
            metric.name,
            metric.type,
            metric.documentation,
            {(sample.name, tuple(sample.labels.items())): sample.value for sample in metric.samples},
        )
        for metric in metrics
    }


def to_plain(page: Page) -> list[Any]:
    """As JSON can carry it."""
    return [[f.name, f.kind, f.about, list(f.samples.items())] for f in page.values()]


def from_plain(told: list[Any]) -> Page:
    return {
        name: Family(
            name,
            kind,
            about,
            {
                (sample, tuple((label, value) for label, value in labels)): number
                for (sample, labels), number in samples
            },
        )
        for name, kind, about, samples in told
    }


def only_what_grows(page: Page) -> Page:
    """What stays of a worker that has died."""
    return {name: family for name, family in page.items() if family.kind in _GROWS}


def add_up(pages: Iterable[Page]) -> Page:
    whole: Page = {}
    for page in pages:
        for family in page.values():
            into = whole.setdefault(family.name, Family(family.name, family.kind, family.about))
            choose = _WORST.get(family.name)
            for key, value in family.samples.items():
                before = into.samples.get(key)
                if before is None:
                    into.samples[key] = value
                else:
                    into.samples[key] = before + value if choose is None else choose(before, value)
    return whole


def as_metrics(page: Page) -> Iterable[Metric]:
    for family in page.values():
        metric = Metric(family.name, family.about, family.kind)
        for (name, labels), value in family.samples.items():
            metric.add_sample(name, dict(labels), value)
        yield metric
