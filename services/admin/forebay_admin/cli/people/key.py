"""`forebay key`: make, list and revoke keys; whom they trust is told in `trust`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, types_pb2
from forebay_admin.cli.amounts import parse_weight, weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.people.trust import trust, trusted, untrust
from forebay_admin.cli.words import age, ahead, coloured, parse_duration

_BANDS = {
    "system": types_pb2.BAND_SYSTEM,
    "interactive": types_pb2.BAND_INTERACTIVE,
    "standard": types_pb2.BAND_STANDARD,
    "batch": types_pb2.BAND_BATCH,
}


@click.group()
def key() -> None:
    """Keys: what a client shows to be let in.

    \b
    forebay key create --user alice --name laptop
    forebay key list --user alice
    forebay key set 5f0c2d9a41be --weight 2
    forebay key revoke 5f0c2d9a41be --now
    forebay key trust 5f0c2d9a41be ~/.ollama/id_ed25519.pub
    """


for command in (trust, untrust, trusted):
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
    "--band", type=click.Choice(list(_BANDS)), help="The most urgent band that it may ask for. Default: interactive."
)
@click.option("--pool", default="", metavar="NAME", help="The pool of backends in which its requests queue.")
@json_option
def create(
    user: str, name: str, models: Sequence[str], expires: str | None, band: str | None, pool: str, as_json: bool
) -> None:
    """Make a key. It is shown this once and kept nowhere.

    \b
    forebay key create --user alice --name laptop
    forebay key create --name ci --model 'llama*' --expires 30d --band batch

    With --json: {"key": {"id", "name", "user_name", "state", "expires_at", …}, "secret": "fb-…"}
    """
    request = admin_pb2.CreateKeyRequest(
        user=user,
        name=name,
        allowed_models=models,
        expires_in_s=round(parse_duration(expires).total_seconds()) if expires else None,
        band_cap=_BANDS[band] if band else types_pb2.BAND_UNSPECIFIED,
        pool=pool,
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
@click.option("--all", "include_revoked", is_flag=True, help="Revoked ones too.")
@json_option
def list_keys(user: str, include_revoked: bool, as_json: bool) -> None:
    """List keys, oldest first. Their secrets are not known to anybody.

    With --json: a list of {"id", "name", "user_name", "state", "created_at", "expires_at", "revoked_at", …}
    """

    async def work(calls: Calls) -> admin_pb2.ListKeysResponse:
        return await calls(calls.stub.ListKeys, admin_pb2.ListKeysRequest(user=user, include_revoked=include_revoked))

    keys = ask(work).keys
    if as_json:
        print_json([plain(k) for k in keys])
        return
    now = time.time()
    print_table(
        ("Id", "Name", "User", "State", "Models", "Band", "Made", "Expires"),
        (
            (
                k.id,
                escape(k.name),
                escape(k.user_name),
                coloured(_state(k, now)),
                escape(", ".join(k.allowed_models)) or "all",
                word(k, "band_cap") or "",
                age(k.created_at_us, now),
                ahead(k.expires_at_us, now) if k.HasField("expires_at_us") else "never",
            )
            for k in keys
        ),
        nothing="No keys. Make one with: forebay key create --user NAME",
    )


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
    return state
