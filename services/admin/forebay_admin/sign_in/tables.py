"""The tables behind signing in, as queries name them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, ForeignKey, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from forebay_admin.tables import METADATA, users

_MOMENT = DateTime(timezone=True)

custom_roles = Table(
    "custom_roles",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("about", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)

user_roles = Table(
    "user_roles",
    METADATA,
    Column("user_id", Text, ForeignKey(users.c.id), primary_key=True),
    Column("roles", ARRAY(Text), nullable=False),
    Column("version", BigInteger, nullable=False),
)

admin_tokens = Table(
    "admin_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("revoked_at", _MOMENT),
    Column("last_used_at", _MOMENT),
    Column("version", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("last_seen_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("ended_at", _MOMENT),
    Column("version", BigInteger, nullable=False),
)

passwords = Table(
    "passwords",
    METADATA,
    Column("user_id", Text, ForeignKey(users.c.id), primary_key=True),
    Column("hash", Text, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
)

password_resets = Table(
    "password_resets",
    METADATA,
    Column("token_hmac", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
)

sign_in_failures = Table(
    "sign_in_failures",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", _MOMENT, nullable=False),
    Column("locked_until", _MOMENT),
)

identities = Table(
    "identities",
    METADATA,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("provider", Text, nullable=False),
    Column("linked_at", _MOMENT, nullable=False),
)

spent_states = Table(
    "spent_states",
    METADATA,
    Column("mark", LargeBinary, primary_key=True),
    Column("until", _MOMENT, nullable=False),
)

device_codes = Table(
    "device_codes",
    METADATA,
    Column("device_hmac", LargeBinary, primary_key=True),
    Column("user_code", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("asked_at", _MOMENT),
    Column("user_id", Text, ForeignKey(users.c.id)),
    Column("way", Text, nullable=False),
    Column("refused", Boolean, nullable=False),
)

access_requests = Table(
    "access_requests",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("mail", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("decided_at", _MOMENT),
    Column("decided_by", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("user_name", Text, nullable=False),
)
