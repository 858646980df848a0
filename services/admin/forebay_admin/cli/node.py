"""`forebay node`: machines whose agents report GPUs and load."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, registry_pb2, telemetry_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, ahead, coloured, gigabytes, moment, parse_duration

_SILENT_AFTER_S = 15.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.group(short_help="Nodes: hosts whose agents report GPUs and load.")
def node() -> None:
    """Nodes: hosts with an agent that reports GPUs, memory and load every two seconds.

    \b
    forebay node enroll gpu-box-1      prints a command to paste on that machine
    forebay node list
    """


@node.command(short_help="Print a command that makes a machine a node.")
@click.argument("name")
@click.option(
    "--valid", default="1h", show_default=True, metavar="TIME", help="How long the command may be used: 10m, 1h, 7d."
)
@json_option
def enroll(name: str, valid: str, as_json: bool) -> None:
    """Print a command that makes the machine where it is pasted the node NAME. It works once.

    It needs curl and Python 3.11 there, installs the agent in a folder of its own (as root /var/lib/forebay-agent, else
    ~/.local/share/forebay-agent) and starts it. NAME is letters, digits and hyphens.

    \b
    forebay node enroll gpu-box-1
    forebay node enroll gpu-box-1 --valid 10m --json | jq -r .command

    With --json: {"command": "curl …", "valid_until": "…"}
    """
    valid_s = round(parse_duration(valid).total_seconds())

    async def work(calls: Calls) -> admin_pb2.InviteNodeResponse:
        return await calls(calls.stub.InviteNode, admin_pb2.InviteNodeRequest(name=name, valid_s=valid_s))

    invited = ask(work)
    if as_json:
        print_json({"command": invited.command, "valid_until": moment(invited.valid_until_us)})
        return
    left = ahead(invited.valid_until_us, time.time())
    click.echo(f"Paste this on {name}, once; it expires {left} ({moment(invited.valid_until_us)}):")
    click.echo(f"\n  {invited.command}\n")
    if any(f"//{host}" in invited.command for host in _LOOPBACK):
        click.echo("It works on this machine only. For other machines, start Forebay with: forebay up --listen ADDRESS")


@node.command("list")
@json_option
def list_nodes(as_json: bool) -> None:
    """List nodes with what their agents said last.

    With --json: a list of {"id", "name", "enrolled_at", "heard_at", "last_sample": {"host", "gpu_state", "gpus", …}, …}
    """

    async def work(calls: Calls) -> admin_pb2.ShowNodesResponse:
        return await calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest())

    nodes = ask(work).nodes
    if as_json:
        print_json([plain(n) for n in nodes])
        return
    now = time.time()
    print_table(
        ("Name", "Heard", "CPU", "Memory free", "Disk free", "GPUs"),
        ((escape(n.name), _heard(n, now), *_host(n), _gpus(n.last_sample)) for n in nodes),
        nothing="No nodes. Enrol one with: forebay node enroll NAME",
    )


def _heard(n: registry_pb2.Node, now: float) -> str:
    if not n.HasField("heard_at_us"):
        return coloured("silent")
    told = age(n.heard_at_us, now)
    return told if now - n.heard_at_us / 1_000_000 < _SILENT_AFTER_S else f"[yellow]{told}[/yellow]"


def _host(n: registry_pb2.Node) -> tuple[str, str, str]:
    host = n.last_sample.host
    if not n.HasField("last_sample"):
        return "", "", ""
    used = f" {host.cpu_percent:.0f} %" if host.HasField("cpu_percent") else ""
    return (
        f"{host.cpu_count}×{used}",
        f"{gigabytes(host.memory_available_bytes)} of {gigabytes(host.memory_total_bytes)}",
        f"{gigabytes(host.disk_free_bytes)} of {gigabytes(host.disk_total_bytes)}",
    )


def _gpus(sample: telemetry_pb2.TelemetrySample) -> str:
    if not sample.gpus:
        return escape(sample.gpu_message)
    return "\n".join(_gpu(gpu) for gpu in sample.gpus)


def _gpu(gpu: telemetry_pb2.GpuSample) -> str:
    if gpu.error:
        return f"{escape(gpu.name or gpu.uuid)} [red]{escape(gpu.error)}[/red]"
    told = [escape(gpu.name)]
    if gpu.HasField("utilization_percent"):
        told.append(f"{gpu.utilization_percent} %")
    if gpu.HasField("memory_used_bytes") and gpu.HasField("memory_total_bytes"):
        told.append(f"{gigabytes(gpu.memory_used_bytes)} of {gigabytes(gpu.memory_total_bytes)}")
    if gpu.HasField("temperature_c"):
        told.append(f"{gpu.temperature_c} °C")
    return ", ".join(told)
