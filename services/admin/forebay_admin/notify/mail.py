"""Mail, by the standard library's SMTP client on threads of its own: a server that is slow keeps nothing else waiting."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from forebay.config import read_secret
from forebay.webhook import Posted
from forebay_admin.config import AdminSettings
from forebay_admin.notify.wording import Event, mail_subject, mail_text

TIMEOUT_S = 10.0
"""For each word of the server."""
_MOST_SAID = 200
_MOST_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class MailServer:
    host: str
    port: int
    tls: str
    """`starttls`, `tls` from the first byte, or `none`."""
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None


def mail_server(settings: AdminSettings) -> MailServer | None:
    """None: no mail is sent. Raises CannotStart for a password file that cannot be read."""
    if not settings.smtp_host:
        return None
    password = read_secret(settings.smtp_password_file).decode() if settings.smtp_password_file is not None else ""
    return MailServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_tls,
        settings.smtp_from,
        settings.smtp_user,
        password,
        settings.smtp_ca_file,
    )


class Mailer:
    def __init__(self, server: MailServer | None) -> None:
        self._server = server
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="mail")

    async def send(self, address: str, event: Event) -> Posted:
        """One try. Delivered is what the server has taken."""
        if self._server is None:
            return Posted(False, "No mail server is set up: see admin's setting smtp_host.", 0.0)
        try:
            message = message_of(event, address, self._server.sender)
        except ValueError as error:
            return Posted(False, f"No mail can be made of it: {_words(str(error))}", 0.0, is_gone=True)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _send, self._server, address, message)


def message_of(event: Event, address: str, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = address
    message["Subject"] = mail_subject(event)
    message["Date"] = format_datetime(event.at)
    message["Message-ID"] = f"<{event.id}@{sender.rpartition('@')[2].strip('> ')}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Forebay-Event"] = event.kind
    message.set_content(mail_text(event))
    return message


def _send(server: MailServer, address: str, message: EmailMessage) -> Posted:
    began = time.monotonic()

    def ended(said: str, *, is_delivered: bool = False, is_gone: bool = False) -> Posted:
        return Posted(is_delivered, said, time.monotonic() - began, is_gone=is_gone)

    try:
        client = _connect(server)
        try:
            if server.user:
                client.login(server.user, server.password)
            client.send_message(message, to_addrs=[address])
        finally:
            # However it takes our leave: what it has taken by then is taken.
            with suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()), (0, b""))
        return ended(f"{server.host} does not take mail for it: {code} {_words(said)}", is_gone=code // 100 == 5)
    except smtplib.SMTPAuthenticationError as error:
        # What a server says here may repeat what it was told.
        return ended(f"{server.host} does not let us in as {server.user}: {error.smtp_code}")
    except smtplib.SMTPResponseException as error:
        return ended(f"{server.host} answered {error.smtp_code} {_words(error.smtp_error)}")
    except (OSError, ValueError, smtplib.SMTPException) as error:
        return ended(f"{server.host}:{server.port} cannot be reached: {_words(str(error) or type(error).__name__)}")
    return ended(f"{server.host} has taken it.", is_delivered=True)


def _connect(server: MailServer) -> smtplib.SMTP:
    if server.tls == "none":
        return smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    context = ssl.create_default_context(cafile=str(server.ca_file) if server.ca_file is not None else None)
    if server.tls == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=context)
    client = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    try:
        client.starttls(context=context)
    except BaseException:
        client.close()
        raise
    return client


def _words(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:_MOST_SAID]
