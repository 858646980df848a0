"""`forebay backend`: the engines behind the one address."""

from __future__ import annotations

import time
from typing import TextIO

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, lifecycle_pb2, registry_pb2, types_pb2
from forebay_admin.cli.amounts import MOST_UINT32
from forebay_admin.cli.backends.credential import credential
from forebay_admin.cli.backends.facts import load_in_short
from forebay_admin.cli.backends.found import adopt, found
from forebay_admin.cli.backends.set import set_backend
from forebay_admin.cli.backends.show import show
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.drain import drain_backend, undrain_backend
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured

_KINDS = {
    "auto": types_pb2.ENGINE_KIND_UNSPECIFIED,
    "openai": types_pb2.ENGINE_KIND_OPENAI,
    "ollama": types_pb2.ENGINE_KIND_OLLAMA,
    "vllm": types_pb2.ENGINE_KIND_VLLM,
    "llamacpp": types_pb2.ENGINE_KIND_LLAMACPP,
    "sglang": types_pb2.ENGINE_KIND_SGLANG,
    "anthropic": types_pb2.ENGINE_KIND_ANTHROPIC,
    "gemini": types_pb2.ENGINE_KIND_GEMINI,
    "cohere": types_pb2.ENGINE_KIND_COHERE,
    "azure": types_pb2.ENGINE_KIND_AZURE,
    "openrouter": types_pb2.ENGINE_KIND_OPENROUTER,
}


@click.group()
def backend() -> None:
    """Backends: inference engines that requests are sent to.

    \b
    forebay backend add big-gpu http://10.0.0.5:8000 --slots 16
    forebay backend list
    forebay backend show big-gpu
    forebay backend set big-gpu --slots 8 --label rack=a
    forebay backend model big-gpu llama3.1=meta-llama/Llama-3.1-8B-Instruct
    forebay backend credential add cloud --label second --key-file second.key
    forebay backend found
    forebay backend probe big-gpu
    forebay backend drain big-gpu --deadline 10m --wait
    forebay backend remove big-gpu
    """


backend.add_command(credential)
backend.add_command(found)
backend.add_command(adopt)
backend.add_command(set_backend)
backend.add_command(show)
backend.add_command(drain_backend)
backend.add_command(undrain_backend)


@backend.command(short_help="Add an engine.")
@click.argument("name")
@click.argument("url")
@click.option(
    "--kind",
    type=click.Choice(list(_KINDS)),
    default="auto",
    show_default=True,
    help="Which engine speaks there; auto knows the well-known providers by their hosts, and asks all others.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, MOST_UINT32),
    metavar="N",
    help="Answers that it may write at once; never exceeded. Default: what it says itself, else found by use.",
)
@click.option("--pool", default="", metavar="NAME", help="The pool it belongs to. Default: default.")
@click.option("--node", default="", metavar="NAME", help="The enrolled node that it runs on.")
@click.option(
    "--gpu",
    "gpus",
    type=click.IntRange(0, MOST_UINT32),
    multiple=True,
    metavar="INDEX",
    help="A GPU of that node that it runs on; several times for more. Default: all.",
)
@click.option(
    "--bearer-file",
    type=click.File("r"),
    metavar="FILE",
    help="The engine's own key is in this file (- is standard input). Kept sealed, never shown.",
)
@click.option(
    "--model",
    "models",
    metavar="NAME=ITS_NAME",
    multiple=True,
    help="What it calls the model that the fleet calls NAME. Or NAME alone: it has that, though it does not list it.",
)
@click.option("--replace", is_flag=True, help="Change the backend of this name instead of refusing when there is one.")
@json_option
def add(
    name: str,
    url: str,
    kind: str,
    slots: int | None,
    pool: str,
    node: str,
    gpus: tuple[int, ...],
    bearer_file: TextIO | None,
    models: tuple[str, ...],
    replace: bool,
    as_json: bool,
) -> None:
    """Add the engine at URL (its address without /v1) as the backend NAME.

    \b
    forebay backend add big-gpu http://10.0.0.5:8000 --slots 16
    forebay backend add half http://10.0.0.5:8001 --node gpu-box-1 --gpu 0 --gpu 1
    forebay backend add laptop http://127.0.0.1:11434 --kind ollama
    forebay backend add cloud https://api.example.com --slots 50 --bearer-file cloud.key
    forebay backend add claude https://api.anthropic.com --slots 50 --bearer-file claude.key
    forebay backend add azure https://NAME.openai.azure.com/openai --slots 50 --bearer-file azure.key
    forebay backend add router https://openrouter.ai/api --slots 50 --bearer-file openrouter.key

    With --json: {"backend": {"id", "name", "url", "kind", "slots", "health", "models", …}, "created": true}
    """
    request = admin_pb2.RegisterBackendRequest(
        name=name,
        url=url,
        kind=_KINDS[kind],
        pool=pool,
        slots=slots or 0,
        node=node,
        gpu_indices=gpus,
        replace=replace,
        bearer=bearer_file.read().strip() if bearer_file is not None else "",
        model_names=_names(models),
    )

    async def work(calls: Calls) -> admin_pb2.RegisterBackendResponse:
        return await calls(calls.stub.RegisterBackend, request)

    answer = ask(work)
    if as_json:
        print_json({"backend": plain(answer.backend), "created": answer.created})
        return
    b = answer.backend
    click.echo(
        f"Backend {b.name} {'added' if answer.created else 'changed'}: {b.url}, {_slots(b)} slots, pool {b.pool}."
    )
    health = word(b, "health") or "unknown"
    if health == "unknown":
        click.echo("It is being probed; see: forebay backend list")
    else:
        click.echo(f"It is {health}{f' ({b.health_reason})' if b.health_reason else ''}.")


@backend.command("list")
@json_option
def list_backends(as_json: bool) -> None:
    """List backends with their health and models.

    Slots `up to 64`: nobody said how many it has, so Forebay finds out by use. How many it takes now: forebay queue

    With --json: a list of {"id", "name", "url", "kind", "pool", "slots", "slots_assumed", "health", "health_reason",
    "models", "load", …}
    """

    async def work(calls: Calls) -> admin_pb2.ShowBackendsResponse:
        return await calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest())

    backends = ask(work).backends
    if as_json:
        print_json([plain(b) for b in backends])
        return
    now = time.time()
    print_table(
        ("Name", "Health", "Checked", "Kind", "#Slots", "Load", "Pool", "URL", "Models"),
        (
            (
                escape(b.name),
                _health(b),
                age(b.checked_at_us, now) if b.HasField("checked_at_us") else "not yet",
                word(b, "kind") or "",
                _slots(b),
                load_in_short(b, now),
                escape(b.pool),
                escape(b.url) + (" (with key)" if b.has_credential else ""),
                escape(", ".join(f"{m.name} ({m.engine_name})" if m.engine_name else m.name for m in b.models))
                or "none yet",
            )
            for b in backends
        ),
        nothing="No backends. Add one with: forebay backend add NAME URL",
    )


@backend.command("model", short_help="Say what an engine calls the fleet's models.")
@click.argument("name")
@click.argument("models", nargs=-1, metavar="[MODEL=ITS_NAME]...")
@click.option("--remove", "removed", metavar="MODEL", multiple=True, help="It has no name of its own there any more.")
@json_option
def name_models(name: str, models: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Say what the backend NAME calls models that have another name in the fleet, so that one queue serves a model over
    engines that call it differently. A model that is given a name is known by that alone. A provider's models can be named
    though it does not list them.

    \b
    forebay backend model big-gpu llama3.1=meta-llama/Llama-3.1-8B-Instruct
    forebay backend model laptop llama3.1=llama3.1:8b
    forebay backend model azure gpt-4o=my-deployment gpt-4o-mini=my-other-deployment
    forebay backend model laptop --remove llama3.1

    With --json: {"backend": {…, "model_names": {"llama3.1": "llama3.1:8b"}}}
    """
    request = admin_pb2.NameBackendModelsRequest(name=name, put=_names(models), removed=removed)

    async def work(calls: Calls) -> admin_pb2.NameBackendModelsResponse:
        return await calls(calls.stub.NameBackendModels, request)

    changed = ask(work).backend
    if as_json:
        print_json({"backend": plain(changed)})
        return
    named = ", ".join(f"{model} is {its}" for model, its in sorted(changed.model_names.items()))
    click.echo(f"At {changed.name}, {named}." if named else f"{changed.name} has no names of its own for models.")


@backend.command(short_help="Look at one backend now.")
@click.argument("name")
@json_option
def probe(name: str, as_json: bool) -> None:
    """Look at the backend NAME now, and not when its turn comes, and say how it is.

    With --json: {"backend": {…}, "looked": true}; looked is false while its answer is still awaited
    """

    async def work(calls: Calls) -> lifecycle_pb2.LookNowResponse:
        return await calls(calls.stub.ProbeBackend, lifecycle_pb2.LookNowRequest(name=name))

    answer = ask(work)
    if as_json:
        print_json({"backend": plain(answer.backend), "looked": answer.looked})
        return
    health, reason = word(answer.backend, "health") or "unknown", answer.backend.health_reason
    awaited = "" if answer.looked else " Its answer to this look is still awaited."
    click.echo(f"{name} is {health}{f': {reason}' if reason else '.'}{awaited}")


@backend.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove the backend NAME. What runs on it may finish; nothing new is sent there. Its keys are forgotten.

    With --json: {"backend": {…}}
    """

    async def work(calls: Calls) -> admin_pb2.UnregisterBackendResponse:
        return await calls(calls.stub.UnregisterBackend, admin_pb2.UnregisterBackendRequest(name=name))

    removed = ask(work).backend
    if as_json:
        print_json({"backend": plain(removed)})
        return
    click.echo(f"Backend {removed.name} ({removed.url}) is removed.")


def _names(told: tuple[str, ...]) -> dict[str, str]:
    """In the fleet → at the engine. Raises BadInput."""
    names: dict[str, str] = {}
    for text in told:
        model, sign, at_engine = text.partition("=")
        if not model.strip() or (sign and not at_engine.strip()):
            raise BadInput(f"{text!r} is not NAME=ITS_NAME: write llama3.1=meta-llama/Llama-3.1-8B-Instruct.")
        names[model.strip()] = at_engine.strip() or model.strip()
    return names


def _slots(b: registry_pb2.Backend) -> str:
    return f"up to {b.slots}" if b.slots_assumed else str(b.slots)


def _health(b: registry_pb2.Backend) -> str:
    health = coloured(word(b, "health") or "unknown")
    return f"{health}: {escape(b.health_reason)}" if b.health_reason else health
