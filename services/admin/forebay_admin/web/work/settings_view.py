"""What the page of settings shows: terms of models and pools, presets of groups, and how admin itself was started. Pure;
secrets, and where they lie, are no setting that a page tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from forebay.wire.v1 import admin_pb2
from forebay_admin.config import AdminSettings
from forebay_admin.people.groups import PRESETS

_UNTOLD = ("file", "dir", "token", "secret", "pepper", "seed", "password", "key", "cert", "pin", "database")
"""Words in the names of settings that are secrets, lead to them, or name places on the machine."""
_TOLD_ALL_THE_SAME = frozenset({"password_hash_mib"})
_WHO_IN_URL = re.compile(r"(?<=//)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    placement: str
    sticky: bool
    locality_window: int | None
    is_default: bool
    backends: int | None


@dataclass(frozen=True, slots=True)
class ModelTerms:
    name: str
    weight: float
    prompt_micros: int
    cached_prompt_micros: int
    completion_micros: int


@dataclass(frozen=True, slots=True)
class Preset:
    name: str
    groups: tuple[tuple[str, float], ...]
    """With their weights."""
    missing: tuple[str, ...]


def told_settings(settings: AdminSettings) -> tuple[Setting, ...]:
    """By name."""
    return tuple(
        Setting(one.name, _said(getattr(settings, one.name)))
        for one in sorted(fields(settings), key=lambda field: field.name)
        if is_told(one.name, getattr(settings, one.name))
    )


def is_told(name: str, value: object) -> bool:
    if name in _TOLD_ALL_THE_SAME:
        return True
    return not isinstance(value, Path) and not any(word in part for part in name.split("_") for word in _UNTOLD)


def pools_of(told: admin_pb2.ListPoolsResponse) -> tuple[Pool, ...]:
    return tuple(
        Pool(
            name=one.terms.pool,
            placement=one.terms.placement or "expected_ttft",
            sticky=one.terms.sticky,
            locality_window=one.terms.locality_window if one.terms.HasField("locality_window") else None,
            is_default=one.is_default,
            backends=one.backends if one.HasField("backends") else None,
        )
        for one in told.pools
    )


def models_of(told: admin_pb2.ListModelTermsResponse) -> tuple[ModelTerms, ...]:
    return tuple(
        ModelTerms(
            one.model,
            (one.weight_milli or 1000) / 1000,
            one.prompt_micros,
            one.cached_prompt_micros,
            one.completion_micros,
        )
        for one in told.terms
    )


def presets_of(groups: Iterable[str], presets: Mapping[str, Mapping[str, int]] = PRESETS) -> tuple[Preset, ...]:
    """`groups`: those that there are."""
    there = set(groups)
    return tuple(
        Preset(
            name,
            tuple((group, weight / 1000) for group, weight in members.items()),
            tuple(group for group in members if group not in there),
        )
        for name, members in presets.items()
    )


def _said(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value) or "none"
    if isinstance(value, int | float):
        return f"{value:,.15g}"
    return _WHO_IN_URL.sub("", str(value)) or "empty"
