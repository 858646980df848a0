"""`forebay secrets`: what a deployment keeps secret, as files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from forebay.local.deployment_secrets import Deployment, give_to, make_secrets


@click.group(short_help="The secrets of a deployment, as files.")
def secrets() -> None:
    """What a deployment on several machines or in containers keeps secret, as files. `forebay up` needs none of this.

    \b
    forebay secrets make secrets
    forebay secrets make secrets --gateways 2 --owner 10001
    """


class _Owner(click.ParamType[tuple[int, int]]):
    name = "uid[:gid]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        user, colon, group = str(value).partition(":")
        if not user.isdecimal() or (colon and not group.isdecimal()):
            self.fail(f"{value} is not a number of a user, or two with a colon between them.", param, ctx)
        return int(user), int(group if colon else user)


@secrets.command(short_help="Make what is missing.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--gateways",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many: gateway-1, gateway-2 …, which are their users on NATS too.",
)
@click.option(
    "--nats",
    "nats_servers",
    multiple=True,
    default=("nats-1", "nats-2", "nats-3"),
    show_default=True,
    metavar="HOST",
    help="A NATS server's host name, once for each of the cluster.",
)
@click.option(
    "--nats-tls",
    metavar="PATH",
    help="NATS speaks TLS, to clients with certificates alone: where its servers find tls.crt, tls.key and ca.crt.",
)
@click.option(
    "--postgres",
    default="postgres:5432",
    show_default=True,
    metavar="HOST:PORT",
    help="Where admin and the registry reach PostgreSQL.",
)
@click.option(
    "--postgres-options", default="", metavar="TEXT", help="Ends its address, such as sslmode=verify-full&sslrootcert=…"
)
@click.option("--owner", type=_Owner(), help="Whose the files shall be: the user that containers run as. Needs root.")
@click.option("--json", "as_json", is_flag=True, help="Answer as JSON, the same in every version.")
def make(
    folder: Path,
    gateways: int,
    nats_servers: tuple[str, ...],
    nats_tls: str | None,
    postgres: str,
    postgres_options: str,
    owner: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Write every secret of a deployment into FOLDER, readable by its owner alone: one folder for each part, with what that
    part reads and nothing else.

    \b
    gateway-1/  token  pepper  nats.seed  snapshot.key
    scheduler/  token  callers  nats.seed  snapshot.key
    registry/   token  callers  nats.seed  snapshot.key  command.key  database_url
    admin/      token  callers  nats.seed  pepper  seal.key  database_url
    backup/     nats.seed
    nats/       nats.conf, the cluster; accounts.conf, the users of all services
    postgres/   password of the superuser; roles.sql, for psql
    kept/       the originals; no part reads them: keep them where backups are kept

    Each is the file of the setting of that name: token_file, callers_file, nats_seed_file (nats.seed), and so on. Beside
    accounts.conf NATS needs agents.conf, the users of agents, which admin writes (agents_file): `users = []` until then.
    nats.conf takes the server's name from the environment (NATS_NAME) and keeps its data in /data. roles.sql makes the
    database and its two roles, and may be run again.

    What is in kept/ stays as it is when this is run again, with more gateways for instance. To replace a secret, remove its
    original first, and restart who reads it.

    \b
    forebay secrets make secrets
    forebay secrets make secrets --nats nats --postgres db.internal:5432 --postgres-options sslmode=require

    With --json: {"folder", "parts": {part: [file, …]}}
    """
    deployment = Deployment(
        gateways=[f"gateway-{number}" for number in range(1, gateways + 1)],
        nats_servers=nats_servers,
        postgres=postgres,
        postgres_options=postgres_options,
        nats_tls=nats_tls,
    )
    parts = make_secrets(folder, deployment)
    if owner is not None:
        give_to(folder, *owner)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "parts": parts}, indent=2, ensure_ascii=False))
        return
    for part, files in parts.items():
        click.echo(f"{folder / part}: {', '.join(files)}")
