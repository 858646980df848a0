"""Which models there are for a caller, by every name that they have: the fleet's own and operators' aliases. Pure."""

from __future__ import annotations

from dataclasses import replace

from forebay_gateway.callers.principals import Principal
from forebay_gateway.fleet import USUAL_TAG, Fleet, OfferedModel
from forebay_gateway.rules.model_rules import ModelRules


def find_model(asked: str, pool: str, fleet: Fleet, rules: ModelRules) -> str | None:
    """Its name in the fleet. A model of the very name goes before an alias. None: it is neither; an alias of a model that
    the pool does not have gives the name of that."""
    name = fleet.name_of(asked, pool)
    if name is not None:
        return name
    target = rules.resolve(asked, pool)
    return target if target is None else fleet.name_of(target, pool) or target


def may_ask(principal: Principal, asked: str, model: str) -> bool:
    """Whether a key may use `model` under the name `asked`: it may if it may use either. A key that was made for an alias
    gets whatever the alias stands for."""
    if principal.may_use(model):
        return True
    return asked != model and (principal.may_use(asked) or principal.may_use(asked.removesuffix(USUAL_TAG)))


def offered_to(principal: Principal, fleet: Fleet, rules: ModelRules) -> list[OfferedModel]:
    """By name, aliases included."""
    pool = principal.pool
    models = {model.name: _capped(model, principal, rules) for model in fleet.offered(pool)}
    offered = [model for model in models.values() if principal.may_use(model.name)]
    for alias, target in rules.aliases(pool).items():
        name = fleet.name_of(target, pool)
        if name is not None and fleet.name_of(alias, pool) is None and may_ask(principal, alias, name):
            offered.append(replace(models[name], name=alias, alias_of=name))
    return sorted(offered, key=lambda model: model.name)


def offered_as(principal: Principal, asked: str, fleet: Fleet, rules: ModelRules) -> OfferedModel | None:
    """What `asked` is for a caller, by the name that the list has for it. None: nothing that it may ask for."""
    offered = {model.name: model for model in offered_to(principal, fleet, rules)}
    name = find_model(asked, principal.pool, fleet, rules)
    others = asked.removesuffix(USUAL_TAG), f"{asked}{USUAL_TAG}"  # an alias may be listed where its model is not
    return next((offered[one] for one in (asked, name, *others) if one in offered), None)


def _capped(model: OfferedModel, principal: Principal, rules: ModelRules) -> OfferedModel:
    """With no more context than the key may fill."""
    rule = rules.of(model.name, principal.pool, principal.key_id, generates=True)
    if rule is None or rule.max_context_tokens is None:
        return model
    return replace(model, context_length=min(rule.max_context_tokens, model.context_length or rule.max_context_tokens))
