"""One thing of the fleet changed by itself, decided: its entry as it is, what was said of it, and what is to be as usual
again make the entry that it is to have. Pure. An entry is a fleet file's: what is as usual is not in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import orjson

from forebay.errors import BadInput
from forebay_admin.models.terms import Placement

Entry = Mapping[str, Any]
"""Field → plain value."""

LABELS = "labels"
PLACING = ("placement", "sticky", "locality_window")
"""How a pool places requests, which admin keeps and no configuration file says."""


def patched(held: Entry, said: Entry, reset: Sequence[str], may_reset: Collection[str]) -> dict[str, Any]:
    """`said` holds nothing empty; its labels come beside those that there are. Raises BadInput."""
    if not said and not reset:
        raise BadInput("Say what is to be changed; nothing was named.")
    entry = dict(held)
    labels = dict(held.get(LABELS, {}))
    for name in reset:
        field, _, label = name.partition(".")
        _demand_known(name, field, label, may_reset)
        if label:
            _demand_once(name, label in said.get(LABELS, {}))
            labels.pop(label, None)
        elif field == LABELS:
            labels.clear()
        else:
            _demand_once(name, field in said)
            entry.pop(field, None)
    entry |= said
    entry[LABELS] = labels | said.get(LABELS, {})
    return {field: value for field, value in entry.items() if field != LABELS or value}


def backend_patched(held: Entry, said: Entry, reset: Sequence[str], may_reset: Collection[str]) -> dict[str, Any]:
    """The same; on another node its GPUs are others."""
    entry = patched(held, said, reset, may_reset)
    if entry.get("node") != held.get("node") and "gpu_indices" not in said:
        entry.pop("gpu_indices", None)
    return entry


def pool_patched(held: Entry, said: Entry, reset: Sequence[str], may_reset: Collection[str]) -> dict[str, Any]:
    """The same; a fleet file that says nothing of how a pool places requests would leave that as it is."""
    entry = patched(held, said, reset, may_reset)
    if any(field in PLACING for field in reset) and not any(field in PLACING for field in entry):
        entry["placement"] = Placement.EXPECTED_TTFT.value
    return entry


def changed(held: Entry, fields: Mapping[str, str]) -> dict[str, Any]:
    """The entry after its fields have become that, as JSON; empty: as usual."""
    told = {field: orjson.loads(after) for field, after in fields.items() if after}
    return {field: value for field, value in held.items() if field not in fields} | told


def no_such(what: str, name: str, names: Collection[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"There is no {what} {name!r}{f'; did you mean {near[0]}?' if near else f': see forebay {what} list.'}"


def _demand_known(name: str, field: str, label: str, may_reset: Collection[str]) -> None:
    if field not in may_reset or ("." in name and (field != LABELS or not label)):
        near = get_close_matches(name, may_reset, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(may_reset)}."
        raise BadInput(f"{name!r} is nothing that can be as usual again; {hint}")


def _demand_once(name: str, is_said: bool) -> None:
    if is_said:
        raise BadInput(f"{name} is to have a value and to be as usual again: say one of the two.")
