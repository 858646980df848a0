"""Which Ollama backends an order about a model is meant for. Pure.

The key's pool decides, and within it the one that the client named, if it named one (`x-forebay-backend`)."""

from __future__ import annotations

from forebay.errors import BadInput, Refusal, Unavailable
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend, Fleet
from forebay_gateway.refused import BadField, Refused

BACKEND_HEADER = "x-forebay-backend"


def hosts(fleet: Fleet, pool: str, named: str | None) -> list[Backend]:
    """All that are healthy, by name, or the named one alone. Raises BadField, BadInput, Refused, Unavailable."""
    if not fleet.is_known:
        raise Unavailable("This gateway has just started and knows no backends yet. Try again in a moment.")
    healthy = sorted(fleet.of_kind(EngineKind.OLLAMA, pool), key=lambda backend: (backend.name, backend.id))
    if named is not None:
        healthy = [backend for backend in healthy if named in (backend.name, backend.id)]
    if healthy:
        return healthy
    if named is not None:
        raise BadField(
            f"The header {BACKEND_HEADER} names {named[:80]!r}, which is no healthy Ollama backend of the pool {pool}. "
            "`forebay backend list` shows those there are.",
            param=BACKEND_HEADER,
            code="invalid_value",
        )
    if any(_holding(fleet, model.name, pool) for model in fleet.offered(pool)):
        raise Refused(
            Refusal.NO_BACKEND,
            f"No Ollama backend of the pool {pool} is healthy at the moment. `forebay backend list` says how they are.",
            retry_after_s=5.0,
        )
    raise BadInput(
        f"The pool {pool} of this API key has no Ollama backend, and models can be managed only there. Add one with "
        "`forebay backend add`, or use a key of another pool."
    )


def host(fleet: Fleet, pool: str, named: str | None, having: str | None = None) -> Backend:
    """Always the same one, so that a blob and the model that is made of it meet: the first by name; of those that have the
    model `having`, if any has it. Raises as `hosts` does."""
    candidates = hosts(fleet, pool, named)
    ids = {backend.id for backend in _holding(fleet, having, pool)} if having is not None else set()
    return next((backend for backend in candidates if backend.id in ids), candidates[0])


def hosts_to_clear(fleet: Fleet, pool: str, named: str | None, model: str) -> list[Backend]:
    """Of which the model is to be deleted. Beside `hosts` those that are not healthy and have it, since there it would stay.
    Raises as `hosts` does."""
    healthy = hosts(fleet, pool, named)
    if named is not None:
        return healthy
    known = {backend.id for backend in healthy}
    return [*healthy, *(backend for backend in _holding(fleet, model, pool) if backend.id not in known)]


def _holding(fleet: Fleet, model: str, pool: str) -> list[Backend]:
    """Healthy or not; as far as the registry's last probes tell."""
    name = fleet.name_of(model, pool) or fleet.ollamas_name_of(model, pool)
    return [b for b in fleet.serving(name, pool) if b.kind is EngineKind.OLLAMA] if name is not None else []
