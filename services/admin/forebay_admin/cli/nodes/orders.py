"""`forebay node command` and `discovery`: what a node's agent is to do, and what is done with the engines that it finds."""

from __future__ import annotations

import sys

import click

from forebay.errors import BadInput, ForebayError, NotPossible
from forebay.wire.v1 import commands_pb2, discovery_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import gigabytes

_ORDERS = ("probe", "sample", "pull", "delete")
_POLICIES = {
    "usual": discovery_pb2.DISCOVERY_POLICY_UNSPECIFIED,
    "suggest": discovery_pb2.DISCOVERY_POLICY_SUGGEST,
    "auto": discovery_pb2.DISCOVERY_POLICY_AUTO,
    "off": discovery_pb2.DISCOVERY_POLICY_OFF,
}


@click.command(short_help="Have a node's agent do something.")
@click.argument("node")
@click.argument("order", type=click.Choice(_ORDERS))
@click.argument("model", default="")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the Ollama, where the node has several.")
@json_option
def command(node: str, order: str, model: str, port: int | None, as_json: bool) -> None:
    """Have the agent of NODE do ORDER, and show its answer. The command is signed, works once and within half a minute, and
    is written to the audit log. An agent does only what its setting `commands` allows; delete is not among the usual.

    \b
    forebay node command gpu-box-1 probe                open the GPUs' driver anew, look for engines at once
    forebay node command gpu-box-1 sample               tell at once what the GPUs are doing
    forebay node command gpu-box-1 pull llama3.1:8b     into the Ollama on that node, even one that listens there only
    forebay node command gpu-box-1 delete llama3.1:8b

    With --json: {"node", "id", "state": "done", "reason", "message", "done_bytes", "total_bytes"}
    """
    if (order in ("pull", "delete")) != bool(model):
        raise BadInput(f"Name the model to {order}." if not model else f"{order} takes no model.")
    request = _request(node, order, model, port or 0)
    shows = not as_json and sys.stderr.isatty()

    async def work(calls: Calls) -> commands_pb2.NodeCommandAnswer:
        last = commands_pb2.NodeCommandAnswer()
        async for told in calls.stream(calls.stub.CommandNode, request):
            last = told.answer
            if shows and last.state == commands_pb2.COMMAND_STATE_RUNNING and last.message:
                click.echo(f"\r\x1b[K{_progress(last)}", err=True, nl=False)
        if shows:
            click.echo("\r\x1b[K", err=True, nl=False)
        return last

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
    if answer.state != commands_pb2.COMMAND_STATE_DONE:
        raise _failure(answer)
    if not as_json:
        click.echo(f"{node}: {answer.message}")


@click.command(short_help="Say where a node is, and what is done with engines there.")
@click.argument("node")
@click.option("--policy", type=click.Choice(list(_POLICIES)), help="Found engines are suggested, added, or left alone.")
@click.option("--pool", metavar="NAME", help="The pool of what is added by itself; '' for default.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST",
    help="Where the node is reached; again for others, best first.",
)
@click.option("--forget-addresses", is_flag=True, help="Back to the address that it joined from.")
@json_option
def discovery(
    node: str, policy: str | None, pool: str | None, addresses: tuple[str, ...], forget_addresses: bool, as_json: bool
) -> None:
    """Say where NODE is reached, and what is done with the engines that its agent finds there; without options, show it.

    An agent tells at which ports engines listen, never at which host: that is what is said here, else the address that the
    node joined from.

    \b
    forebay node discovery gpu-box-1 --policy auto --pool research
    forebay node discovery gpu-box-1 --address 10.0.0.5

    With --json: {"node", "policy", "pool", "addresses", "joined_from"}
    """
    if addresses and forget_addresses:
        raise BadInput("Give either --address or --forget-addresses.")
    request = discovery_pb2.SetNodeDiscoveryRequest(
        node=node,
        policy=_POLICIES[policy] if policy is not None else None,
        pool=pool,
        addresses=discovery_pb2.Addresses(all=addresses) if addresses or forget_addresses else None,
    )

    async def work(calls: Calls) -> discovery_pb2.SetNodeDiscoveryResponse:
        return await calls(calls.stub.SetNodeDiscovery, request)

    after = ask(work).after
    if as_json:
        print_json(plain(after))
        return
    where = ", ".join(after.addresses) or (
        f"{after.joined_from}, where it joined from" if after.joined_from else "not known"
    )
    click.echo(f"Node {after.node}: engines that are found there are {_what(after)}; pool {after.pool or 'default'}.")
    click.echo(f"It is reached at: {where}.")


def _request(node: str, order: str, model: str, port: int) -> commands_pb2.CommandNodeRequest:
    match order:
        case "pull":
            return commands_pb2.CommandNodeRequest(node=node, pull=commands_pb2.PullModel(model=model, port=port))
        case "delete":
            return commands_pb2.CommandNodeRequest(node=node, delete=commands_pb2.DeleteModel(model=model, port=port))
        case "probe":
            return commands_pb2.CommandNodeRequest(node=node, probe=commands_pb2.RestartProbe())
        case _:
            return commands_pb2.CommandNodeRequest(node=node, sample=commands_pb2.SampleNow())


def _progress(answer: commands_pb2.NodeCommandAnswer) -> str:
    if not answer.HasField("total_bytes"):
        return answer.message
    return f"{answer.message}: {gigabytes(answer.done_bytes)} of {gigabytes(answer.total_bytes)}"


def _failure(answer: commands_pb2.NodeCommandAnswer) -> ForebayError:
    if answer.state == commands_pb2.COMMAND_STATE_REFUSED:
        return NotPossible(f"The agent of {answer.node} refuses ({answer.reason}): {answer.message}")
    return NotPossible(answer.message or "The agent gave no answer.")


def _what(site: discovery_pb2.NodeDiscovery) -> str:
    return {"suggest": "suggested", "auto": "added", "off": "left alone"}.get(
        word(site, "policy") or "", "dealt with as usual"
    )
