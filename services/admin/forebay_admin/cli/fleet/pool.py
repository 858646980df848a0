"""`forebay pool`: what leads to a pool, what it requires, and how it places requests on its backends."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, fleet_parts_pb2
from forebay_admin.cli.amounts import parse_cap
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.parts import base_option, reset_option, tell
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import Plain, plain
from forebay_admin.cli.words import count


@click.group()
def pool() -> None:
    """Pools: sets of backends with one queue, and how each chooses among its backends.

    \b
    forebay pool list
    forebay pool set night --placement least_loaded
    forebay pool set coding --host coding.llm.example.org --require llama3.1
    forebay pool reset night
    """


@pool.command("list")
@json_option
def list_pools(as_json: bool) -> None:
    """List pools: those that have backends, those that something was set for, and those that are described.

    A pool is reached at its virtual endpoint, which `forebay pool set` or a fleet file gives it, with every key that is
    for no pool; and everywhere with a key of its own (forebay key create --pool NAME).

    \b
    pools:
      - name: coding
        hosts: [coding.llm.example.org]
        path_prefix: /coding          # http://gateway:8090/coding/v1

    With --json: a list of {"pool", "placement", "sticky", "locality_window", "is_default", "backends", "hosts",
    "path_prefix", "required_models", "pull"}
    """

    async def work(calls: Calls) -> admin_pb2.ListPoolsResponse:
        return await calls(calls.stub.ListPools, admin_pb2.ListPoolsRequest())

    pools = ask(work).pools
    if as_json:
        print_json([_plain(p) for p in pools])
        return
    print_table(
        ("Name", "#Backends", "Placement", "Sticky", "Locality window", "", "Reached at", "Requires"),
        (
            (
                escape(p.terms.pool),
                count(p.backends) if p.HasField("backends") else "",
                escape(p.terms.placement),
                "yes" if p.terms.sticky else "no",
                _window(p.terms),
                "" if p.is_default else "set",
                escape(", ".join((*p.described.hosts, *filter(None, [p.described.path_prefix])))),
                escape(", ".join(p.described.required_models)),
            )
            for p in pools
        ),
        nothing="No pools: there are no backends. Add one with: forebay backend add NAME URL",
    )


@pool.command("set")
@click.argument("name")
@click.option(
    "--placement",
    metavar="HOW",
    help="expected_ttft (usual), least_loaded, weighted, round_robin or random.",
)
@click.option(
    "--sticky/--no-sticky", default=None, help="Requests of one session stay on one backend while it is well."
)
@click.option(
    "--locality-window",
    "window",
    metavar="N|default",
    help="Tokens by which a request whose prompt is in a backend's cache may go before its turn; 0 is strict order.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A host name that leads to it, and no other; several times for more.",
)
@click.option("--path-prefix", metavar="PATH", help="The beginning of a path that leads to it, such as /coding.")
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="MODEL",
    help="A model that each of its backends should have, and no other; several times for more.",
)
@click.option(
    "--pull", type=click.Choice(("auto", "never")), help="Whether a required model that is missing is pulled."
)
@reset_option("hosts, path_prefix, required_models, pull, placement, sticky or locality_window")
@base_option
@json_option
def change(
    name: str,
    placement: str | None,
    sticky: bool | None,
    window: str | None,
    hosts: tuple[str, ...],
    path_prefix: str | None,
    required: tuple[str, ...],
    pull: str | None,
    reset: tuple[str, ...],
    base_version: int | None,
    as_json: bool,
) -> None:
    """Change what leads to the pool NAME, what it requires of its backends, and how it places requests. What is not named
    stays as it is; a pool that is not there yet begins with this.

    \b
    expected_ttft   the backend from which the first token is expected soonest: its queue, its cache, its speed
    least_loaded    the one with the most room
    weighted        in proportion to the weights of the backends
    round_robin     one after the other
    random          any that has room

    \b
    forebay pool set default --sticky
    forebay pool set night --placement round_robin --locality-window 0
    forebay pool set coding --host coding.llm.example.org --path-prefix /coding --require llama3.1
    forebay pool set coding --reset hosts

    With --json: {"pool", "placement", "sticky", "locality_window"}; when more is named than how it places requests:
    {"pool": {"name", "hosts", "path_prefix", "required_models", "pull", "placement", …}, "version", "changes": [{"kind",
    "name", "what", "fields"}]}
    """
    if hosts or path_prefix is not None or required or pull or reset or base_version is not None:
        described = fleet_parts_pb2.ChangePoolRequest(
            name=name,
            hosts=hosts,
            path_prefix=path_prefix,
            required_models=required,
            pull=pull,
            placement=placement,
            sticky=sticky,
            locality_window=parse_cap(window, "default", most=2**32 - 1) if window is not None else None,
            reset=[*reset, "locality_window"] if window == "default" else reset,
            base_version=base_version,
        )
        _describe(described, as_json=as_json)
        return
    request = admin_pb2.SetPoolTermsRequest(
        pool=name,
        placement=placement,
        sticky=sticky,
        locality_window=admin_pb2.Cap(most=parse_cap(window, "default")) if window is not None else None,
    )

    async def work(calls: Calls) -> admin_pb2.SetPoolTermsResponse:
        return await calls(calls.stub.SetPoolTerms, request)

    after = ask(work).terms
    if as_json:
        print_json(plain(after))
        return
    sticks = "sessions stay on one backend" if after.sticky else "sessions may move"
    click.echo(f"Pool {after.pool}: {after.placement}, {sticks}, locality window {_window(after)}.")


def _describe(request: fleet_parts_pb2.ChangePoolRequest, *, as_json: bool) -> None:
    async def work(calls: Calls) -> fleet_parts_pb2.ChangePoolResponse:
        return await calls(calls.stub.ChangePool, request)

    answer = ask(work)
    tell(answer, "pool", answer.pool, as_json=as_json)


@pool.command()
@click.argument("name")
@json_option
def reset(name: str, as_json: bool) -> None:
    """Let the pool NAME place requests in the usual way again. Its backends stay in it.

    With --json: {"pool", "placement", …}, as it was
    """

    async def work(calls: Calls) -> admin_pb2.RemovePoolTermsResponse:
        return await calls(calls.stub.RemovePoolTerms, admin_pb2.RemovePoolTermsRequest(pool=name))

    before = ask(work).terms
    if as_json:
        print_json(plain(before))
        return
    click.echo(f"Pool {before.pool} places requests in the usual way again.")


def _plain(p: admin_pb2.Pool) -> Plain:
    flat = plain(p)
    flat.pop("described")
    described = p.described
    return {
        **flat.pop("terms"),
        **flat,
        "hosts": list(described.hosts),
        "path_prefix": described.path_prefix or None,
        "required_models": list(described.required_models),
        "pull": described.pull or "auto",
    }


def _window(terms: admin_pb2.PoolPolicy) -> str:
    return f"{count(terms.locality_window)} tokens" if terms.HasField("locality_window") else "default"
