"""Between the library's own words and the messages that others read. Nothing is decided here."""

from __future__ import annotations

from forebay.clock import micros
from forebay.errors import BadInput
from forebay.wire.v1 import library_pb2 as wire
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Choice, Passed, has
from forebay_registry.library.job import Action, Job, State, Target
from forebay_registry.library.names import is_same
from forebay_registry.library.ollama import Description
from forebay_registry.library.order import Order
from forebay_registry.library.store import Pin

_ACTIONS = {
    Action.PULL: wire.MODEL_ACTION_PULL,
    Action.DELETE: wire.MODEL_ACTION_DELETE,
    Action.COPY: wire.MODEL_ACTION_COPY,
    Action.PRELOAD: wire.MODEL_ACTION_PRELOAD,
    Action.UNLOAD: wire.MODEL_ACTION_UNLOAD,
}
_ACTIONS_BACK = {number: action for action, number in _ACTIONS.items()}
_STATES = {
    State.WAITING: wire.MODEL_JOB_STATE_WAITING,
    State.RUNNING: wire.MODEL_JOB_STATE_RUNNING,
    State.DONE: wire.MODEL_JOB_STATE_DONE,
    State.FAILED: wire.MODEL_JOB_STATE_FAILED,
    State.CANCELLED: wire.MODEL_JOB_STATE_CANCELLED,
}


def read_order(request: wire.StartModelJobRequest) -> Order:
    """Raises BadInput."""
    action = _ACTIONS_BACK.get(request.action)
    if action is None:
        raise BadInput("Say what is to be done: pull, delete, copy, preload or unload.")
    return Order(
        actor=request.actor,
        action=action,
        model=request.model,
        on=read_choice(request.on),
        destination=request.destination,
        source=request.source,
        keep_alive=request.keep_alive,
        force=request.force,
    )


def read_choice(on: wire.BackendChoice) -> Choice:
    return Choice(tuple(on.backends), on.pool, on.node, on.all)


def to_job(job: Job) -> wire.ModelJob:
    return wire.ModelJob(
        id=job.id,
        action=_ACTIONS[job.action],
        model=job.model,
        destination=job.destination,
        source=job.source,
        actor=job.actor,
        state=_STATES[job.state],
        created_at_us=micros(job.created_at),
        ended_at_us=_micros(job.ended_at),
        targets=[_to_target(target) for target in job.targets],
    )


def to_passed(passed: Passed) -> wire.PassedOver:
    return wire.PassedOver(backend=passed.backend, why=passed.why)


def to_pin(pin: Pin, view: View | None) -> wire.ModelPin:
    models = view.models if view is not None and has(view, pin.model) else ()
    return wire.ModelPin(
        backend_id=pin.backend_id,
        backend=view.name if view is not None else "",
        model=pin.model,
        pinned_at_us=micros(pin.pinned_at),
        pinned_by=pin.pinned_by,
        loaded=next((m.loaded for m in models if is_same(m.name, pin.model)), None),
    )


def to_description(backend: str, engine_name: str, told: Description) -> wire.ModelDescription:
    return wire.ModelDescription(
        backend=backend,
        engine_name=engine_name,
        family=told.family,
        format=told.format,
        parameter_size=told.parameter_size,
        quantization=told.quantization,
        context_length=told.context_length,
        capabilities=told.capabilities,
        parameters=told.parameters,
        template=told.template,
        system=told.system,
        license=told.license,
        modified_at=told.modified_at,
    )


def _to_target(target: Target) -> wire.ModelJobTarget:
    return wire.ModelJobTarget(
        backend_id=target.backend_id,
        backend=target.backend,
        state=_STATES[target.state],
        status=target.status,
        completed_bytes=target.completed_bytes,
        total_bytes=target.total_bytes,
        attempts=target.attempts,
        error=target.error,
        note=target.note,
        load_ms=target.load_ms,
        warmup_ms=target.warmup_ms,
        started_at_us=_micros(target.started_at),
        ended_at_us=_micros(target.ended_at),
    )


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else micros(seconds)
