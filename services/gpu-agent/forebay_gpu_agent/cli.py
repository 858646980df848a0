"""`forebay agent`: what a person, or the script that an invitation brings, does on a node."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from forebay.errors import CannotStart
from forebay_gpu_agent.config import node_of_host
from forebay_gpu_agent.join import Invitation, Membership, has_used, join


def default_directory() -> Path:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/forebay-agent")
    return Path.home() / ".local" / "share" / "forebay-agent"


_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_directory,
    show_default="/var/lib/forebay-agent as root, else ~/.local/share/forebay-agent",
    help="The agent's folder.",
)


def _web_address(_: click.Context, __: click.Parameter, value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{value!r} is not the address of a web server (https://HOST:PORT)")
    return value.rstrip("/")


@click.group(short_help="The agent of this machine.")
def agent() -> None:
    """The agent of this machine: what its GPUs and its host are doing, told every two seconds while a GPU works."""


@agent.command("join", short_help="Make this machine a node, by invitation.")
@click.option("--admin", required=True, metavar="URL", callback=_web_address, help="Admin's HTTP address.")
@click.option("--token", required=True, help="Of the invitation; it works once.")
@click.option("--node", required=True, metavar="NAME", help="The name this machine was invited under.")
@_directory
@click.option("--pin", metavar="sha256//…", help="Of admin's public key, where no public CA vouches for it.")
def join_command(admin: str, token: str, node: str, directory: Path, pin: str | None) -> None:
    """Make this machine a node, by invitation (`forebay node enroll NAME` makes one).

    The secret of the agent is made here and never leaves this machine.
    """
    if pin and not admin.startswith("https:"):
        raise click.BadParameter("a pin means something for https:// only", param_hint="--pin")
    invitation, membership = Invitation(admin, token, node, pin), Membership(directory)
    if has_used(invitation, membership):
        click.echo(f"This machine has already joined as {membership.node} ({membership.settings_file}).")
        return
    admission = join(invitation, membership)
    click.echo(f"This machine has joined as {admission.node}. To start its agent: forebay agent run --dir {directory}")


@agent.command("run", short_help="Run the agent of a machine that has joined.")
@_directory
@click.pass_context
def run_command(context: click.Context, directory: Path) -> None:
    """Run the agent of a machine that has joined, until SIGTERM or Ctrl-C."""
    from forebay.launch import run

    membership = Membership(directory)
    if membership.node is None:
        raise CannotStart(
            f"This machine has not joined: there is no {membership.settings_file}."
            " Run here what `forebay node enroll NAME` prints."
        )
    context.invoke(run, services=("gpu-agent",), config=membership.settings_file, sets=(), log_level="info")


@agent.command("status", short_help="Show what can be seen here now.")
@_directory
@click.option(
    "--ops", metavar="HOST:PORT", help="Ask the agent that runs there (its ops port, such as 127.0.0.1:8099)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status_command(directory: Path, ops: str | None, as_json: bool) -> None:
    """Show what can be seen here now: the host and every GPU, or one sentence why there is none.

    With --ops, show instead how the running agent is doing.
    """
    from forebay_gpu_agent import picture, status

    if ops:
        running = status.ask_running(ops)
        click.echo(status.running_as_json(running) if as_json else status.render_running(running))
        return
    node = Membership(directory).node
    sample = status.sample_here(node or node_of_host(), directory if node else Path("/"))
    click.echo(status.sample_as_json(sample) if as_json else picture.render_sample(sample))
    if node is None and not as_json:
        click.echo(f"\nThis machine has not joined: there is no agent in {directory}.", err=True)
