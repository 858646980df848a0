"""What is told when everything is ready: to programs in connection.json, to the person at the terminal in words."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from forebay.local.data_directory import DataDirectory, default_root
from forebay.local.front import Front
from forebay.local.layout import LOOPBACK, Layout
from forebay.local.secret_files import write_private

_QUESTION = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class Announcement:
    layout: Layout
    front: Front
    data: DataDirectory
    models: tuple[str, ...]
    admin_key: str
    """Empty when its file was taken away."""
    is_first_start: bool
    password_url: str = ""
    """Where the first admin sets a password, once. Empty: nobody was asked for it."""
    admin_ca: Path | None = None
    """Of the gRPC port for operators' commands, which is another one then. None: it speaks no TLS."""

    @property
    def gateway(self) -> str:
        return self.front.url(self.layout.base)

    @property
    def dashboard(self) -> str:
        """The pages, on admin's HTTP port."""
        return self.front.url(self.layout.admin_http)

    @property
    def _admin_grpc(self) -> str:
        return f"{LOOPBACK}:{self.layout.operators if self.admin_ca else self.layout.admin}"

    def write_connection(self) -> None:
        told = {
            "gateway": self.gateway,
            "admin_http": self.dashboard,
            "admin_grpc": self._admin_grpc,
            "admin_key": self.admin_key,
            **({"admin_ca": str(self.admin_ca)} if self.admin_ca else {}),
        }
        write_private(self.data.connection_file, json.dumps(told, indent=1).encode() + b"\n")

    def text(self) -> str:
        more = [self.front.url(self.layout.gateway(name)) for name in self.layout.gateways[1:]]
        models = ", ".join(self.models) or f"none yet: {self._command()} backend add NAME URL"
        lines = [
            "",
            "Forebay is ready. Ctrl-C stops it.",
            "",
            f"  gateway     {'  '.join([self.gateway, *more])}   (OpenAI: {self.gateway}/v1)",
            f"  dashboard   {self.dashboard}   (REST API: {self.dashboard}/docs)",
            f"  admin gRPC  {self._admin_grpc}   (for {self._command()}, which finds it by itself)",
            f"  models      {models}",
            f"  data        {self.data.root}   (logs in {self.data.logs})",
        ]
        if self.front.certificate and self.front.certificate.ca:
            lines.append(f"  trust       {self.front.certificate.ca}   (the local CA, for other machines)")
        if self.is_first_start and self.admin_key:
            lines += ["", f"The first admin's key, shown this once and kept in {self.data.admin_key_file}:", ""]
            lines += [f"  {self.admin_key}"]
        if self.is_first_start and self.password_url:
            lines += ["", "Set a password for the dashboard's user admin (a link that is good once, for a day):", ""]
            lines += [f"  {self.password_url}"]
        if self.models:
            lines += ["", "Try it:", "", self.curl()]
        return "\n".join([*lines, ""])

    def _command(self) -> str:
        """How operators' commands are typed so that they talk to this Forebay."""
        if self.data.root == default_root():
            return "forebay"
        return f"FOREBAY_DATA_DIR={_quoted(self.data.root)} forebay"

    def curl(self) -> str:
        """One command that works when pasted, on this machine and as this user."""
        body = {
            "model": self.models[0],
            "stream": True,
            "max_tokens": 64,
            "messages": [{"role": "user", "content": _QUESTION}],
        }
        shown = self.front.certificate
        trust = f"--cacert {_quoted(shown.ca)} " if shown and shown.ca else ""
        key = f'-H "authorization: Bearer $(cat {_quoted(self.data.admin_key_file)})"'
        return (
            f"curl -sN {trust}{self.gateway}/v1/chat/completions {key} \\\n"
            f"  -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"
        )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
