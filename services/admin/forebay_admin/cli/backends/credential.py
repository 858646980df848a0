"""`forebay backend credential`: the keys that a backend is called with, several if its provider gave several."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import click

from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age


@click.group()
def credential() -> None:
    """The keys of a backend. Requests take turns at them; one that its provider refuses, or whose limit is reached, rests
    while the others serve. A key is kept sealed and never shown; which one rests, each gateway's /metrics tell
    (forebay_gateway_credentials_quarantined).

    \b
    forebay backend credential add claude --label team-b --key-file team-b.key
    forebay backend credential list claude
    forebay backend credential remove claude default
    """


@credential.command()
@click.argument("backend", metavar="NAME")
@click.option("--label", default="", metavar="L", help="What it is called. Default: default, key-2, key-3 …")
@click.option(
    "--key-file",
    type=click.File("r"),
    metavar="FILE",
    help="The key is in this file (- is standard input). Default: standard input, or asked for at a terminal.",
)
@click.option("--replace", is_flag=True, help="Put it in the place of the one with this label.")
@json_option
def add(backend: str, label: str, key_file: TextIO | None, replace: bool, as_json: bool) -> None:
    """Give the backend NAME one more key. Gateways use it in less than a second.

    \b
    forebay backend credential add claude --label team-b --key-file team-b.key
    pass show claude/team-c | forebay backend credential add claude --label team-c

    With --json: {"credential": {"label", "changed_at"}, "held": N}
    """
    request = admin_pb2.AddBackendCredentialRequest(
        backend=backend, label=label, bearer=_key_from(key_file), replace=replace
    )

    async def work(calls: Calls) -> admin_pb2.AddBackendCredentialResponse:
        return await calls(calls.stub.AddBackendCredential, request)

    done = ask(work)
    if as_json:
        print_json({"credential": plain(done.credential), "held": done.held})
        return
    click.echo(f"Key {done.credential.label} of {backend} is kept. {_held(done.held)}")


@credential.command("list")
@click.argument("backend", metavar="NAME")
@json_option
def list_credentials(backend: str, as_json: bool) -> None:
    """List the keys of the backend NAME by their labels, oldest first. The keys themselves are never told.

    With --json: a list of {"label", "changed_at"}
    """

    async def work(calls: Calls) -> admin_pb2.ListBackendCredentialsResponse:
        return await calls(calls.stub.ListBackendCredentials, admin_pb2.ListBackendCredentialsRequest(backend=backend))

    found = ask(work).credentials
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Label", "Given"),
        ((one.label, age(one.changed_at_us, now)) for one in found),
        nothing=f"{backend} is called without a key. Give it one with: forebay backend credential add {backend}",
    )


@credential.command()
@click.argument("backend", metavar="NAME")
@click.argument("label")
@json_option
def remove(backend: str, label: str, as_json: bool) -> None:
    """Forget the key LABEL of the backend NAME. What runs with it may finish.

    With --json: {"credential": {"label", "changed_at"}, "held": N}
    """
    request = admin_pb2.RemoveBackendCredentialRequest(backend=backend, label=label)

    async def work(calls: Calls) -> admin_pb2.RemoveBackendCredentialResponse:
        return await calls(calls.stub.RemoveBackendCredential, request)

    done = ask(work)
    if as_json:
        print_json({"credential": plain(done.credential), "held": done.held})
        return
    click.echo(f"Key {done.credential.label} of {backend} is forgotten. {_held(done.held)}")


def _key_from(file: TextIO | None) -> str:
    if file is None and sys.stdin.isatty():
        key: str = click.prompt("Key", hide_input=True)
        return key.strip()
    return (file or sys.stdin).read().strip()


def _held(number: int) -> str:
    if number == 0:
        return "It has none any more, and is called without."
    return "It is its only one." if number == 1 else f"It has {number}."
