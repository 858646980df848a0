"""A strict mail server for tests: it takes one command after the other as RFC 5321 has them, offers STARTTLS and AUTH where
it is told to, and keeps what it was sent."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class SmtpServer:
    tls: ssl.SSLContext | None = None
    login: tuple[str, str] | None = None
    port: int = 0
    mails: list[tuple[str, EmailMessage]] = field(default_factory=list)
    """Recipient and message."""
    refused: dict[str, str] = field(default_factory=dict)
    """Recipient → what it is answered."""
    greeting: str = "220 mail.test ESMTP"
    farewell: str = "221 bye"
    broken: list[str] = field(default_factory=list)
    """What clients did that no client may do."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        secure, known, sender, recipients = False, False, "", list[str]()
        await say(self.greeting)
        while line := await reader.readline():
            if not line.endswith(b"\r\n") or len(line) > 1000:
                self.broken.append(f"no line of SMTP: {line[:50]!r}")
            word, _, rest = line.decode().strip().partition(" ")
            match word.upper():
                case "EHLO":
                    offers = ["mail.test", "8BITMIME"]
                    offers += ["STARTTLS"] if self.tls is not None and not secure else []
                    offers += ["AUTH PLAIN"] if self.login is not None and (secure or self.tls is None) else []
                    for offer in offers[:-1]:
                        await say(f"250-{offer}")
                    await say(f"250 {offers[-1]}")
                case "STARTTLS" if self.tls is not None and not secure:
                    await say("220 go ahead")
                    await writer.start_tls(self.tls)
                    secure, known, sender = True, False, ""
                case "AUTH" if self.login is not None and rest.startswith("PLAIN "):
                    if not secure:
                        self.broken.append("a password without TLS")
                    _, user, password = base64.b64decode(rest.removeprefix("PLAIN ")).decode().split("\0")
                    known = (user, password) == self.login
                    await say("235 welcome" if known else f"535 wrong: {rest}")
                case "MAIL" if self.login is not None and not known:
                    await say("530 who are you?")
                case "MAIL" if rest.upper().startswith("FROM:<"):
                    sender, recipients = rest[6:].partition(">")[0], []
                    await say("250 ok")
                case "RCPT" if sender and rest.upper().startswith("TO:<"):
                    to = rest[4:].partition(">")[0]
                    if to in self.refused:
                        await say(self.refused[to])
                    else:
                        recipients.append(to)
                        await say("250 ok")
                case "DATA" if recipients:
                    await say("354 go on")
                    lines = []
                    while (text := await reader.readuntil(b"\r\n")) != b".\r\n":
                        if len(text) > 1000 or b"\n" in text[:-2]:
                            self.broken.append(f"no line of a mail: {text[:50]!r}")
                        lines.append(text.removeprefix(b"."))
                    for to in recipients:
                        self.mails.append((to, message_from_bytes(b"".join(lines), policy=policy.default)))
                    sender, recipients = "", []
                    await say("250 taken")
                case "RSET":
                    sender, recipients = "", []
                    await say("250 ok")
                case "QUIT":
                    await say(self.farewell)
                    return
                case _:
                    self.broken.append(f"out of turn: {word}")
                    await say("503 out of turn")


@asynccontextmanager
async def open_smtp(
    tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> AsyncIterator[SmtpServer]:
    smtp = SmtpServer(tls, login)
    server = await asyncio.start_server(smtp.serve, "127.0.0.1", 0)
    smtp.port = server.sockets[0].getsockname()[1]
    try:
        yield smtp
    finally:
        server.close()
