"""The script that an invited machine runs: installs the agent in a folder of its own, enrols it, starts it.

POSIX sh and nothing more than curl and Python. The whole of it is one function that is called on the last line, so that a
download which breaks off runs nothing. Values come in quoted; the text below never mentions them except as variables."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class JoinScript:
    url: str
    """Of admin's HTTP port, without a slash at the end."""
    token: str
    node: str
    wheel_name: str
    pin: str | None
    """`sha256//…` of the server's public key, where no public CA signed its certificate."""

    def render(self) -> str:
        values = {
            "admin": self.url,
            "token": self.token,
            "node": self.node,
            "wheel": self.wheel_name,
            "pin": self.pin or "",
        }
        assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        body = files("forebay_admin.fleet").joinpath("join.sh").read_text()
        return f"#!/bin/sh\n# Makes this machine a node of Forebay.\nset -eu\n\n{assignments}\n{body}"


def refusal_script(why: str) -> str:
    """For an invitation that lets nobody in. It says so on the machine where the command was pasted, and fails there:
    `curl | sh` would take an HTTP error for an empty script and succeed."""
    return f"#!/bin/sh\nprintf 'forebay: %s\\n' {shlex.quote(why)} >&2\nexit 1\n"
