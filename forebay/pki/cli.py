"""`forebay pki`: certificates for mTLS between Forebay's parts, NATS and PostgreSQL, made and renewed on one machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from forebay.pki.folder import PART_DAYS, Folder, Shown, Standing, Step, make_folder
from forebay.pki.installation import parts_of

_FOLDER = click.Path(path_type=Path, file_okay=False)
_COLOURS = {Standing.GOOD: "green", Standing.DUE: "yellow", Standing.EXPIRED: "red", Standing.FOREIGN: "red"}

_json = click.option("--json", "as_json", is_flag=True, help="Answer as JSON, the same in every version.")
_days = click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=PART_DAYS,
    show_default=True,
    help="How long new certificates are good.",
)


@click.group()
def pki() -> None:
    """Certificates by which Forebay's parts, NATS and PostgreSQL know each other (mTLS).

    Everything lies in one folder: the authority in DIR/ca, whose key stays there, and for each part DIR/NAME with tls.crt,
    tls.key and ca.crt, to be mounted as it is. Running parts take up new files by themselves.

    \b
    forebay pki make DIR --gateways 2 --host forebay.example.com
    forebay pki issue DIR scheduler --host 10.0.0.7
    forebay pki show DIR
    forebay pki renew DIR
    forebay pki rotate-ca DIR begin
    """


@pki.command(short_help="Make an authority and nothing else.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@_json
def init(folder: Path, as_json: bool) -> None:
    """Make an authority in DIR, which is made too. Keep a copy of DIR/ca where nobody finds it.

    \b
    forebay pki init /etc/forebay/pki

    With --json: {"dir", "authority", "until"}
    """
    made = make_folder(folder, _now()).authority.certificate
    until = made.not_valid_after_utc
    if as_json:
        _print_json({"dir": str(folder), "authority": made.subject.rfc4514_string(), "until": until.isoformat()})
        return
    click.echo(f"The authority lies in {folder / 'ca'}, good until {until:%Y-%m-%d}. Its key stays there.")


@pki.command(short_help="Issue certificates of parts by name.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--host", "hosts", multiple=True, help="A host name or address it is reached by, over its own name.")
@_days
@_json
def issue(folder: Path, names: Sequence[str], hosts: Sequence[str], days: int, as_json: bool) -> None:
    """Issue a certificate with a new key for each NAME, good for calling and for being called.

    The name says whose it is: gateway-1 may be used with a gateway's token only. Each is good for its own name, localhost
    and the hosts given; one that is there keeps its hosts when none are given.

    \b
    forebay pki issue DIR gateway-3 --host 10.0.0.9
    forebay pki issue DIR gpu-node-7

    With --json: as `forebay pki show`, of those that were issued
    """
    opened = Folder(folder)
    held = {one.name: one.hosts for one in opened.show(_now())} if not hosts else {}
    made = [opened.issue(name, held.get(name, hosts), _now(), timedelta(days=days)) for name in dict.fromkeys(names)]
    _tell(made, as_json, "Nothing was issued.")


@pki.command(short_help="Issue anew what is about to expire.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--all", "everything", is_flag=True, help="Those too that are good for long.")
@_days
@_json
def renew(folder: Path, everything: bool, days: int, as_json: bool) -> None:
    """Issue anew, for the same hosts, the certificates of which less than a third of their life is left. For a daily timer.

    \b
    forebay pki renew DIR
    forebay pki renew DIR --all

    With --json: as `forebay pki show`, of those that were issued
    """
    made = Folder(folder).renew(_now(), timedelta(days=days), everything=everything)
    _tell(made, as_json, "Nothing is due.")


@pki.command(short_help="Show who has a certificate, for what, until when.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@_json
def show(folder: Path, as_json: bool) -> None:
    """Show who has a certificate, until when, for which hosts, and from which authority.

    \b
    forebay pki show DIR

    With --json: a list of {"name", "standing": "good", "due", "expired" or "foreign", "until", "hosts", "authority"}
    """
    _tell(Folder(folder).show(_now()), as_json, "No part has a certificate yet: forebay pki make, or issue.")


@pki.command(short_help="Make all that a whole installation needs.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--gateways", type=click.IntRange(0, 64), default=1, show_default=True, help="gateway-1, gateway-2, ...")
@click.option(
    "--schedulers", type=click.IntRange(1, 4), default=1, show_default=True, help="scheduler, scheduler-2, ..."
)
@click.option("--registries", type=click.IntRange(1, 2), default=1, show_default=True, help="registry, registry-2")
@click.option("--agent", "agents", multiple=True, metavar="NODE", help="A node whose agent needs one.")
@click.option("--host", "hosts", multiple=True, metavar="[NAME=]HOST", help="Where all, or only NAME, are reached.")
@click.option("--domain", help="Each is NAME.DOMAIN too, such as forebay.svc.cluster.local.")
@_days
@_json
def make(
    folder: Path,
    gateways: int,
    schedulers: int,
    registries: int,
    agents: Sequence[str],
    hosts: Sequence[str],
    domain: str | None,
    days: int,
    as_json: bool,
) -> None:
    """Make all that a whole installation needs: the authority and the folders of gateways, schedulers, registries, admin,
    nats, postgres and node agents.

    What is there, good and for these hosts stays as it is, so the same line may be run again after a change.

    \b
    forebay pki make DIR --gateways 2 --host 10.0.0.7
    forebay pki make DIR --gateways 3 --domain forebay.svc.cluster.local --host admin=forebay.example.com
    kubectl create secret generic gateway-1-tls --from-file=DIR/gateway-1

    With --json: as `forebay pki show`
    """
    wanted = parts_of(
        gateways=gateways, schedulers=schedulers, registries=registries, agents=agents, hosts=hosts, domain=domain
    )
    opened = Folder(folder) if (folder / "ca" / "ca.crt").exists() else make_folder(folder, _now())
    for name, reached_by in wanted.items():
        opened.keep(name, reached_by, _now(), timedelta(days=days))
    _tell(opened.show(_now()), as_json, "Nothing was made.")


@pki.command("rotate-ca", short_help="Replace the authority, in three steps without a gap.")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.argument("step", type=click.Choice([one.value for one in Step]))
@_days
@_json
def rotate_ca(folder: Path, step: str, days: int, as_json: bool) -> None:
    """Replace the authority, in three steps without a gap. After each, carry the folders to where they are used, and wait
    until every part has them (a few seconds, a minute for what Kubernetes mounts).

    \b
    forebay pki rotate-ca DIR begin     a second authority is made and believed
    forebay pki rotate-ca DIR switch    it signs everything anew; the old one is believed still
    forebay pki rotate-ca DIR finish    the old one is believed no more

    With --json: {"step", "authorities": [those that are believed, the one that signs first]}
    """
    opened = Folder(folder)
    opened.rotate(Step(step), _now(), timedelta(days=days))
    believed = [one.subject.rfc4514_string() for one in opened.believed]
    if as_json:
        _print_json({"step": step, "authorities": believed})
        return
    click.echo(f"Believed now: {', '.join(believed)}; the first one signs.")
    if step != Step.FINISH:
        following = Step.SWITCH if step == Step.BEGIN else Step.FINISH
        click.echo(f"Carry the folders to where they are used, then: forebay pki rotate-ca {folder} {following}")


def _tell(shown: Sequence[Shown], as_json: bool, nothing: str) -> None:
    if as_json:
        _print_json([_plain(one) for one in shown])
        return
    if not shown:
        click.echo(nothing)
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Name", "Standing", "Until", "Hosts", "Authority"):
        table.add_column(column, overflow="fold", no_wrap=column == "Name")
    for one in shown:
        standing = f"[{_COLOURS[one.standing]}]{one.standing}[/]"
        table.add_row(
            escape(one.name), standing, f"{one.until:%Y-%m-%d}", escape(", ".join(one.hosts)), escape(one.authority)
        )
    Console().print(table)


def _plain(one: Shown) -> dict[str, Any]:
    return {
        "name": one.name,
        "standing": one.standing.value,
        "until": one.until.isoformat(),
        "hosts": list(one.hosts),
        "authority": one.authority,
    }


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _now() -> datetime:
    return datetime.now(UTC)
