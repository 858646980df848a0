"""The tables of the schema `registry`, as queries name them. `migrations` makes them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA = "registry"
METADATA = MetaData(schema=SCHEMA)

_MOMENT = DateTime(timezone=True)

nodes = Table(
    "nodes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("enrolled_at", _MOMENT, nullable=False),
    Column("changed_by", Text, nullable=False),
    UniqueConstraint("name", name="nodes_name_key"),
)

backends = Table(
    "backends",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("kind", Text),  # null: to be found out
    Column("pool", Text, nullable=False),
    Column("slots", Integer, nullable=False),  # 0: what the engine says
    Column("node_id", Text, ForeignKey(nodes.c.id)),
    Column("enabled", Boolean, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("seen_kind", Text),  # what the engine said last, for the time after a restart
    Column("seen_slots", Integer),
    Column("model_names", JSONB, nullable=False, server_default=text("'{}'::jsonb")),  # in the fleet → at the engine
    UniqueConstraint("name", name="backends_name_key"),
    UniqueConstraint("url", name="backends_url_key"),
)

backend_models = Table(
    "backend_models",
    METADATA,
    Column("backend_id", Text, ForeignKey(backends.c.id, ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("context_length", Integer),
    Column("capabilities", ARRAY(Text), nullable=False),
    Column("loaded", Boolean),
)

node_samples = Table(
    "node_samples",
    METADATA,
    Column("node_id", Text, ForeignKey(nodes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("agent_started_us", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("sampled_at_us", BigInteger, nullable=False),  # as the agent said it, which may be no moment at all
    Column("heard_at", _MOMENT, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # TelemetrySample
    Index("node_samples_heard_at", "heard_at"),
    Index("node_samples_node_heard_at", "node_id", "heard_at"),
)
