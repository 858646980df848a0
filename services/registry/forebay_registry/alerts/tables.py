"""The tables of alerts, as the migrations make them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from forebay_registry.keeping.tables import METADATA

_MOMENT = DateTime(timezone=True)

alerts = Table(
    "alerts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("node", Text, nullable=False),  # its name; empty: on none
    Column("severity", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("todo", Text, nullable=False),
    Column("began_at", _MOMENT, nullable=False),
    Column("opened_at", _MOMENT, nullable=False),
    Column("closed_at", _MOMENT),
    Column("closed_because", Text, nullable=False),
    Column("acked_at", _MOMENT),
    Column("acked_by", Text, nullable=False),
    Column("ack_note", Text, nullable=False),
    Column("notified_at", _MOMENT),
    Column("events", Integer, nullable=False),
    Index("alerts_open", "rule", "subject", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("alerts_by_time", "opened_at"),
)

silences = Table(
    "silences",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("added_at", _MOMENT, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("ends_at", _MOMENT, nullable=False),
    Column("reason", Text, nullable=False),
)

webhook_messages = Table(
    "webhook_messages",
    METADATA,
    Column("id", Text, primary_key=True),  # of the event
    Column("webhook", Text, primary_key=True),
    Column("alert_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),  # of the event within its alert
    Column("made_at", _MOMENT, nullable=False),
    Column("body", JSONB, nullable=False),
)
