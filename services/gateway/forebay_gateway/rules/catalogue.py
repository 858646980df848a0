"""Which models there are for a caller, by every name that they have: the fleet's own and operators' aliases. Pure."""

from __future__ import annotations

from dataclasses import replace

from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.forms import IMAGE, IMAGE_EDIT, MODERATION, Form
from forebay_gateway.fleet import USUAL_TAG, Fleet, OfferedModel
from forebay_gateway.refused import BadField
from forebay_gateway.rules.key_rules import rule_for
from forebay_gateway.rules.model_rules import ModelRules

_PICTURES = "image", ("gpt-image-1", "dall-e-3", "dall-e-2")
_USUAL: dict[str, tuple[str, tuple[str, ...]]] = {
    MODERATION.path: ("", ("omni-moderation-latest", "text-moderation-latest")),
    IMAGE.path: _PICTURES,
    IMAGE_EDIT.path: _PICTURES,
}
"""By a form's path: a capability that a model tells which does such a thing, if any does, and OpenAI's names."""


def find_model(asked: str, pool: str, fleet: Fleet, rules: ModelRules) -> str | None:
    """Its name in the fleet. A model of the very name goes before an alias, and that before a model that only Ollama would
    take it for. None: it is none of them; an alias of a model that the pool does not have gives the name of that."""
    name = fleet.name_of(asked, pool)
    if name is not None:
        return name
    target = rules.resolve(asked, pool)
    if target is None:
        return fleet.ollamas_name_of(asked, pool)
    return fleet.name_of(target, pool) or fleet.ollamas_name_of(target, pool) or target


def usual_model(principal: Principal, form: Form, fleet: Fleet, rules: ModelRules) -> str:
    """The name of what answers a request without a model, which OpenAI does not demand of every form: that of OpenAI's own
    which is there, mostly as an alias, or the only model that is known to do such a thing. Raises BadField."""
    capability, names = _USUAL.get(form.path, ("", ()))
    for name in names:
        model = find_model(name, principal.pool, fleet, rules)
        if model is not None and fleet.has(model, principal.pool) and may_ask(principal, name, model):
            return name
    able = [model.name for model in offered_to(principal, fleet, rules) if capability in model.capabilities]
    if capability and len(able) == 1:
        return able[0]
    instead = f", or let your operator make an alias {names[0]}" if names else ""
    raise BadField(
        f"`model` is missing: name one of those that `GET /v1/models` lists{instead}.",
        param="model",
        code="missing_required_parameter",
    )


def may_ask(principal: Principal, asked: str, model: str) -> bool:
    """Whether a key may use `model` under the name `asked`: it may if it may use either, unless one is denied. A key that
    was made for an alias gets whatever the alias stands for."""
    return (
        principal.may_use(model) if asked == model else principal.may_use(model, asked, asked.removesuffix(USUAL_TAG))
    )


def offered_to(principal: Principal, fleet: Fleet, rules: ModelRules) -> list[OfferedModel]:
    """By name, aliases included."""
    pool = principal.pool
    models = {model.name: _capped(model, principal, rules) for model in fleet.offered(pool)}
    offered = [model for model in models.values() if principal.may_use(model.name)]
    for alias, target in rules.aliases(pool).items():
        name = fleet.name_of(target, pool) or fleet.ollamas_name_of(target, pool)
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
    rule = rule_for(rules, model.name, principal, generates=True)
    if rule is None or rule.max_context_tokens is None:
        return model
    return replace(model, context_length=min(rule.max_context_tokens, model.context_length or rule.max_context_tokens))
