"""`forebay node`: machines whose agents report GPUs and load."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.drain import drain_node, undrain_node
from forebay_admin.cli.nodes.orders import command, discovery
from forebay_admin.cli.nodes.picture import (
    GPU_COLUMNS,
    LIST_COLUMNS,
    MIG_COLUMNS,
    PROCESS_COLUMNS,
    gpu_row,
    list_row,
    mig_rows,
    node_rows,
    problems,
    process_rows,
)
from forebay_admin.cli.nodes.set import set_node
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import ahead, moment, parse_duration

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.group(short_help="Nodes: hosts whose agents report GPUs and load.")
def node() -> None:
    """Nodes: hosts with an agent that reports GPUs, memory and load, every two seconds while a GPU works.

    \b
    forebay node enroll gpu-box-1      prints a command to paste on that machine
    forebay node list
    forebay node show gpu-box-1
    forebay node set gpu-box-1 --label rack=a
    forebay node command gpu-box-1 probe
    forebay node drain gpu-box-1 --deadline 10m --wait
    """


node.add_command(command)
node.add_command(discovery)
node.add_command(set_node)
node.add_command(drain_node)
node.add_command(undrain_node)


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
    """List nodes with what their agents said last, and how many of their samples were not taken.

    With --json: a list of {"id", "name", "enrolled_at", "heard_at", "last_sample": {"host", "gpu_state", "gpus", …},
    "samples_dropped": [{"reason", "samples", "last_at"}], …}
    """

    async def work(calls: Calls) -> admin_pb2.ShowNodesResponse:
        return await calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest())

    nodes = ask(work).nodes
    if as_json:
        print_json([plain(n) for n in nodes])
        return
    now = time.time()
    print_table(
        LIST_COLUMNS,
        (list_row(n, now) for n in nodes),
        nothing="No nodes. Enrol one with: forebay node enroll NAME",
    )
    troubled = [(escape(n.name), problems(n)) for n in nodes if n.problems]
    if troubled:
        print_table(("Name", "Problems"), troubled, nothing="")


@node.command(short_help="Show one node: its host, its GPUs and what is wrong with it.")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the agent of the node NAME said last. What its host or its driver does not tell is left out.

    \b
    forebay node show gpu-box-1

    With --json: {"node": {"name", "heard_at", "clock_skew_ms", "problems", "last_sample": {"host", "gpus", …}, …}}
    """

    async def work(calls: Calls) -> admin_pb2.ShowNodesResponse:
        return await calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest())

    found = next((n for n in ask(work).nodes if n.name == name), None)
    if found is None:
        raise NotFound(f"There is no node {name}; see: forebay node list")
    if as_json:
        print_json({"node": plain(found)})
        return
    gpus = found.last_sample.gpus
    print_table(("", ""), node_rows(found, time.time()), nothing="")
    for columns, rows in (
        (GPU_COLUMNS, [gpu_row(gpu) for gpu in gpus]),
        (MIG_COLUMNS, list(mig_rows(gpus))),
        (PROCESS_COLUMNS, list(process_rows(gpus))),
    ):
        if rows:
            print_table(columns, rows, nothing="")
