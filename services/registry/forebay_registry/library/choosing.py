"""On which backends an order is carried out. Pure.

A backend that was named and cannot do it is an error; one that merely belongs to the pool or node that was named is passed
over, and told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import BadInput, NotFound, NotPossible
from forebay_registry.backend import EngineKind, NodeId
from forebay_registry.fleet.fleet import View
from forebay_registry.library.job import Action
from forebay_registry.library.names import is_same

_SHELVES = frozenset({EngineKind.OLLAMA})
"""Engines that fetch and keep models by name."""
_LOADS = frozenset({EngineKind.OLLAMA, EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG})
_TAKES_ADAPTERS = frozenset({EngineKind.VLLM, EngineKind.SGLANG})
_CAN: Mapping[Action, frozenset[EngineKind]] = {
    Action.PULL: _SHELVES,
    Action.DELETE: _SHELVES,
    Action.COPY: _SHELVES,
    Action.PRELOAD: _LOADS,
    Action.UNLOAD: _LOADS,
}
_NO_KIND = "has not said yet which engine it is"
_DONE_WITH_WHAT_IS_THERE = frozenset({Action.DELETE, Action.COPY, Action.UNLOAD})


@dataclass(frozen=True, slots=True)
class Choice:
    backends: tuple[str, ...] = ()
    """Names."""
    pool: str = ""
    node: str = ""
    everywhere: bool = False

    @property
    def ways(self) -> int:
        return sum((bool(self.backends), bool(self.pool), bool(self.node), self.everywhere))


@dataclass(frozen=True, slots=True)
class Passed:
    backend: str
    why: str


@dataclass(frozen=True, slots=True)
class Chosen:
    views: tuple[View, ...]
    passed: tuple[Passed, ...] = ()


def find(choice: Choice, views: Sequence[View], node_ids: Mapping[str, NodeId]) -> tuple[View, ...]:
    """Raises BadInput, NotFound."""
    if choice.ways != 1:
        raise BadInput(
            "Say on which backends: --backend NAME (several times), --pool NAME, --node NAME or --all, one of them."
        )
    if choice.backends:
        by_name = {view.name: view for view in views}
        unknown = [name for name in choice.backends if name not in by_name]
        if unknown:
            raise NotFound(f"There is no backend {unknown[0]!r}.{_known(by_name)}")
        return tuple(by_name[name] for name in dict.fromkeys(choice.backends))
    if choice.pool:
        found = tuple(view for view in views if view.pool == choice.pool)
        if not found:
            raise NotFound(
                f"No backend is in the pool {choice.pool!r}. Pools with backends:{_known(v.pool for v in views)}"
            )
        return found
    if choice.node:
        node_id = node_ids.get(choice.node)
        if node_id is None:
            raise NotFound(f"There is no node {choice.node!r}.{_known(node_ids)}")
        found = tuple(view for view in views if view.node_id == node_id)
        if not found:
            raise NotFound(f"No backend is registered on the node {choice.node!r}; see: forebay backend add --node")
        return found
    if not views:
        raise NotFound("There are no backends.")
    return tuple(views)


def choose(
    action: Action,
    model: str,
    choice: Choice,
    views: Sequence[View],
    node_ids: Mapping[str, NodeId],
    *,
    has_source: bool = False,
) -> Chosen:
    """For a job. Raises BadInput, NotFound, NotPossible."""
    chosen: list[View] = []
    passed: list[Passed] = []
    for view in find(choice, views, node_ids):
        why = _why_not(action, view, has_source=has_source)
        if why and choice.backends:
            raise NotPossible(f"{view.name} {why}.")
        if not why and not choice.backends:
            why = _why_needless(action, model, view)
        if why:
            passed.append(Passed(view.name, why))
        else:
            chosen.append(view)
    if not chosen:
        if action in _DONE_WITH_WHAT_IS_THERE and any(_is_able(action, view) for view in views):
            raise NotFound(f"None of these backends has the model {model}.")
        raise NotPossible(
            "None of these backends can do that: " + "; ".join(f"{p.backend} {p.why}" for p in passed) + "."
        )
    return Chosen(tuple(chosen), tuple(passed))


def choose_for_pin(choice: Choice, views: Sequence[View], node_ids: Mapping[str, NodeId]) -> Chosen:
    """Raises BadInput, NotFound, NotPossible."""
    found = find(choice, views, node_ids)
    able = tuple(view for view in found if view.kind in _SHELVES)
    passed = tuple(
        Passed(v.name, f"is {_called(v.kind)}, which unloads nothing by itself" if v.kind else _NO_KIND)
        for v in found
        if v not in able
    )
    if not able or (choice.backends and passed):
        raise NotPossible(
            "Only Ollama keeps models loaded on demand: " + "; ".join(f"{p.backend} {p.why}" for p in passed)
        )
    return Chosen(able, passed)


def has(view: View, model: str) -> bool:
    return any(is_same(m.name, model) for m in view.models)


def name_at(view: View, model: str) -> str:
    """What this engine calls the fleet's model."""
    for known in view.models:
        if is_same(known.name, model) and known.engine_name:
            return known.engine_name
    return dict(view.model_names).get(model, model)


def _is_able(action: Action, view: View) -> bool:
    return view.kind in _CAN[action]


def _why_not(action: Action, view: View, *, has_source: bool) -> str:
    if view.kind is None:
        return _NO_KIND
    if not _is_able(action, view):
        return f"is {_called(view.kind)}, which cannot {action} models"
    if action is Action.PRELOAD:
        if view.kind in _TAKES_ADAPTERS and not has_source:
            return (
                f"is {_called(view.kind)}, which has its model loaded from its start and can load an adapter (--from)"
            )
        if view.kind not in _TAKES_ADAPTERS and has_source:
            return f"is {_called(view.kind)}, which loads no adapters by request"
    return ""


def _why_needless(action: Action, model: str, view: View) -> str:
    if action in _DONE_WITH_WHAT_IS_THERE and not has(view, model):
        return "does not have it"
    if action is Action.PRELOAD and view.kind not in _TAKES_ADAPTERS and not has(view, model):
        return "does not have it"
    return "" if view.enabled or action is Action.DELETE else "is not enabled"


def _called(kind: EngineKind) -> str:
    names = {EngineKind.VLLM: "vLLM", EngineKind.SGLANG: "SGLang", EngineKind.LLAMACPP: "llama.cpp"}
    return names.get(kind, f"an engine of the kind {kind}")


def _known(names: Iterable[str]) -> str:
    listed = sorted(set(names))
    if not listed:
        return " There are none."
    return f" There are: {', '.join(listed[:20])}{' …' if len(listed) > 20 else ''}."
