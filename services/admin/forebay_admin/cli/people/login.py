"""`forebay login`, `logout` and `whoami`: signing in with a code that somebody confirms in a browser."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import click

from forebay.errors import BadInput, NotAllowed, Unavailable
from forebay.wire.v1 import identity_pb2
from forebay_admin.cli.connection import Calls, admin_url, ask
from forebay_admin.cli.login_file import Login, forget_login, read_login, write_login
from forebay_admin.cli.output import json_option, print_json, visible
from forebay_admin.cli.plain import plain, word
from forebay_admin.json_form import moment

_TIMEOUT_S = 15.0
_MOST_BYTES = 64 * 1024


@click.command()
@click.option(
    "--url", metavar="URL", help="Admin's HTTP address, such as https://admin.example.org. Default: this machine's."
)
@click.option("--admin", metavar="HOST:PORT", help="Admin's gRPC address, where it is another than the one it tells.")
@json_option
def login(url: str | None, admin: str | None, as_json: bool) -> None:
    """Sign in: shows a code and an address, and waits until somebody has confirmed the code in a browser there.

    \b
    forebay login
    forebay login --url https://admin.example.org

    What then lets in is kept in ~/.config/forebay/login.json, which only you may read, until `forebay logout`.

    With --json: {"user", "url", "admin", "expires_at"}
    """
    address = (url or admin_url(os.environ)).rstrip("/")
    _demand_url(address)
    status, asked = _post(f"{address}/sign-in/device", {})
    if status != 200:
        raise Unavailable(f"{address} cannot be signed in at: {visible(str(asked.get('error', f'status {status}')))}")
    click.echo(f"Open   {visible(asked['verification_uri_complete'])}", err=as_json)
    click.echo(f"and confirm there the code   {visible(asked['user_code'])}", err=as_json)
    told = _wait(address, asked)
    made = Login(
        address,
        admin or _grpc_address(address, told["admin_grpc"]),
        told["access_token"],
        told["user"],
        told["expires_at"],
    )
    path = write_login(os.environ, made)
    if as_json:
        print_json({"user": made.user, "url": made.url, "admin": made.admin, "expires_at": made.expires_at})
        return
    click.echo(f"Signed in as {visible(made.user)} until {made.expires_at[:10]}; kept in {path}.")


@click.command()
@json_option
def logout(as_json: bool) -> None:
    """Sign out: ends the session of `forebay login`, there and here.

    \b
    forebay logout

    With --json: {"signed_out": true or false}
    """
    held = read_login(os.environ)
    if held is not None:
        try:
            _post(f"{held.url}/sign-out", {}, {"authorization": f"Bearer {held.token}"})
        finally:
            forget_login(os.environ)
    if as_json:
        print_json({"signed_out": held is not None})
        return
    click.echo(f"Signed out of {held.url}." if held is not None else "You were not signed in.")


@click.command()
@json_option
def whoami(as_json: bool) -> None:
    """Show who you are to Forebay, by what, and until when.

    \b
    forebay whoami

    With --json: {"user", "role", "custom_roles", "credential", "credential_id", "expires_at", "may": [calls]}
    """

    async def work(calls: Calls) -> identity_pb2.WhoAmIResponse:
        return await calls(calls.stub.WhoAmI, identity_pb2.WhoAmIRequest())

    me = ask(work)
    if as_json:
        print_json(plain(me))
        return
    roles = ", ".join((me.role, *me.custom_roles))
    until = f", until {moment(me.expires_at_us)[:16].replace('T', ' ')} UTC" if me.HasField("expires_at_us") else ""
    click.echo(f"{visible(me.user) or 'A part of Forebay'} ({visible(roles)})")
    click.echo(f"by the {word(me, 'credential')} {me.credential_id}{until}".rstrip())


def _wait(address: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer once somebody has confirmed it. Raises NotAllowed, Unavailable."""
    every_s, ends_at = max(1, int(asked["interval"])), time.monotonic() + int(asked["expires_in"])
    while time.monotonic() < ends_at:
        time.sleep(every_s)
        status, told = _post(f"{address}/sign-in/device/token", {"device_code": asked["device_code"]})
        if status == 200:
            return told
        match told.get("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                every_s += 2
            case "access_denied":
                raise NotAllowed("It was refused in the browser.")
            case "expired_token":
                break
            case why:
                if status != 429:
                    raise Unavailable(f"{address} answers {status}: {visible(str(why))}")
                every_s += 2
    raise NotAllowed("Nobody confirmed the code in time: begin again.")


def _grpc_address(url: str, told: str) -> str:
    """`told` is HOST:PORT, or :PORT where the host is the one that we came to."""
    return told if not told.startswith(":") else f"{_bracketed(urlsplit(url).hostname or '')}{told}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _demand_url(url: str) -> None:
    """Raises BadInput: what lets in does not travel in the clear, but within this machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url} is no address such as https://admin.example.org")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        click.echo(f"Careful: {url} is not encrypted, so whoever listens can sign in as you.", err=True)


class _Stay(HTTPRedirectHandler):
    """What lets in is sent to the address that was named, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: Mapping[str, str], headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    request = Request(
        url,
        json.dumps(dict(body)).encode(),
        {"content-type": "application/json", "user-agent": _agent(), **(headers or {})},
        method="POST",
    )
    try:
        with build_opener(_Stay).open(request, timeout=_TIMEOUT_S) as answer:
            status, text = answer.status, answer.read(_MOST_BYTES)
    except HTTPError as error:
        with error:
            status, text = error.code, error.read(_MOST_BYTES)
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Unavailable(f"Nothing answers at {url}: {why}") from error
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return status, told if isinstance(told, dict) else {}


def _agent() -> str:
    return f"forebay login on {os.uname().nodename}"[:100]
