"""The fleet as the registry last told it: which backends there are, how they are, and which models they have.

Pure. Choosing a backend is the scheduler's job; the gateway looks up the one it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from forebay_gateway.engine_kind import EngineKind

USUAL_TAG = ":latest"
_OLLAMAS_REGISTRY, _OLLAMAS_FOLDER = "registry.ollama.ai", "library"
_SAYS_MORE = "multimodal"
"""llama.cpp's word for a model that sees, or hears, or both."""


@dataclass(frozen=True, slots=True)
class ModelOnBackend:
    name: str
    """In the fleet."""
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    engine_name: str = ""
    """What the engine calls it; empty: as the fleet does."""


@dataclass(frozen=True, slots=True)
class Backend:
    id: str
    name: str
    url: str
    """Without /v1 and without a slash at the end."""
    kind: EngineKind = EngineKind.OPENAI
    pool: str = "default"
    enabled: bool = True
    is_unhealthy: bool = False
    """The registry's probes fail, or it has been drained. A backend that was not probed yet is not unhealthy."""
    is_barred: bool = False
    """Nothing is begun there: it drains, loads, or is not well."""
    has_credential: bool = False
    models: Mapping[str, ModelOnBackend] = field(default_factory=dict)
    """By their names in the fleet."""
    may_begin: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "may_begin", not self.is_unhealthy and not self.is_barred)

    def its_name_of(self, model: str) -> str:
        """What the engine calls a model of the fleet."""
        known = self.models.get(model)
        return known.engine_name or model if known is not None else model


@dataclass(frozen=True, slots=True)
class OfferedModel:
    name: str
    context_length: int | None
    """Tokens; the smallest among its backends, since any of them may answer."""
    capabilities: tuple[str, ...] = ()
    """Those that all of its backends tell that tell any, since any of them may answer; by name."""
    alias_of: str = ""
    """The model that this is another name of; empty: it is no alias."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model, in one pool."""

    backends: tuple[Backend, ...]
    kinds: frozenset[EngineKind]
    """Of these: few, of however many backends."""


class Fleet:
    def __init__(self) -> None:
        self._backends: dict[str, Backend] = {}
        self._served: dict[tuple[str, str], Served] = {}
        """What `served` found since the last change."""
        self._ollamas: dict[str, dict[str, set[str]]] = {}
        """Pool → a name as Ollama reads it → the models of Ollama engines that have it; made when first needed."""
        self.is_known = False

    def replace_all(self, backends: Iterable[Backend]) -> None:
        self._backends = {backend.id: backend for backend in backends}
        self._forget_found()
        self.is_known = True

    def change(self, backends: Iterable[Backend], removed: Iterable[str]) -> None:
        for backend in backends:
            self._backends[backend.id] = backend
        for backend_id in removed:
            self._backends.pop(backend_id, None)
        self._forget_found()

    def get(self, backend_id: str) -> Backend | None:
        return self._backends.get(backend_id)

    def is_lost(self, backend_id: str) -> bool:
        """Removed or unhealthy: an answer that is silent there will probably stay so."""
        backend = self._backends.get(backend_id)
        return backend is None or backend.is_unhealthy

    def may_begin(self, backend_id: str) -> bool:
        """Whether something may be begun there without asking the scheduler."""
        backend = self._backends.get(backend_id)
        return backend is not None and backend.may_begin

    def has(self, model: str, pool: str) -> bool:
        return self.served(model, pool) is not None

    def name_of(self, asked: str, pool: str) -> str | None:
        """The name of the model that a client calls `asked`: that itself or, as Ollama has it, with the tag `latest` added
        or left out. None: the pool has no such model."""
        if self.has(asked, pool):
            return asked
        other = asked.removesuffix(USUAL_TAG) if asked.endswith(USUAL_TAG) else f"{asked}{USUAL_TAG}"
        return other if self.has(other, pool) else None

    def ollamas_name_of(self, asked: str, pool: str) -> str | None:
        """The one model of Ollama engines that Ollama itself would take `asked` for: it looks at no letter's case, and its
        own registry and the folder `library` go without saying. For what `name_of` does not find."""
        if pool not in self._ollamas:
            found = self._ollamas[pool] = {}
            for backend in self._backends.values():
                if backend.enabled and backend.pool == pool and backend.kind is EngineKind.OLLAMA:
                    for name in backend.models:
                        found.setdefault(_as_ollama_reads(name), set()).add(name)
        names = self._ollamas[pool].get(_as_ollama_reads(asked), ())
        return next(iter(names)) if len(names) == 1 else None

    def _forget_found(self) -> None:
        self._served.clear()
        self._ollamas.clear()

    def serving(self, model: str, pool: str) -> tuple[Backend, ...]:
        """The enabled backends of this pool that have the model, healthy or not."""
        served = self.served(model, pool)
        return served.backends if served is not None else ()

    def served(self, model: str, pool: str) -> Served | None:
        """The same, and what they have in common. None: there are none."""
        known = self._served.get((model, pool))
        if known is None:
            found = tuple(b for b in self._backends.values() if b.enabled and b.pool == pool and model in b.models)
            if found:  # names that clients make up are not remembered
                known = self._served[model, pool] = Served(found, frozenset(backend.kind for backend in found))
        return known

    def of_kind(self, kind: EngineKind, pool: str) -> list[Backend]:
        """The enabled and healthy backends of a pool that are such engines."""
        return [
            b for b in self._backends.values() if b.kind is kind and b.pool == pool and b.enabled and not b.is_unhealthy
        ]

    def is_well(self, model: str, pool: str) -> bool:
        """Whether something may be begun on some backend that has it."""
        return any(backend.may_begin for backend in self.serving(model, pool))

    def lacks(self, model: str, pool: str, capability: str) -> bool:
        """Whether it is known of one of its backends, any of which may answer, that it is not there."""
        return any(
            backend.kind.tells_of(capability) and bool(told) and not {capability, _SAYS_MORE}.intersection(told)
            for backend in self.serving(model, pool)
            for told in (backend.models[model].capabilities,)
        )

    def reads_documents(self, model: str, pool: str) -> bool:
        """Whether some backend that serves it can read PDFs."""
        return any(backend.kind.takes_documents for backend in self.serving(model, pool))

    def some_suit(self, model: str, pool: str, suits: Callable[[EngineKind], bool]) -> bool:
        """Whether some backend that serves it is of a kind that can read a request."""
        return any(suits(backend.kind) for backend in self.serving(model, pool))

    def unsuited(self, model: str, pool: str, suits: Callable[[EngineKind], bool]) -> tuple[str, ...]:
        """The ids of those that serve it and are of a kind that cannot read a request."""
        served = self.served(model, pool)
        if served is None or all(map(suits, served.kinds)):
            return ()
        return tuple(backend.id for backend in self.serving(model, pool) if not suits(backend.kind))

    def context_length(self, model: str, pool: str) -> int | None:
        """The smallest among the backends that have it."""
        return _offered(model, [backend.models[model] for backend in self.serving(model, pool)]).context_length

    def offered(self, pool: str) -> list[OfferedModel]:
        """The models of a pool by name. One whose backends are all down is still listed: they usually come back."""
        offers: dict[str, list[ModelOnBackend]] = {}
        for backend in self._backends.values():
            if backend.enabled and backend.pool == pool:
                for model in backend.models.values():
                    offers.setdefault(model.name, []).append(model)
        return [_offered(name, offers[name]) for name in sorted(offers)]


def _as_ollama_reads(name: str) -> str:
    """A name is [[REGISTRY/]FOLDER/]MODEL[:TAG]."""
    parts = name.lower().removesuffix(USUAL_TAG).split("/")
    if len(parts) == 3 and parts[0] == _OLLAMAS_REGISTRY:
        del parts[0]
    if len(parts) == 2 and parts[0] == _OLLAMAS_FOLDER:
        del parts[0]
    return "/".join(parts)


def _offered(name: str, offers: list[ModelOnBackend]) -> OfferedModel:
    lengths = [offer.context_length for offer in offers if offer.context_length]
    told = [set(offer.capabilities) for offer in offers if offer.capabilities]
    return OfferedModel(name, min(lengths, default=None), tuple(sorted(set.intersection(*told))) if told else ())
