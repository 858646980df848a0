"""`forebay key rename`, `restrict`, `renew`, `rotate`, `block` and `unblock`: what becomes of a key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json
from forebay_admin.cli.people.key_options import parse_labels, terms_change, terms_options
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import ahead, parse_duration
from forebay_admin.keys.key_words import BANDS


@click.command()
@click.argument("key_id", metavar="ID")
@click.argument("name")
@json_option
def rename(key_id: str, name: str, as_json: bool) -> None:
    """Call the key ID (or the whole key) NAME from now on.

    With --json: {"id", "name", …}
    """
    after = _change("SetKeyTerms", key_terms_pb2.SetKeyTermsRequest(key_id=key_id, name=name)).key
    _tell(after, as_json, f"is called {after.name} from now on")


@click.command(short_help="Change what a key may.")
@click.argument("key_id", metavar="ID")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="A model that it allows (repeatable).")
@click.option("--pool", "pools", multiple=True, metavar="NAME", help="Where it goes, its own pool first (repeatable).")
@click.option("--band", type=click.Choice(list(BANDS)), help="The most urgent band that it may ask for.")
@click.option("--unlabel", "removed", multiple=True, metavar="NAME", help="A label to be taken away (repeatable).")
@terms_options
@json_option
def restrict(
    key_id: str,
    description: str | None,
    labels: Sequence[str],
    removed: Sequence[str],
    as_json: bool,
    **terms: Any,
) -> None:
    """Change what the key ID (or the whole key) may. What is not named stays; a list is replaced as a whole, and
    `none` takes it or a number away. Of your own key you can only take; for more see: forebay quota request

    \b
    forebay key restrict 5f0c2d9a41be --from 10.0.0.0/8 --from 2001:db8::/32
    forebay key restrict 5f0c2d9a41be --max-output 2000 --call chat --label team=core
    forebay key restrict 5f0c2d9a41be --from none

    With --json: {"id", "name", "allowed_models", "terms": {"addresses", "calls", "max_output_tokens", …}, …}
    """
    request = terms_change(
        key_id, description=description, labels=parse_labels(labels), removed_labels=removed, **terms
    )
    after = _change("SetKeyTerms", request).key
    _tell(after, as_json, "is changed; every gateway goes by it in under a second")


@click.command()
@click.argument("key_id", metavar="ID")
@click.option("--expires", metavar="TIME", help="How long it lives from now: 12h, 30d. Default: until it is revoked.")
@json_option
def renew(key_id: str, expires: str | None, as_json: bool) -> None:
    """Let the key ID (or the whole key) live longer, or shorter. A key cannot lengthen its own life.

    With --json: {"id", "name", "expires_at", …}
    """
    request = key_terms_pb2.RenewKeyRequest(key_id=key_id, expires_in_s=_seconds(expires))
    after = _change("RenewKey", request).key
    ends = (
        f"expires {ahead(after.expires_at_us, time.time())}" if after.HasField("expires_at_us") else "does not expire"
    )
    _tell(after, as_json, ends)


@click.command(short_help="Give a key another secret.")
@click.argument("key_id", metavar="ID")
@click.option("--overlap", metavar="TIME", help="How long the old secret still works: 1h, 7d. Default: not at all.")
@json_option
def rotate(key_id: str, overlap: str | None, as_json: bool) -> None:
    """Give the key ID (or the whole key) another secret, shown this once. It stays the same key: usage, limits and budgets
    go on, whichever of the two secrets a request comes with.

    \b
    forebay key rotate 5f0c2d9a41be --overlap 7d

    With --json: {"key": {"id", "old_secret_until", …}, "secret": "fb-…"}
    """
    made = _change("RotateKey", key_terms_pb2.RotateKeyRequest(key_id=key_id, overlap_s=_seconds(overlap) or 0))
    if as_json:
        print_json({"key": plain(made.key), "secret": made.secret})
        return
    old = f"The old one works for {overlap} more." if overlap else "The old one does not work any more."
    click.echo(f"Key {made.secret} made for {made.key.user_name}. It is shown only this once. {old}")


@click.command(short_help="Have a key refused for a while.")
@click.argument("key_id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever uses the key is told.")
@click.option("--for", "duration", metavar="TIME", help="How long: 1h, 7d. Default: until it is unblocked.")
@json_option
def block(key_id: str, reason: str, duration: str | None, as_json: bool) -> None:
    """Have every gateway refuse the key ID (or the whole key) until it is unblocked, or for a while. What waits under it is
    refused, what runs may finish.

    \b
    forebay key block 5f0c2d9a41be --reason 'found in a public repository' --for 24h

    With --json: {"id", "name", "state": "blocked", "block_reason", "blocked_until", …}
    """
    request = key_terms_pb2.BlockKeyRequest(key_id=key_id, reason=reason, for_s=_seconds(duration))
    _tell(_change("BlockKey", request).key, as_json, f"is blocked{f' for {duration}' if duration else ''}")


@click.command()
@click.argument("key_id", metavar="ID")
@json_option
def unblock(key_id: str, as_json: bool) -> None:
    """Let the blocked key ID (or the whole key) work again.

    With --json: {"id", "name", "state", …}
    """
    _tell(_change("UnblockKey", key_terms_pb2.UnblockKeyRequest(key_id=key_id)).key, as_json, "works again")


def _change(call: str, request: Any) -> Any:
    async def work(calls: Calls) -> Any:
        return await calls(getattr(calls.stub, call), request)

    return ask(work)


def _tell(after: admin_pb2.Key, as_json: bool, what: str) -> None:
    if as_json:
        print_json(plain(after))
        return
    click.echo(f"Key {after.id} ({after.name}) of {after.user_name} {what}.")


def _seconds(text: str | None) -> int | None:
    return round(parse_duration(text).total_seconds()) if text else None
