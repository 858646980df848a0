"""Forms about models: orders to engines, pins, other names, rules, stand-ins, what pools require, weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from forebay.wire.v1 import admin_pb2
from forebay.wire.v1 import fleet_parts_pb2 as parts
from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.models.rule_words import STRUCTURED, THINKING, as_json_text
from forebay_admin.web.fleet.orders_form import one_line
from forebay_admin.web.forms import Form, WrongField

T = TypeVar("T")

ACTIONS = {
    "pull": wire.MODEL_ACTION_PULL,
    "delete": wire.MODEL_ACTION_DELETE,
    "copy": wire.MODEL_ACTION_COPY,
    "preload": wire.MODEL_ACTION_PRELOAD,
    "unload": wire.MODEL_ACTION_UNLOAD,
}
ORDERS = {
    "listed": admin_pb2.FALLBACK_ORDER_LISTED,
    "cheapest": admin_pb2.FALLBACK_ORDER_CHEAPEST,
    "soonest": admin_pb2.FALLBACK_ORDER_SOONEST,
}
SCOPES = ("everyone", "pool", "model", "key")
CAPS = ("max_output_tokens", "num_ctx", "keep_alive_s", "max_context_tokens")
_MOST_NAME = 500
_MOST_CAP = 2**31


def model_name(form: Form, name: str = "model") -> str:
    """Raises WrongField."""
    form.demand(name, "The model's name")
    return one_line(form, name, _MOST_NAME)


def read_choice(form: Form) -> wire.BackendChoice:
    """`where` is a kind and a name: backend:NAME, pool:NAME, node:NAME, or all. Raises WrongField."""
    chosen = form.many("where")
    if not chosen:
        raise WrongField("where", "Say where: at backends, in a pool, on a node, or at all.")
    kinds = {one.partition(":")[0] for one in chosen}
    names = [one.partition(":")[2] for one in chosen]
    if kinds == {"all"}:
        return wire.BackendChoice(all=True)
    if len(kinds) > 1 or not all(names) or (len(names) > 1 and kinds != {"backend"}):
        raise WrongField("where", "Choose several backends, or else one pool, one node, or all.")
    match kinds.pop():
        case "backend":
            return wire.BackendChoice(backends=names)
        case "pool":
            return wire.BackendChoice(pool=names[0])
        case "node":
            return wire.BackendChoice(node=names[0])
    raise WrongField("where", "There are backends, pools and nodes, or all.")


def read_job(form: Form) -> wire.StartModelJobRequest:
    """Raises WrongField."""
    action = form.get("action")
    if action not in ACTIONS:
        raise WrongField("action", f"An order is one of {', '.join(ACTIONS)}.")
    if action == "copy":
        form.demand("destination", "The name of the copy")
    model = model_name(form)
    if action == "delete" and form.get("confirm") != model:
        raise WrongField("confirm", f"Type {model} to delete it there.")
    return wire.StartModelJobRequest(
        action=ACTIONS[action],
        model=model,
        on=read_choice(form),
        destination=one_line(form, "destination", _MOST_NAME) if action == "copy" else "",
        source=one_line(form, "source", _MOST_NAME) if action == "preload" else "",
        keep_alive=one_line(form, "keep_alive", 20) if action == "preload" else "",
        force=action == "pull" and form.is_ticked("force"),
    )


def read_pin(form: Form, *, undo: bool) -> wire.PinModelRequest:
    """Raises WrongField."""
    return wire.PinModelRequest(model=model_name(form), on=read_choice(form), undo=undo)


def read_alias(form: Form) -> admin_pb2.SetModelAliasRequest:
    """Raises WrongField."""
    alias = model_name(form, "alias")
    return admin_pb2.SetModelAliasRequest(
        alias=admin_pb2.ModelAlias(alias=alias, model=model_name(form), pool=one_line(form, "pool", 63))
    )


def read_scope(form: Form) -> admin_pb2.ModelRuleScope:
    """Raises WrongField."""
    kind, name = form.get("scope") or "everyone", one_line(form, "of", _MOST_NAME)
    if kind not in SCOPES:
        raise WrongField("scope", f"A rule is for {', '.join(SCOPES)}.")
    if kind != "everyone" and not name:
        raise WrongField("of", f"Say which {kind}.")
    match kind:
        case "pool":
            return admin_pb2.ModelRuleScope(pool=name)
        case "model":
            return admin_pb2.ModelRuleScope(model=name)
        case "key":
            return admin_pb2.ModelRuleScope(key_id=name)
    return admin_pb2.ModelRuleScope(everyone=True)


def read_rule(form: Form) -> admin_pb2.SetModelRuleRequest:
    """A line FIELD=VALUE puts it, FIELD= takes it away; a cap of `none` too. Raises WrongField."""
    defaults, no_defaults = _fields(form, "defaults")
    pinned, no_pins = _fields(form, "pinned")
    request = admin_pb2.SetModelRuleRequest(
        scope=read_scope(form),
        defaults=defaults,
        pinned=pinned,
        removed_defaults=no_defaults,
        removed_pins=no_pins,
    )
    for name in CAPS:
        if (cap := _cap(form, name)) is not None:
            getattr(request, name).CopyFrom(cap)
    if thinking := form.get("thinking"):
        request.thinking = _one_of("thinking", THINKING, thinking)
    if structured := form.get("structured"):
        request.structured = _one_of("structured", STRUCTURED, structured)
    if not any(name != "scope" for name in (field.name for field, _ in request.ListFields())):
        raise WrongField("", "The rule says nothing yet.")
    return request


def read_fallback(form: Form) -> admin_pb2.SetModelFallbackRequest:
    """Raises WrongField."""
    others = form.many("others")
    if not others:
        raise WrongField("others", "Name at least one model that is asked instead.")
    if any(len(other) > _MOST_NAME or not other.isprintable() for other in others):
        raise WrongField("others", "A model's name is one line.")
    order = form.get("order") or "listed"
    return admin_pb2.SetModelFallbackRequest(
        fallback=admin_pb2.ModelFallback(
            model=model_name(form),
            pool=one_line(form, "pool", 63),
            others=others,
            order=_one_of("order", ORDERS, order),
            after_ms=_after_ms(form),
        )
    )


def read_required(form: Form) -> parts.ChangePoolRequest:
    """What a pool's backends should have: these and no others. Raises WrongField."""
    pool = form.demand("pool", "The pool")
    pull = form.get("pull")
    if pull not in ("", "auto", "never"):
        raise WrongField("pull", "What is missing is pulled (auto), or only told (never).")
    required = form.many("required")
    request = parts.ChangePoolRequest(name=pool, required_models=required)
    if not required:
        request.reset.append("required_models")
    if pull:
        request.pull = pull
    return request


def read_weight(form: Form) -> admin_pb2.SetModelTermsRequest:
    """Raises WrongField."""
    form.demand("weight", "The weight")
    return admin_pb2.SetModelTermsRequest(model=model_name(form), weight_milli=form.weight())


def _fields(form: Form, name: str) -> tuple[dict[str, str], list[str]]:
    """Field → JSON, and those that go. A line each: values may have commas."""
    put, gone = {}, []
    for line in form.get(name).split("\n"):
        if not line.strip():
            continue
        field, sign, value = line.partition("=")
        if not sign or not field.strip():
            raise WrongField(name, f"{line.strip()[:60]!r} is not FIELD=VALUE: write temperature=0.7, a line each.")
        if value.strip():
            put[field.strip()] = as_json_text(value.strip())
        else:
            gone.append(field.strip())
    return put, gone


def _cap(form: Form, name: str) -> admin_pb2.Cap | None:
    if not (text := form.get(name)):
        return None
    return admin_pb2.Cap() if text.lower() == "none" else admin_pb2.Cap(most=form.whole(name, least=1, most=_MOST_CAP))


def _one_of(name: str, words: Mapping[str, T], word: str) -> T:
    if word not in words:
        raise WrongField(name, f"This is one of {', '.join(words)}.")
    return words[word]


def _after_ms(form: Form) -> int | None:
    if not form.get("after"):
        return None
    seconds = form.number("after", least=0.001, most=86_400)
    return max(1, round(seconds * 1000))
