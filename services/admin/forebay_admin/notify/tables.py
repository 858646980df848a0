"""The tables behind notifications, as queries name them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from forebay_admin.tables import METADATA, budgets

_MOMENT = DateTime(timezone=True)

events = Table(
    "events",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("body", JSONB, nullable=False),
)

event_subscriptions = Table(
    "event_subscriptions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("sealed", LargeBinary),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("delivered_at", _MOMENT),
    Column("failures", Integer, nullable=False),
    Column("failing_since", _MOMENT),
    Column("retry_at", _MOMENT, nullable=False),
    Column("last_error", Text, nullable=False),
)

event_deliveries = Table(
    "event_deliveries",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("event_id", Text, ForeignKey(events.c.id), nullable=False),
    Column("subscription_id", Text, ForeignKey(event_subscriptions.c.id), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("since", _MOMENT, nullable=False),
    Column("due_at", _MOMENT, nullable=False),
    Column("ended_at", _MOMENT),
    Column("said", Text, nullable=False),
)

event_marks = Table(
    "event_marks",
    METADATA,
    Column("subject", Text, primary_key=True),
    Column("span", Text, primary_key=True),
    Column("percent", SmallInteger, primary_key=True),
    Column("at", _MOMENT, nullable=False),
)

budget_thresholds = Table(
    "budget_thresholds",
    METADATA,
    Column("budget_id", Text, ForeignKey(budgets.c.id), primary_key=True),
    Column("percents", ARRAY(SmallInteger), nullable=False),
)
