"""How this machine becomes a node: with an invitation, once. The agent's secret is made here and stays here; admin learns
the public half, and answers where samples are to go."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import platform
import re
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.errors import AlreadyExists, CannotStart, ForebayError, NotAllowed, Unavailable
from forebay.signing_keys import parse_line
from forebay_gpu_agent.pin import open_pinned

TIMEOUT_S = 30.0
_MOST_ANSWER_BYTES = 1 << 20
_NODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Invitation:
    admin: str
    """URL of admin's HTTP port, without a slash at the end."""
    token: str
    node: str
    pin: str | None = None
    """`sha256//…` of admin's public key; None: a public CA vouches for it."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Admission:
    """Admin's answer."""

    node: str
    nats_url: str
    ca_pem: str
    command_key: str = ""
    """What the registry signs its commands with; empty: it sends none."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The folder of an agent that has joined, or will."""

    directory: Path

    @property
    def settings_file(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def seed_file(self) -> Path:
        return self.directory / "agent.nk"

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def invitation_file(self) -> Path:
        """The SHA-256 of the token that was used: the same invitation need not be used twice, another one may be meant."""
        return self.directory / "invitation"

    @property
    def node(self) -> str | None:
        """None before it has joined. Raises CannotStart."""
        try:
            tables = tomllib.loads(self.settings_file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CannotStart(f"{self.settings_file} cannot be read: {error}.") from error
        node = tables.get("gpu_agent", {}).get("node")
        return str(node) if node else None


def has_used(invitation: Invitation, membership: Membership) -> bool:
    """Whether this machine has joined by this very invitation."""
    try:
        used = membership.invitation_file.read_text().strip()
    except FileNotFoundError:
        return False
    return used == invitation.fingerprint and membership.node is not None


def join(invitation: Invitation, membership: Membership) -> Admission:
    """Blocking, up to TIMEOUT_S. Raises AlreadyExists when the folder is another node's, Unavailable, NotAllowed with
    admin's words, NotAuthenticated when the pin does not fit, CannotStart when the folder cannot be written."""
    if membership.node not in (None, invitation.node):
        raise AlreadyExists(
            f"{membership.directory} belongs to the agent of the node {membership.node}; choose another --dir for"
            f" {invitation.node}, or remove that folder."
        )
    try:
        membership.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        public_nkey = keep_seed(membership.seed_file)
        admission = ask_for_admission(invitation, public_nkey)
        _write(membership, invitation, admission)
    except OSError as error:
        raise CannotStart(f"{membership.directory} cannot be written: {error.strerror or error}.") from error
    return admission


def keep_seed(file: Path) -> str:
    """The public nkey of the secret in `file`, which is made, for its owner's eyes only, when it is not there."""
    import nkeys

    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        seed = file.read_bytes().strip()
    else:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(seed + b"\n")
    try:
        pair = nkeys.from_seed(bytearray(seed))
    except nkeys.NkeysError as error:
        raise CannotStart(f"{file} holds no nkey; remove it and join again.") from error
    public: bytes = pair.public_key
    return public.decode()


def ask_for_admission(invitation: Invitation, public_nkey: str) -> Admission:
    body = json.dumps({"public_nkey": public_nkey, "hostname": platform.node()}).encode()
    request = urllib.request.Request(
        f"{invitation.admin}/join/{invitation.token}",
        data=body,
        headers={"content-type": "application/json"},
        method="POST",
    )
    opener = open_pinned(invitation.pin) if invitation.pin else urllib.request.build_opener()
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return parse_admission(response.read(_MOST_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(invitation, error.code, error.read(_MOST_ANSWER_BYTES)) from error
    except urllib.error.URLError as error:
        raise Unavailable(f"Admin cannot be reached at {invitation.admin}: {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"Admin at {invitation.admin} did not answer: {error!r}.") from error


def parse_admission(body: bytes) -> Admission:
    """Raises Unavailable for what an agent cannot begin with."""
    try:
        told: Any = json.loads(body)
        node, nats_url, ca_pem = told["node"], told["nats_url"], told.get("ca_pem") or ""
        command_key = told.get("command_key") or ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable("Admin's answer cannot be understood; is that really its address?") from error
    if not isinstance(node, str) or not _NODE.fullmatch(node):
        raise Unavailable(f"Admin gave this machine a name that no node can have: {node!r}.")
    if not isinstance(nats_url, str) or not nats_url.startswith(("nats://", "tls://")):
        raise Unavailable(f"Admin named no address of NATS, which samples travel over: {nats_url!r}.")
    if not isinstance(ca_pem, str):
        raise Unavailable("Admin's answer has a certificate that is no text.")
    if not isinstance(command_key, str) or (command_key and not _is_key(command_key)):
        raise Unavailable("Admin's answer has a key for commands that is none.")
    return Admission(node, nats_url, ca_pem, command_key)


def render_settings(admission: Admission, membership: Membership) -> str:
    """What `forebay run gpu-agent --config` reads."""
    settings = {
        "node": admission.node,
        "nats_url": admission.nats_url,
        "nats_seed_file": str(membership.seed_file.absolute()),
        "disk_path": str(membership.directory.absolute()),
    }
    if admission.ca_pem:
        settings["nats_ca_file"] = str(membership.ca_file.absolute())
    if admission.command_key:
        settings["command_key"] = admission.command_key
    # A JSON string is a TOML string, as long as it does not write letters as pairs of surrogates.
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return "\n".join(["# Written by `forebay agent join`; edit as you like.", "[gpu_agent]", *lines, ""])


def _is_key(line: str) -> bool:
    try:
        parse_line(line)
    except ValueError:
        return False
    return True


def _refusal(invitation: Invitation, status: int, body: bytes) -> ForebayError:
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        told = ""
    why = told if isinstance(told, str) and told else f"it answers with status {status} and no reason"
    kind = Unavailable if status >= 500 else NotAllowed
    return kind(f"Admin at {invitation.admin} does not let this machine in: {why}")


def _write(membership: Membership, invitation: Invitation, admission: Admission) -> None:
    """The settings last: when they are there, everything is."""
    if admission.ca_pem:
        _replace(membership.ca_file, admission.ca_pem)
    _replace(membership.invitation_file, invitation.fingerprint + "\n")
    _replace(membership.settings_file, render_settings(admission, membership))


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f"{file.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    temporary.replace(file)
