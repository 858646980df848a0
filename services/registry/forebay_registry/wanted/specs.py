"""What a fleet file, a configuration file or a call says of the fleet, understood: plain entries in, things with checked
names and values out, and every problem with the place where it stands. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from forebay.errors import BadInput
from forebay.plain_message import Problem
from forebay_registry.backend import (
    DEFAULT_POOL,
    BackendId,
    Desired,
    EngineKind,
    Labels,
    ModelFacts,
    Node,
    NodeId,
    Pool,
    Pull,
)
from forebay_registry.engines.providers import base_of, provider_at
from forebay_registry.fleet.model_names import demand_model_name, demand_names
from forebay_registry.wanted.catalog import MAX_SLOTS, demand_gpus, demand_name, demand_node_name, normal_url
from forebay_registry.wanted.state import Kind, Spec

SECTIONS = {Kind.NODE: "nodes", Kind.BACKEND: "backends", Kind.POOL: "pools", Kind.MODEL: "models"}
"""Where entries of each kind stand, in a file and in a path."""

_MOST_WEIGHT = 1_000_000
_MOST_LABELS = 64
_LONGEST_LABEL = 253
_LONGEST_NOTE = 4000
_MOST_NAMES = 512
_MOST_BYTES = 2**63 - 1
_MOST_NUMBER = 2**31 - 1
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*")
_PREFIX = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._~-]{0,62}){1,4}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
OWN_PATHS = frozenset({"v1", "v1beta", "v2", "api", "k", "anthropic", "healthz", "readyz", "metrics"})
"""First parts of paths that mean something to gateways already."""


@dataclass(frozen=True, slots=True)
class WantedBackend:
    node: str
    """Name; empty: none."""
    backend: Desired
    """Without its id, its node's id, and who wants it."""


@dataclass(frozen=True, slots=True)
class FleetOrder:
    """What somebody wants there to be. Ids, and who wants it since when, are left to whoever carries it out."""

    nodes: tuple[Node, ...] = ()
    backends: tuple[WantedBackend, ...] = ()
    pools: tuple[Pool, ...] = ()
    models: tuple[ModelFacts, ...] = ()


def read_order(entries: Mapping[Kind, Sequence[Spec]]) -> tuple[FleetOrder, list[Problem]]:
    """With any problem the order is good for finding more of them, and for nothing else: a field that could not be read is
    as usual in it."""
    problems: list[Problem] = []
    return FleetOrder(
        nodes=_read_all(Kind.NODE, entries, _read_node, problems),
        backends=_read_all(Kind.BACKEND, entries, _read_backend, problems),
        pools=_read_all(Kind.POOL, entries, _read_pool, problems),
        models=_read_all(Kind.MODEL, entries, _read_model, problems),
    ), problems


def path_of(kind: Kind, name: str, field: str = "") -> str:
    return f"{SECTIONS[kind]}.{name}" + (f".{field}" if field else "")


def paths_in(order: FleetOrder) -> tuple[str, ...]:
    """Of everything that it names."""
    return (
        *(path_of(Kind.NODE, node.name) for node in order.nodes),
        *(path_of(Kind.BACKEND, wanted.backend.name) for wanted in order.backends),
        *(path_of(Kind.POOL, pool.name) for pool in order.pools),
        *(path_of(Kind.MODEL, model.name) for model in order.models),
    )


_T = TypeVar("_T")


class _Entry:
    """One entry while it is read: a field whose reader raises BadInput becomes a problem and its usual value."""

    def __init__(self, spec: Spec, path: str) -> None:
        self.spec = spec
        self.path = path
        self.problems: list[Problem] = []

    def read(self, field: str, reader: Callable[[Any], _T], usual: _T) -> _T:
        """Of a field that is not there, `usual`."""
        if field not in self.spec:
            return usual
        try:
            return reader(self.spec[field])
        except BadInput as error:
            self.problem(field, error.message)
            return usual

    def problem(self, field: str, why: str) -> None:
        self.problems.append(Problem(f"{self.path}.{field}", why))


def _read_all(
    kind: Kind,
    entries: Mapping[Kind, Sequence[Spec]],
    reader: Callable[[_Entry, str], _T],
    problems: list[Problem],
) -> tuple[_T, ...]:
    read: list[_T] = []
    names: set[str] = set()
    for number, spec in enumerate(entries.get(kind, ()), start=1):
        name = str(spec.get("name", ""))
        entry = _Entry(spec, path_of(kind, name or str(number)))
        if not name:
            entry.problem("name", f"Each of the {SECTIONS[kind]} needs a name.")
        elif name in names:
            entry.problem("name", f"{name!r} stands here twice.")
        thing = reader(entry, name)
        if name and name not in names:
            read.append(thing)
        names.add(name)
        problems += entry.problems
    return tuple(read)


def _read_node(entry: _Entry, name: str) -> Node:
    _check_name(entry, name, demand_node_name)
    return Node(
        NodeId(""),
        name,
        0.0,
        "",
        labels=entry.read("labels", _labels, ()),
        note=entry.read("note", _note, ""),
        has_agent=False,
    )


def _read_backend(entry: _Entry, name: str) -> WantedBackend:
    _check_name(entry, name, lambda told: demand_name(told, "a backend"))
    if not entry.spec.get("url"):
        entry.problem("url", "A backend needs the address of its engine: http://host:port or https://host.")
    url = entry.read("url", lambda told: normal_url(told) if told else "", "")
    kind = entry.read("kind", _engine_kind, None) or (provider_at(url) if url else None)
    node = str(entry.spec.get("node", ""))
    every_gpu: tuple[int, ...] = ()
    gpu_indices = entry.read("gpu_indices", demand_gpus, every_gpu)
    if gpu_indices and not node:
        entry.problem("gpu_indices", "GPUs belong to a node: say on which node the engine runs.")
    return WantedBackend(
        node,
        Desired(
            BackendId(""),
            name,
            base_of(url, kind) if url else "",
            kind,
            entry.read("pool", _pool_name, DEFAULT_POOL),
            entry.read("slots", _slots, 0),
            None,
            changed_by="",
            changed_at=0.0,
            enabled=entry.read("enabled", bool, True),
            model_names=entry.read("models", demand_names, ()),
            gpu_indices=gpu_indices,
            weight_milli=entry.read("weight", _weight_milli, 0),
            kv_tokens=entry.read("kv_tokens", _at_least_one(_MOST_BYTES), None),
            requests_per_minute=entry.read("requests_per_minute", _at_least_one(_MOST_NUMBER), None),
            models_at_once=entry.read("models_at_once", _at_least_one(_MOST_NUMBER), None),
            labels=entry.read("labels", _labels, ()),
        ),
    )


def _read_pool(entry: _Entry, name: str) -> Pool:
    _check_name(entry, name, lambda told: demand_name(told, "a pool"))
    return Pool(
        name,
        hosts=entry.read("hosts", _hosts, ()),
        path_prefix=entry.read("path_prefix", _path_prefix, ""),
        required_models=entry.read("required_models", _model_list, ()),
        pull=entry.read("pull", _pull, Pull.AUTO),
    )


def _read_model(entry: _Entry, name: str) -> ModelFacts:
    _check_name(entry, name, demand_model_name)
    return ModelFacts(
        name,
        capabilities=entry.read("capabilities", _capabilities, ()),
        context_length=entry.read("context_length", _at_least_one(_MOST_NUMBER), None),
        quantization=entry.read("quantization", _quantization, ""),
        size_bytes=entry.read("size_bytes", _at_least_one(_MOST_BYTES), None),
        description=entry.read("description", _note, ""),
    )


# --- fields ---


def _check_name(entry: _Entry, name: str, demand: Callable[[str], object]) -> None:
    if not name:
        return
    try:
        demand(name)
    except BadInput as error:
        entry.problem("name", error.message)


def _engine_kind(word: str) -> EngineKind | None:
    if word in ("", "auto"):
        return None
    return EngineKind(_one_of(word, list(EngineKind), "kind of engine"))


def _pull(word: str) -> Pull:
    return Pull(_one_of(word, list(Pull), "way to get required models"))


def _one_of(word: str, words: Sequence[str], what: str) -> str:
    if word in words:
        return word
    near = get_close_matches(word, words, n=1)
    raise BadInput(f"{word!r} is no {what}; {f'did you mean {near[0]}?' if near else f'there are {_joined(words)}.'}")


def _pool_name(name: str) -> str:
    demand_name(name, "a pool")
    return name


def _slots(number: int) -> int:
    if not 0 <= number <= MAX_SLOTS:
        raise BadInput(f"{number} is not a number of slots; give 1 to {MAX_SLOTS}, or 0 for what the engine says.")
    return number


def _weight_milli(weight: float) -> int:
    if not math.isfinite(weight) or not 0.001 <= weight <= _MOST_WEIGHT:
        raise BadInput(f"A weight is from 0.001 to {_MOST_WEIGHT}; 1 is usual.")
    return round(weight * 1000)


def _at_least_one(most: int) -> Callable[[int], int | None]:
    def read(number: int) -> int:
        if not 1 <= number <= most:
            raise BadInput(f"{number} is not a number from 1 to {most}; leave it out where it is not known.")
        return number

    return read


def _labels(told: Mapping[str, str]) -> Labels:
    if len(told) > _MOST_LABELS:
        raise BadInput(f"There may be at most {_MOST_LABELS} labels.")
    for name, value in told.items():
        if len(name) > _LONGEST_LABEL or not _LABEL.fullmatch(name):
            raise BadInput(f"{name[:80]!r} cannot be the name of a label: use letters, digits, '.', '_', '/' and '-'.")
        if len(value) > _LONGEST_LABEL or not value.isprintable():
            raise BadInput(f"The value of the label {name} is too long, or has control characters in it.")
    return tuple(sorted(told.items()))


def _note(text: str) -> str:
    if len(text) > _LONGEST_NOTE or not text.replace("\n", "").replace("\t", "").isprintable():
        raise BadInput(f"This is longer than {_LONGEST_NOTE} characters, or has control characters in it.")
    return text.strip()


def _hosts(told: Iterable[str]) -> tuple[str, ...]:
    hosts = [host.strip().lower().rstrip(".") for host in told]
    _demand_few(hosts)
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise BadInput(f"{host[:80]!r} is not a host name: write team-a.example.com, without scheme, port or path.")
    return tuple(sorted(set(hosts)))


def _path_prefix(told: str) -> str:
    prefix = told.rstrip("/")
    if not prefix:
        return ""
    if not _PREFIX.fullmatch(prefix):
        raise BadInput(
            f"{told[:80]!r} is not the beginning of a path: write /team-a, of letters, digits, '.', '_', '~' and '-'."
        )
    if prefix.split("/")[1].lower() in OWN_PATHS:
        raise BadInput(f"/{prefix.split('/')[1]} means something to gateways already; choose another beginning.")
    return prefix


def _model_list(told: Sequence[str]) -> tuple[str, ...]:
    _demand_few(told)
    return tuple(sorted({demand_model_name(name) for name in told}))


def _capabilities(told: Sequence[str]) -> tuple[str, ...]:
    _demand_few(told)
    for word in told:
        if not _WORD.fullmatch(word):
            raise BadInput(
                f"{word[:80]!r} is not a capability, which is a word such as chat, embedding, vision or tools."
            )
    return tuple(sorted(set(told)))


def _quantization(word: str) -> str:
    if len(word) > 64 or not word.isprintable() or word != word.strip():
        raise BadInput(f"{word[:80]!r} is not the name of a quantization, such as Q4_K_M or fp8.")
    return word


def _demand_few(told: Sequence[str]) -> None:
    if len(told) > _MOST_NAMES:
        raise BadInput(f"There may be at most {_MOST_NAMES} here.")


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words)
