"""`forebay key`: make, list and revoke keys; whom they trust is told in `trust`, what becomes of them in `key_life`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, types_pb2
from forebay_admin.cli.amounts import parse_weight, weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.people.imports import import_keys
from forebay_admin.cli.people.key_life import block, rename, renew, restrict, rotate, unblock
from forebay_admin.cli.people.key_options import key_terms, parse_labels, terms_options
from forebay_admin.cli.people.trust import trust, trusted, untrust
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, ahead, coloured, parse_duration
from forebay_admin.keys.key_words import BANDS

_STATES = {
    "active": admin_pb2.KEY_STATE_ACTIVE,
    "blocked": admin_pb2.KEY_STATE_BLOCKED,
    "user_disabled": admin_pb2.KEY_STATE_USER_DISABLED,
    "revoked": admin_pb2.KEY_STATE_REVOKED,
}


@click.group()
def key() -> None:
    """Keys: what a client shows to be let in.

    \b
    forebay key create --user alice --name laptop
    forebay key list --user alice
    forebay key set 5f0c2d9a41be --weight 2
    forebay key restrict 5f0c2d9a41be --from 10.0.0.0/8 --max-output 2000
    forebay key rotate 5f0c2d9a41be --overlap 7d
    forebay key block 5f0c2d9a41be --reason 'looked into'
    forebay key revoke 5f0c2d9a41be --now
    forebay key import keys.csv
    forebay key trust 5f0c2d9a41be ~/.ollama/id_ed25519.pub
    """


for command in (trust, untrust, trusted, rename, restrict, renew, rotate, block, unblock, import_keys):
    key.add_command(command)


@key.command()
@click.option("--user", default="", metavar="NAME", help="Whose key it is. Default: yours.")
@click.option("--name", default="", metavar="TEXT", help="What it is for, such as laptop; you see it in lists.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="A model that it allows (may be repeated; * matches). Default: all.",
)
@click.option("--expires", metavar="TIME", help="How long it lives: 12h, 30d, 52w. Default: until it is revoked.")
@click.option(
    "--band", type=click.Choice(list(BANDS)), help="The most urgent band that it may ask for. Default: interactive."
)
@click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="NAME",
    help="The pool of backends in which its requests queue; with more of them, others whose addresses it may use.",
)
@terms_options
@json_option
def create(
    user: str,
    name: str,
    models: Sequence[str],
    expires: str | None,
    band: str | None,
    pools: Sequence[str],
    description: str | None,
    labels: Sequence[str],
    as_json: bool,
    **terms: Any,
) -> None:
    """Make a key. It is shown this once and kept nowhere.

    \b
    forebay key create --user alice --name laptop
    forebay key create --name ci --model 'llama*' --expires 30d --band batch
    forebay key create --name site --from 203.0.113.0/24 --call embedding --label team=web

    With --json: {"key": {"id", "name", "user_name", "state", "expires_at", …}, "secret": "fb-…"}
    """
    request = admin_pb2.CreateKeyRequest(
        user=user,
        name=name,
        allowed_models=models,
        expires_in_s=round(parse_duration(expires).total_seconds()) if expires else None,
        band_cap=BANDS[band] if band else types_pb2.BAND_UNSPECIFIED,
        pool=pools[0] if pools else "",
        description=description or "",
        labels=parse_labels(labels),
        terms=key_terms(other_pools=pools[1:], **terms),
    )

    async def work(calls: Calls) -> admin_pb2.CreateKeyResponse:
        return await calls(calls.stub.CreateKey, request)

    made = ask(work)
    if as_json:
        print_json({"key": plain(made.key), "secret": made.secret})
        return
    click.echo(f"Key {made.secret} made for {made.key.user_name}. It is shown only this once.")


@key.command("list")
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@click.option("--group", default="", metavar="NAME", help="Only those of this group's members.")
@click.option("--text", default="", metavar="TEXT", help="Only those with this in their id, name, description or user.")
@click.option("--state", type=click.Choice(list(_STATES)), help="Only those in this state.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only those with this label (repeatable).")
@click.option("--limit", type=click.IntRange(1, 1000), default=None, help="At most so many.")
@click.option("--after", default="", metavar="ID", help="Only those that come after this one.")
@click.option("--all", "include_revoked", is_flag=True, help="Revoked ones too.")
@json_option
def list_keys(
    user: str,
    group: str,
    text: str,
    state: str | None,
    labels: Sequence[str],
    limit: int | None,
    after: str,
    include_revoked: bool,
    as_json: bool,
) -> None:
    """List keys, oldest first. Their secrets are not known to anybody.

    \b
    forebay key list --state blocked
    forebay key list --label team=core --limit 100

    With --json: a list of {"id", "name", "user_name", "state", "created_at", "expires_at", "revoked_at", …}
    """

    request = admin_pb2.ListKeysRequest(
        user=user,
        group=group,
        text=text,
        state=_STATES[state] if state else admin_pb2.KEY_STATE_UNSPECIFIED,
        labels=labels,
        limit=limit or 0,
        after=after,
        include_revoked=include_revoked,
    )

    async def work(calls: Calls) -> admin_pb2.ListKeysResponse:
        return await calls(calls.stub.ListKeys, request)

    found = ask(work)
    keys = found.keys
    if as_json:
        print_json([plain(k) for k in keys])
        return
    now = time.time()
    print_table(
        ("Id", "Name", "User", "State", "Models", "Band", "Made", "Used", "Expires"),
        (
            (
                k.id,
                escape(k.name),
                escape(k.user_name),
                coloured(_state(k, now)),
                escape(", ".join(k.allowed_models)) or "all",
                word(k, "band_cap") or "",
                age(k.created_at_us, now),
                age(k.last_used_at_us, now) if k.HasField("last_used_at_us") else "never",
                ahead(k.expires_at_us, now) if k.HasField("expires_at_us") else "never",
            )
            for k in keys
        ),
        nothing="No keys. Make one with: forebay key create --user NAME",
    )
    if found.has_more:
        click.echo(f"There are more: forebay key list … --after {keys[-1].id}")


@key.command("set")
@click.argument("key_id", metavar="ID")
@click.option("--weight", "share", required=True, metavar="N", help="Its share against its user's other keys.")
@json_option
def change(key_id: str, share: str, as_json: bool) -> None:
    """Change the key ID (or the whole key). For limits see: forebay quota set --key ID

    \b
    forebay key set 5f0c2d9a41be --weight 0.5

    With --json: {"id", "name", "user_name", "weight_milli", …}
    """
    request = admin_pb2.ChangeKeyRequest(key_id=key_id, weight_milli=parse_weight(share))

    async def work(calls: Calls) -> admin_pb2.ChangeKeyResponse:
        return await calls(calls.stub.ChangeKey, request)

    after = ask(work).key
    if as_json:
        print_json(plain(after))
        return
    click.echo(f"Key {after.id} ({after.name}) of {after.user_name} has weight {weight(after.weight_milli)}.")


@key.command(short_help="Revoke a key.")
@click.argument("key_id", metavar="ID")
@click.option(
    "--now", "cut_running", is_flag=True, help="Cut its running requests too, also when the key was revoked before."
)
@json_option
def revoke(key_id: str, cut_running: bool, as_json: bool) -> None:
    """Revoke the key ID (or the whole key): every gateway refuses it in under a second and drops its queued requests. Those
    that run may finish, unless you say --now. There is no way back.

    \b
    forebay key revoke 5f0c2d9a41be
    forebay key revoke 5f0c2d9a41be --now

    With --json: {"key": {…}, "version": N}
    """

    async def work(calls: Calls) -> admin_pb2.RevokeKeyResponse:
        return await calls(calls.stub.RevokeKey, admin_pb2.RevokeKeyRequest(key_id=key_id, now=cut_running))

    revoked = ask(work)
    if as_json:
        print_json({"key": plain(revoked.key), "version": revoked.version})
        return
    running = " Its running requests are cut." if cut_running else ""
    click.echo(f"Key {revoked.key.id} ({revoked.key.name}) of {revoked.key.user_name} is revoked.{running}")


def _state(k: admin_pb2.Key, now: float) -> str:
    state = word(k, "state") or "unknown"
    if state == "active" and k.HasField("expires_at_us") and k.expires_at_us / 1_000_000 <= now:
        return "expired"
    if state == "blocked" and k.HasField("blocked_until_us") and k.blocked_until_us / 1_000_000 <= now:
        return "active"
    return state
