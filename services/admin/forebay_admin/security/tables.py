"""The tables of address rules, bans and security events, as queries name them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, Table, Text, Uuid

from forebay_admin.tables import METADATA

_MOMENT = DateTime(timezone=True)

address_policy = Table(
    "address_policy",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("mode", Text, nullable=False),
    *(Column(name, Integer, nullable=False) for name in ("ban_after", "ban_window_s", "ban_first_s", "ban_longest_s")),
    Column("version", BigInteger, nullable=False),
)

address_rules = Table(
    "address_rules",
    METADATA,
    Column("list", Text, primary_key=True),
    Column("network", Text, primary_key=True),
    Column("note", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)

address_bans = Table(
    "address_bans",
    METADATA,
    Column("network", Text, primary_key=True),
    Column("begun_at", _MOMENT, nullable=False),
    Column("until", _MOMENT),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("strikes", Integer, nullable=False),
    Column("spares_valid", Boolean, nullable=False),
    Column("lifted_at", _MOMENT),
    Column("lifted_by", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)

security_events = Table(
    "security_events",
    METADATA,
    Column("at", _MOMENT, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("last_at", _MOMENT, nullable=False),
    Column("kind", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("source", "address", "key_id", "user", "reason", "detail")),
)

security_acts = Table(
    "security_acts",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("told_seq", BigInteger),
)
