"""`forebay backend set`: how one backend is wanted."""

from __future__ import annotations

import click

from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay_admin.cli.amounts import MOST_UINT32
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.parts import base_option, label_option, parse_labels, reset_option, tell
from forebay_admin.cli.output import json_option


@click.command("set", short_help="Change how one backend is wanted.")
@click.argument("name")
@click.option(
    "--url", metavar="URL", help="Its address without /v1. One that has a key is moved with backend add --replace."
)
@click.option("--kind", metavar="KIND", help="Which engine speaks there: vllm, ollama, llamacpp …")
@click.option("--pool", metavar="NAME", help="The pool it belongs to.")
@click.option("--node", metavar="NAME", help="The node that it runs on.")
@click.option(
    "--gpu",
    "gpus",
    type=click.IntRange(0, MOST_UINT32),
    multiple=True,
    metavar="INDEX",
    help="A GPU of that node that it runs on, and no other; several times for more.",
)
@click.option("--slots", type=click.IntRange(1, MOST_UINT32), metavar="N", help="Answers that it may write at once.")
@click.option("--weight", type=float, metavar="X", help="Its share with the placement weighted; else its slots are.")
@click.option(
    "--kv-tokens", type=click.IntRange(1, 2**63 - 1), metavar="N", help="Tokens that fit in its cache at once."
)
@click.option("--requests-per-minute", type=click.IntRange(1, MOST_UINT32), metavar="N", help="The cap of a provider.")
@click.option(
    "--models-at-once", type=click.IntRange(1, MOST_UINT32), metavar="N", help="Models that it keeps in memory."
)
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is to be used at all.")
@label_option
@reset_option("weight, slots, node, labels or labels.rack")
@base_option
@json_option
def set_backend(
    name: str,
    url: str | None,
    kind: str | None,
    pool: str | None,
    node: str | None,
    gpus: tuple[int, ...],
    slots: int | None,
    weight: float | None,
    kv_tokens: int | None,
    requests_per_minute: int | None,
    models_at_once: int | None,
    enabled: bool | None,
    labels: tuple[str, ...],
    reset: tuple[str, ...],
    base_version: int | None,
    as_json: bool,
) -> None:
    """Change how the backend NAME is wanted. What is not named stays as it is; what is reset is as usual again.

    \b
    forebay backend set big-gpu --slots 16 --weight 2
    forebay backend set big-gpu --label rack=a --reset labels.row
    forebay backend set big-gpu --pool night --disable
    forebay backend set big-gpu --reset slots          as many as its engine says, else found by use

    One that was found by itself is yours from then on. One that stands in the registry's forebay.toml is changed there.
    To send it nothing new for a while: forebay backend drain

    With --json: {"backend": {"name", "url", "slots", "weight", …}, "version", "changes": [{"kind", "name", "what",
    "fields"}]}
    """
    request = wire.ChangeBackendRequest(
        name=name,
        url=url,
        kind=kind,
        pool=pool,
        node=node,
        gpu_indices=gpus,
        slots=slots,
        weight=weight,
        kv_tokens=kv_tokens,
        requests_per_minute=requests_per_minute,
        models_at_once=models_at_once,
        enabled=enabled,
        labels=parse_labels(labels),
        reset=reset,
        base_version=base_version,
    )

    async def work(calls: Calls) -> wire.ChangeBackendResponse:
        return await calls(calls.stub.ChangeBackend, request)

    answer = ask(work)
    tell(answer, "backend", answer.backend, as_json=as_json)
