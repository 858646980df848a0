"""What of a fleet file admin keeps itself, decided: how pools place requests, and other names of models. Pure.

Of a pool or a model of which the file says nothing of the kind, everything stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import BadInput, NotPossible
from forebay_admin.models.model_rules import Alias, demand_alias
from forebay_admin.models.terms import Placement, PoolTerms, demand_pool_terms, placement_named


@dataclass(frozen=True, slots=True)
class PoolSaid:
    pool: str
    placement: str = ""
    sticky: bool | None = None
    locality_window: int | None = None


@dataclass(frozen=True, slots=True)
class OwnProblem:
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class OwnPlan:
    terms: tuple[tuple[PoolTerms | None, PoolTerms], ...]
    """(before, after), where they differ."""
    put: tuple[Alias, ...]
    removed: tuple[Alias, ...]
    aliases: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Model → its aliases in every pool, before and after, where they differ."""
    problems: tuple[OwnProblem, ...]
    """With any of them nothing is to be done."""

    @property
    def is_empty(self) -> bool:
        return not (self.terms or self.put or self.removed)


def plan_own(
    pools: Sequence[PoolSaid],
    models: Mapping[str, Sequence[str]],
    terms: Mapping[str, PoolTerms],
    aliases: Sequence[Alias],
) -> OwnPlan:
    """`models`: model → the aliases that the file gives it, where it gives any. `terms` and `aliases`: as they are."""
    problems: list[OwnProblem] = []
    changed_terms = []
    for said in pools:
        try:
            after = _terms_of(said)
        except BadInput as error:
            problems.append(OwnProblem(f"pools.{said.pool}.placement", error.message))
            continue
        if after is not None and after != (terms.get(said.pool) or PoolTerms(said.pool)):
            changed_terms.append((terms.get(said.pool), after))
    wanted = {model: tuple(sorted(set(names))) for model, names in models.items() if names}
    held = {alias.alias: alias.model for alias in aliases if not alias.pool}
    removed = [Alias(name, model, "") for name, model in held.items() if name not in wanted.get(model, (name,))]
    put = [Alias(name, model, "") for model, names in wanted.items() for name in names if held.get(name) != model]
    problems += _alias_problems(put, removed, aliases)
    differing = {}
    for model, names in wanted.items():
        before = tuple(sorted(name for name, of in held.items() if of == model))
        if before != names:
            differing[model] = before, names
    return OwnPlan(tuple(changed_terms), tuple(put), tuple(removed), differing, tuple(problems))


def _terms_of(said: PoolSaid) -> PoolTerms | None:
    """None: the file says nothing of it. Raises BadInput."""
    if not said.placement and said.sticky is None and said.locality_window is None:
        return None
    placement = placement_named(said.placement) if said.placement else Placement.EXPECTED_TTFT
    return demand_pool_terms(PoolTerms(said.pool, placement, bool(said.sticky), said.locality_window))


def _alias_problems(put: Sequence[Alias], removed: Iterable[Alias], aliases: Iterable[Alias]) -> list[OwnProblem]:
    gone = set(removed)
    known = [alias for alias in aliases if alias not in gone]
    problems = []
    for alias in put:
        path = f"models.{alias.model}.aliases"
        other = next((one for one in known if one.alias == alias.alias and not one.pool), None)
        if other is not None:
            why = f"{alias.alias} stands for {other.model} already; an alias stands for one model."
            problems.append(OwnProblem(path, why))
            continue
        try:
            known.append(demand_alias(alias, known))
        except (BadInput, NotPossible) as error:
            problems.append(OwnProblem(path, error.message))
    return problems
