"""Who is told of events and how: what a subscription may be. Pure; keeping them is subscription_store's job."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from forebay.engine_addresses import refusal
from forebay.errors import BadInput, NotAllowed, NotPossible
from forebay.webhook import host_of
from forebay_admin.notify.kinds import demand_kinds

OWNERS, NATS = "owners", "nats"
"""The two that are always there: whom an event is about, by mail; and everything, on NATS."""
MOST = 200
MOST_OF_ONE = 10
"""Of one user's own."""

_LONGEST_URL = 2000
_LONGEST_MAIL = 254
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}")
_SECRET_PREFIX = "whsec_"
_LEAST_SECRET, _MOST_SECRET = 16, 64


class Channel(StrEnum):
    WEBHOOK = "webhook"
    MAIL = "mail"
    NATS = "nats"


@dataclass(frozen=True, slots=True)
class Subscription:
    id: str
    channel: Channel
    address: str
    """A mail's, or a webhook's host. Empty: whom each event is about."""
    kinds: tuple[str, ...]
    user_id: str
    """Of whose own affairs it tells. Empty: of everybody's."""
    user_name: str
    created_by: str
    created_at: datetime
    delivered: int = 0
    delivered_at: datetime | None = None
    failing_since: datetime | None = None
    last_error: str = ""
    waiting: int = 0
    dead: int = 0

    @property
    def is_fixed(self) -> bool:
        return self.id in (OWNERS, NATS)

    def __str__(self) -> str:
        return f"{self.channel} {self.address}".strip()


@dataclass(frozen=True, slots=True)
class Order:
    """A subscription that somebody wants."""

    id: str
    channel: Channel
    address: str
    kinds: tuple[str, ...]
    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    """`whsec_` and base64, as the Standard Webhooks specification writes keys."""


def order_subscription(
    *, channel: str, address: str, secret: str, kinds: Sequence[str], own_name: str | None, has_mail: bool
) -> Order:
    """`own_name`: of a user who may subscribe only to what is their own. Raises BadInput, NotAllowed, NotPossible."""
    wanted = tuple(demand_kinds(kinds))
    subscription_id = f"sub_{secrets.token_hex(6)}"
    match channel:
        case Channel.WEBHOOK:
            if own_name is not None:
                raise NotAllowed("Webhooks are added by operators, since they have this server call an address.")
            return Order(
                subscription_id,
                Channel.WEBHOOK,
                host_of(demand_url(address)),
                wanted,
                url=address,
                secret=demand_secret(secret),
            )
        case Channel.MAIL:
            if secret:
                raise BadInput("A mail is not signed: a secret is for a webhook.")
            if not has_mail:
                raise NotPossible("No mail can be sent: admin's setting smtp_host names no server.")
            to = demand_mail(address or own_name or "")
            if own_name is not None and to.lower() != own_name.lower():
                raise NotAllowed(
                    f"{own_name} may have mail sent only to an address that is their name: ask an operator."
                )
            return Order(subscription_id, Channel.MAIL, to, wanted)
        case Channel.NATS:
            raise BadInput("All events are on NATS already, under forebay.events.notices.>: nothing has to be added.")
        case _:
            raise BadInput(f"There is no way {channel[:40]!r} to tell of events; there are webhook and mail.")


def demand_url(url: str) -> str:
    """Raises BadInput, which says nothing of a path or query: they may be secrets."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or len(url) > _LONGEST_URL or not (url.isascii() and url.isprintable() and " " not in url):
        raise BadInput("A webhook's address begins with http:// or https:// and names a host.")
    if parts.username or parts.password:
        raise BadInput("A webhook's address holds no user and password: messages are signed instead.")
    if refusal(url) is not None:
        raise BadInput(f"{host_of(url)} is a cloud's metadata service or a link-local address, and is told nothing.")
    return url


def is_mail(address: str) -> bool:
    # With =? a name is taken for an encoded word, which may stand for anything.
    return len(address) <= _LONGEST_MAIL and "=?" not in address and _MAIL.fullmatch(address) is not None


def demand_mail(address: str) -> str:
    """Raises BadInput."""
    if not is_mail(address):
        raise BadInput(f"{address[:80]!r} is not a mail address, such as ops@example.com.")
    return address


def demand_secret(secret: str) -> str:
    """A new one where none is given. Raises BadInput."""
    if not secret:
        return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    try:
        if not secret.startswith(_SECRET_PREFIX):
            raise ValueError
        length = len(base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True))
    except ValueError:
        length = 0
    if not _LEAST_SECRET <= length <= _MOST_SECRET:
        raise BadInput(
            f"A webhook's secret is {_SECRET_PREFIX} and {_LEAST_SECRET} to {_MOST_SECRET} bytes in base64; give none to "
            "have one made."
        ) from None
    return secret


def key_of(secret: str) -> bytes:
    """What messages are signed with."""
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
