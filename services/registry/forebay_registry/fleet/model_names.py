"""What engines call the models of the fleet, where an operator has said so. Pure.

One queue serves a model over engines that call it differently; a provider's models can be declared where it lists none, or
others than it serves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from forebay.errors import BadInput, NotFound
from forebay_registry.backend import EngineKind, Model

Names = tuple[tuple[str, str], ...]
"""(in the fleet, at the engine), by the name in the fleet, each once."""

MOST_NAMES = 512
_LONGEST_NAME = 256
_USUAL_TAG = ":latest"
_TELL_ALL = frozenset({EngineKind.OLLAMA, EngineKind.VLLM, EngineKind.SGLANG, EngineKind.LLAMACPP})
"""Engines whose list has every model that they serve. What others list, such as the models that a provider has to rent, and
what they serve under one account, are two things."""


def demand_names(names: Mapping[str, str]) -> Names:
    """Raises BadInput."""
    if len(names) > MOST_NAMES:
        raise BadInput(f"A backend has names for at most {MOST_NAMES} models.")
    for name, at_engine in names.items():
        demand_model_name(name)
        _demand_plain(at_engine)
    return tuple(sorted(names.items()))


def demand_model_name(name: str) -> str:
    """What the fleet calls a model. Raises BadInput."""
    _demand_plain(name)
    if name.startswith(("/", ".")) or "\\" in name or "://" in name:
        raise BadInput(f"{name[:80]!r} is a path or an address, and not the name of a model.")
    return name


def _demand_plain(name: str) -> None:
    """What engines call models may be a path on their own disk."""
    if not name or name != name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"{name[:80]!r} is not the name of a model.")
    if ".." in name.replace("\\", "/").split("/"):
        raise BadInput(f"{name[:80]!r} leads out of the place where models are, and is not the name of one.")


def changed(before: Names, put: Mapping[str, str], removed: Collection[str]) -> Names:
    """Raises BadInput, and NotFound for a name that is not there to be taken away."""
    if not put and not removed:
        raise BadInput("Say which model has which name there; nothing was named.")
    names = dict(before)
    for name in removed:
        if names.pop(name, None) is None:
            raise NotFound(f"The backend has no name of its own for {name}.")
    return demand_names({**names, **put})


def as_the_fleet_calls(models: Iterable[Model], names: Names, kind: EngineKind | None) -> tuple[Model, ...]:
    """Those that the engine lists, by their names in the fleet. One that was given a name is known by that alone; one that
    is not listed counts where the list is not to be relied on."""
    listed = {model.name: model for model in models}
    if not names:
        return tuple(listed.values())
    is_complete = kind in _TELL_ALL and bool(listed)
    named: dict[str, Model] = {}
    for name, at_engine in names:
        seen = listed.get(at_engine) or listed.get(f"{at_engine}{_USUAL_TAG}")
        if seen is not None:
            named[name] = replace(seen, name=name, engine_name=seen.name if seen.name != name else "")
        elif not is_complete:
            named[name] = Model(name, engine_name=at_engine if at_engine != name else "")
    renamed = {model.engine_name for model in named.values()}
    others = {name: model for name, model in listed.items() if name not in renamed}
    return tuple(sorted({**others, **named}.values(), key=lambda model: model.name))
