"""`forebay model pull` and its kin: models on the engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.markup import escape

from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.models.jobs import finish, watch
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, count

F = TypeVar("F", bound=Callable[..., Any])


def _where(command: F) -> F:
    """The options that say on which backends; exactly one of them is needed."""
    for option in (
        click.option("--all", "everywhere", is_flag=True, help="On every backend whose engine can."),
        click.option("--node", default="", metavar="NAME", help="On those of this node."),
        click.option("--pool", default="", metavar="NAME", help="On those of this pool."),
        click.option(
            "--backend", "backends", multiple=True, metavar="NAME", help="On this one; several times for more."
        ),
    ):
        command = option(command)
    return command


_detach = click.option("--detach", is_flag=True, help="Do not wait; see: forebay model jobs")


@click.command(short_help="Fetch a model to Ollama engines.")
@click.argument("model")
@_where
@click.option("--force", is_flag=True, help="Also where the disk may not have room for it.")
@_detach
@json_option
def pull(model: str, force: bool, detach: bool, as_json: bool, **where: Any) -> None:
    """Fetch MODEL to Ollama backends, to all of them at once. It goes on when this command is interrupted.

    \b
    forebay model pull llama3.1:8b --pool default
    forebay model pull llama3.1:8b --backend one --backend two --detach
    forebay model job ID --follow

    With --json: the job as in `forebay model jobs --json`, one object a line whenever it changes
    """
    order = wire.StartModelJobRequest(action=wire.MODEL_ACTION_PULL, model=model, on=_choice(where), force=force)
    _carry_out(order, detach=detach, as_json=as_json)


@click.command(short_help="Delete a model from Ollama engines.")
@click.argument("model")
@_where
@_detach
@json_option
def delete(model: str, detach: bool, as_json: bool, **where: Any) -> None:
    """Delete MODEL from the disks of Ollama backends.

    With --json: the job as in `forebay model jobs --json`, one object a line whenever it changes
    """
    order = wire.StartModelJobRequest(action=wire.MODEL_ACTION_DELETE, model=model, on=_choice(where))
    _carry_out(order, detach=detach, as_json=as_json)


@click.command(short_help="Give a model a second name on Ollama engines.")
@click.argument("model")
@click.argument("destination")
@_where
@_detach
@json_option
def copy(model: str, destination: str, detach: bool, as_json: bool, **where: Any) -> None:
    """Copy MODEL to DESTINATION on the Ollama backends that have it; the data is not doubled.

    With --json: the job as in `forebay model jobs --json`, one object a line whenever it changes
    """
    order = wire.StartModelJobRequest(
        action=wire.MODEL_ACTION_COPY, model=model, destination=destination, on=_choice(where)
    )
    _carry_out(order, detach=detach, as_json=as_json)


@click.command(short_help="Load a model into memory and warm it up.")
@click.argument("model")
@_where
@click.option("--keep-alive", default="", metavar="TIME", help="How long it stays (Ollama): 30m, 2h, -1 for ever.")
@click.option(
    "--from", "source", default="", metavar="WHERE", help="Of a LoRA adapter: owner/repository or a path there."
)
@_detach
@json_option
def preload(model: str, keep_alive: str, source: str, detach: bool, as_json: bool, **where: Any) -> None:
    """Load MODEL into the engines' memory now, and let each write one word, so that no user waits for it. For Ollama,
    llama.cpp's router, and LoRA adapters on vLLM and SGLang.

    \b
    forebay model preload llama3.1:8b --pool default --keep-alive 2h
    forebay model preload sql --backend big-gpu --from team/llama-sql-lora

    With --json: the job as in `forebay model jobs --json`, one object a line whenever it changes
    """
    order = wire.StartModelJobRequest(
        action=wire.MODEL_ACTION_PRELOAD, model=model, on=_choice(where), keep_alive=keep_alive, source=source
    )
    _carry_out(order, detach=detach, as_json=as_json)


@click.command(short_help="Let a model out of memory.")
@click.argument("model")
@_where
@_detach
@json_option
def unload(model: str, detach: bool, as_json: bool, **where: Any) -> None:
    """Let MODEL go from the engines' memory; its files stay.

    With --json: the job as in `forebay model jobs --json`, one object a line whenever it changes
    """
    order = wire.StartModelJobRequest(action=wire.MODEL_ACTION_UNLOAD, model=model, on=_choice(where))
    _carry_out(order, detach=detach, as_json=as_json)


@click.command(short_help="What the engines say of a model.")
@click.argument("model")
@_where
@json_option
def show(model: str, as_json: bool, **where: Any) -> None:
    """Show what the backends that have MODEL say of it.

    With --json: a list of {"backend", "error", "engine_name", "family", "format", "parameter_size", "quantization",
    "context_length", "capabilities", "parameters", "template", "system", "license", "modified_at"}
    """

    async def work(calls: Calls) -> wire.DescribeModelResponse:
        return await calls(calls.stub.DescribeModel, wire.DescribeModelRequest(model=model, on=_choice(where)))

    found = ask(work).models
    if as_json:
        print_json([plain(one) for one in found])
        return
    print_table(
        ("Backend", "Called", "Family", "Size", "Quantised", "#Context", "Can", "License"),
        (
            (
                escape(one.backend),
                escape(one.engine_name),
                escape(one.family),
                escape(one.parameter_size),
                escape(one.quantization),
                count(one.context_length) if one.HasField("context_length") else "",
                escape(", ".join(one.capabilities)),
                escape(one.error or one.license[:60]),
            )
            for one in found
        ),
        nothing="No backend has it.",
    )


@click.command(short_help="Keep a model loaded.")
@click.argument("model")
@_where
@json_option
def pin(model: str, as_json: bool, **where: Any) -> None:
    """Keep MODEL in the memory of Ollama backends: it is loaded now, and again whenever it is not.

    With --json: {"before": [pins], "after": [{"backend", "model", "pinned_at", "pinned_by", "loaded"}], "passed_over": […]}
    """
    _pin(wire.PinModelRequest(model=model, on=_choice(where)), as_json)


@click.command(short_help="Keep a model loaded no longer.")
@click.argument("model")
@_where
@json_option
def unpin(model: str, as_json: bool, **where: Any) -> None:
    """Keep MODEL loaded no longer. It goes when it has not been used for some minutes.

    With --json: as `forebay model pin`
    """
    _pin(wire.PinModelRequest(model=model, on=_choice(where), undo=True), as_json)


@click.command()
@json_option
def pins(as_json: bool) -> None:
    """List the models that are kept loaded.

    With --json: a list of {"backend", "backend_id", "model", "pinned_at", "pinned_by", "loaded"}
    """

    async def work(calls: Calls) -> wire.ListModelPinsResponse:
        return await calls(calls.stub.ListModelPins, wire.ListModelPinsRequest())

    found = ask(work).pins
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Model", "Backend", "Loaded", "By", "Since"),
        (
            (
                escape(one.model),
                escape(one.backend),
                ("yes" if one.loaded else "no") if one.HasField("loaded") else "not told",
                escape(one.pinned_by),
                age(one.pinned_at_us, now),
            )
            for one in found
        ),
        nothing="No model is pinned. Pin one with: forebay model pin MODEL --backend NAME",
    )


def _pin(request: wire.PinModelRequest, as_json: bool) -> None:
    async def work(calls: Calls) -> wire.PinModelResponse:
        return await calls(calls.stub.PinModel, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    _tell_passed(answer.passed_over)
    names = sorted(p.backend for p in (answer.before if request.undo else answer.after))
    state = "is pinned no longer" if request.undo else "is pinned"
    click.echo(f"{request.model} {state} on {', '.join(names)}.")


def _carry_out(order: wire.StartModelJobRequest, *, detach: bool, as_json: bool) -> None:
    async def work(calls: Calls) -> wire.ModelJob:
        begun = await calls(calls.stub.StartModelJob, order)
        if not as_json:
            _tell_passed(begun.passed_over)
            click.echo(f"Job {begun.job.id} has begun; it goes on by itself. See: forebay model jobs", err=True)
        if detach:
            return begun.job
        return await watch(calls, begun.job.id, as_json=as_json)

    job = ask(work)
    if not detach:
        finish(job, as_json=as_json)
    elif as_json:
        print_json(plain(job))


def _tell_passed(passed: Any) -> None:
    for one in passed:
        click.echo(f"Passed over: {one.backend} {one.why}.", err=True)


def _choice(where: dict[str, Any]) -> wire.BackendChoice:
    return wire.BackendChoice(
        backends=where["backends"], pool=where["pool"], node=where["node"], all=where["everywhere"]
    )
