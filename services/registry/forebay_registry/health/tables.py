"""The tables of drains, maintenance windows and changes of health, as the migrations make them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, DateTime, ForeignKey, Identity, Index, Integer, Table, Text

from forebay_registry.keeping.tables import METADATA, backends

_MOMENT = DateTime(timezone=True)

drains = Table(
    "drains",
    METADATA,
    Column("scope", Text, primary_key=True),  # backend or node
    Column("subject", Text, primary_key=True),  # its id; one that is gone harms nobody
    Column("asked_at", _MOMENT, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("ends_at", _MOMENT),
    Column("is_forced", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
)

maintenance = Table(
    "maintenance",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of a backend or a node, the name of a pool
    Column("begins_at", _MOMENT, nullable=False),
    Column("ends_at", _MOMENT, nullable=False),
    Column("drain_before_s", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("added_at", _MOMENT, nullable=False),
    Column("added_by", Text, nullable=False),
)

health_changes = Table(
    "health_changes",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("backend_id", Text, ForeignKey(backends.c.id, ondelete="CASCADE"), nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("in_maintenance", Boolean, nullable=False),
    Index("health_changes_of_backend", "backend_id", "id"),
)
