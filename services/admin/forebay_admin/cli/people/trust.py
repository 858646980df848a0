"""`forebay key trust`, `untrust` and `trusted`: public keys that sign calls in an API key's place."""

from __future__ import annotations

import time
from typing import IO

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.signing_keys import PublicLine, fingerprint, parse_line
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured

_MOST_CHARACTERS = 64 << 10
_LONGEST_NAME = 100


@click.command(short_help="Let a key trust a public key.")
@click.argument("key_id", metavar="ID")
@click.argument("public_key", metavar="FILE", type=click.File())
@click.option("--name", metavar="TEXT", help="Where it is, such as laptop. Default: the comment in the file.")
@json_option
def trust(key_id: str, public_key: IO[str], name: str | None, as_json: bool) -> None:
    """Let the key ID (or the whole key) trust the public ed25519 key in FILE (- for what comes in): whoever signs with it
    may what the key may, as long as the key is good. `ollama` signs like that with OLLAMA_AUTH=1.

    \b
    forebay key trust 5f0c2d9a41be ~/.ollama/id_ed25519.pub
    OLLAMA_AUTH=1 OLLAMA_HOST=https://forebay.example.org ollama run llama3.2

    With --json: {"signing_key": {"fingerprint", "name", "key_id", "user_name", …}, "version": N}
    """
    line = _parse(public_key)
    request = admin_pb2.AddSigningKeyRequest(
        key_id=key_id, public_key=line.public_key, name=line.comment[:_LONGEST_NAME] if name is None else name
    )

    async def work(calls: Calls) -> admin_pb2.AddSigningKeyResponse:
        return await calls(calls.stub.AddSigningKey, request)

    done = ask(work)
    if as_json:
        print_json({"signing_key": plain(done.signing_key), "version": done.version})
        return
    one = done.signing_key
    click.echo(f"Key {one.key_id} ({one.key_name}) of {one.user_name} trusts {one.fingerprint}.")


@click.command(short_help="Trust a public key no more.")
@click.argument("which", metavar="FINGERPRINT|FILE")
@json_option
def untrust(which: str, as_json: bool) -> None:
    """Trust a public key no more: every gateway refuses what it signs in under a second. What runs may finish.

    \b
    forebay key untrust SHA256:jK3tC0mJ9pEnH0NG3GwAZ1mxC0ZeTLWmg8YjX1gXJ1s
    forebay key untrust ~/.ollama/id_ed25519.pub

    With --json: {"signing_key": {…}, "version": N}
    """
    request = admin_pb2.RemoveSigningKeyRequest(fingerprint=_fingerprint(which))

    async def work(calls: Calls) -> admin_pb2.RemoveSigningKeyResponse:
        return await calls(calls.stub.RemoveSigningKey, request)

    done = ask(work)
    if as_json:
        print_json({"signing_key": plain(done.signing_key), "version": done.version})
        return
    one = done.signing_key
    click.echo(f"Key {one.key_id} ({one.key_name}) of {one.user_name} trusts {one.fingerprint} no more.")


@click.command()
@click.option("--user", default="", metavar="NAME", help="Only by this user's keys.")
@json_option
def trusted(user: str, as_json: bool) -> None:
    """List the public keys that are trusted, and by which key, oldest first.

    With --json: a list of {"fingerprint", "public_key", "name", "key_id", "key_name", "key_state", "user_name", …}
    """

    async def work(calls: Calls) -> admin_pb2.ListSigningKeysResponse:
        return await calls(calls.stub.ListSigningKeys, admin_pb2.ListSigningKeysRequest(user=user))

    found = ask(work).signing_keys
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Fingerprint", "Name", "Key", "Its name", "User", "Key's state", "Since"),
        (
            (
                one.fingerprint,
                escape(one.name),
                one.key_id,
                escape(one.key_name),
                escape(one.user_name),
                coloured(word(one, "key_state") or "unknown"),
                age(one.created_at_us, now),
            )
            for one in found
        ),
        nothing="No public keys are trusted. Trust one with: forebay key trust ID ~/.ollama/id_ed25519.pub",
    )


def _fingerprint(which: str) -> str:
    if which.startswith("SHA256:"):
        return which
    try:
        with click.open_file(which) as file:
            return fingerprint(_parse(file).public_key)
    except OSError as error:
        raise BadInput(f"{which} is neither a fingerprint (SHA256:…) nor a file that can be read.") from error


def _parse(file: IO[str]) -> PublicLine:
    try:
        return parse_line(file.read(_MOST_CHARACTERS))
    except ValueError as error:  # of bytes that are no text, too
        why = "This is no text." if isinstance(error, UnicodeError) else str(error)
        raise BadInput(f"{file.name}: {why}") from error
