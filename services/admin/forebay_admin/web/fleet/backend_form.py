"""A backend as a form says it: one that is to be added, one whose fields were changed, what it calls its models. Pure.

Of one that is changed only the fields count that somebody changed on the page: beside each stands what it was (`was-NAME`),
so that what others changed meanwhile stays."""

from __future__ import annotations

import math

from forebay.wire.v1 import admin_pb2, discovery_pb2, types_pb2
from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay_admin.web.fleet.orders_form import one_line
from forebay_admin.web.forms import Form, WrongField

MOST_UINT32 = 2**32 - 1
KINDS = {
    "": types_pb2.ENGINE_KIND_UNSPECIFIED,
    **{
        name.removeprefix("ENGINE_KIND_").lower(): number
        for name, number in types_pb2.EngineKind.items()
        if number != types_pb2.ENGINE_KIND_UNSPECIFIED
    },
}
"""Empty: found out by asking."""

_TEXTS = ("url", "kind", "pool", "node")
_NUMBERS = {
    "slots": MOST_UINT32,
    "kv_tokens": 2**53,
    "requests_per_minute": MOST_UINT32,
    "models_at_once": MOST_UINT32,
}
FIELDS = (*_TEXTS, "gpus", "weight", *_NUMBERS, "labels")
"""That can be changed, as forms name them."""


def read_new(form: Form) -> admin_pb2.RegisterBackendRequest:
    """Raises WrongField."""
    kind = form.get("kind")
    if kind not in KINDS:
        raise WrongField("kind", f"There are {', '.join(name for name in KINDS if name)}.")
    form.demand("name", "A name")
    form.demand("url", "Its address")
    return admin_pb2.RegisterBackendRequest(
        name=one_line(form, "name", 63),
        url=one_line(form, "url", 2000),
        kind=KINDS[kind],
        pool=one_line(form, "pool", 63),
        slots=form.whole("slots", 0, most=10_000),
        node=one_line(form, "node", 64),
        gpu_indices=_gpus(form),
        replace=form.is_ticked("replace"),
        bearer=form.raw("bearer").strip(),
        model_names=_model_names(form),
    )


def read_change(form: Form, name: str) -> wire.ChangeBackendRequest:
    """Raises WrongField, also where nothing was changed."""
    changed = [field for field in FIELDS if form.get(field) != form.get(f"was-{field}")]
    if not changed:
        raise WrongField("", "Nothing was changed.")
    request = wire.ChangeBackendRequest(name=name)
    for field in changed:
        _put(request, form, field)
    return request


def read_node_change(form: Form, node: str) -> wire.ChangeNodeRequest:
    """Raises WrongField, also where nothing was changed."""
    put, gone = changed_labels(form)
    request = wire.ChangeNodeRequest(name=node, labels=put, reset=[f"labels.{label}" for label in gone])
    note = one_line(form, "note", 500)
    if note and note != form.get("was-note"):
        request.note = note
    elif not note and form.get("was-note"):
        request.reset.append("note")
    if not (request.labels or request.reset or request.note):
        raise WrongField("", "Nothing was changed.")
    return request


def read_named_model(form: Form, backend: str) -> admin_pb2.NameBackendModelsRequest:
    """Raises WrongField."""
    model = form.demand("model", "The model's name in the fleet")
    one_line(form, "model", 500)
    return admin_pb2.NameBackendModelsRequest(name=backend, put={model: one_line(form, "its_name", 500) or model})


def read_adoption(form: Form) -> discovery_pb2.AdoptBackendRequest:
    """Raises WrongField."""
    return discovery_pb2.AdoptBackendRequest(
        name=form.demand("name", "What was found"),
        as_name=one_line(form, "as_name", 63),
        pool=one_line(form, "pool", 63),
        slots=form.whole("slots", 0, most=10_000),
    )


def read_credential(form: Form, backend: str) -> admin_pb2.AddBackendCredentialRequest:
    """Raises WrongField."""
    bearer = form.raw("bearer").strip()
    if not bearer:
        raise WrongField("bearer", "The key is missing.")
    replace = form.is_ticked("replace")
    if replace and not form.get("label"):
        raise WrongField("label", "Say which one it is put in the place of.")
    return admin_pb2.AddBackendCredentialRequest(
        backend=backend, label=one_line(form, "label", 63), bearer=bearer, replace=replace
    )


def read_labels(form: Form, name: str = "labels") -> dict[str, str]:
    """A line each, NAME=VALUE. Raises WrongField."""
    labels = {}
    for line in form.many(name):
        label, sign, value = line.partition("=")
        if not sign or not label.strip():
            raise WrongField(name, f"{line[:60]!r} is not NAME=VALUE: write rack=a, a line each.")
        labels[label.strip()] = value.strip()
    return labels


def changed_labels(form: Form, name: str = "labels") -> tuple[dict[str, str], list[str]]:
    """Those that are new or others, and those that are gone. Raises WrongField."""
    wanted = read_labels(form, name)
    before = read_labels(Form([(name, form.get(f"was-{name}"))]), name)
    return (
        {label: value for label, value in wanted.items() if before.get(label) != value},
        [label for label in before if label not in wanted],
    )


def _put(request: wire.ChangeBackendRequest, form: Form, field: str) -> None:
    text = form.get(field)
    if field == "labels":
        put, gone = changed_labels(form)
        request.labels.update(put)
        request.reset.extend(f"labels.{label}" for label in gone)
    elif field == "url":
        form.demand("url", "Its address")
        request.url = one_line(form, "url", 2000)
    elif not text:
        request.reset.append("gpu_indices" if field == "gpus" else field)
    elif field == "gpus":
        request.gpu_indices.extend(_gpus(form))
    elif field == "weight":
        request.weight = _weight(form)
    elif field in _NUMBERS:
        setattr(request, field, form.whole(field, least=1, most=_NUMBERS[field]))
    else:
        setattr(request, field, one_line(form, field))


def _weight(form: Form) -> float:
    weight = form.number("weight", most=1000)
    if not math.isfinite(weight) or weight <= 0:
        raise WrongField("weight", "A weight is more than 0; to send it nothing, drain it.")
    return weight


def _gpus(form: Form) -> list[int]:
    found = []
    for text in form.many("gpus"):
        if not (text.isascii() and text.isdigit()) or int(text[:12]) > 4095:
            raise WrongField("gpus", "GPUs are numbers of the node's, such as 0, 1.")
        found.append(int(text))
    return found


def _model_names(form: Form) -> dict[str, str]:
    """In the fleet → at the engine."""
    names = {}
    for line in form.many("models"):
        model, sign, its_name = line.partition("=")
        if not model.strip() or (sign and not its_name.strip()):
            raise WrongField("models", f"{line[:60]!r} is not NAME=ITS_NAME, a line each.")
        names[model.strip()] = its_name.strip() or model.strip()
    return names
