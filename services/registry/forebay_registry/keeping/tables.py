"""The tables of the schema `registry`, as queries name them. `migrations` makes them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
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
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA = "registry"
METADATA = MetaData(schema=SCHEMA)

_MOMENT = DateTime(timezone=True)
_NO_LABELS = text("'{}'::jsonb")

nodes = Table(
    "nodes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("enrolled_at", _MOMENT, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("labels", JSONB, nullable=False, server_default=_NO_LABELS),
    Column("note", Text, nullable=False, server_default=""),
    Column("has_agent", Boolean, nullable=False, server_default=true()),
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
    Column("gpu_indices", ARRAY(Integer), nullable=False, server_default=text("'{}'")),
    Column("weight_milli", Integer, nullable=False, server_default="0"),
    Column("kv_tokens", BigInteger),
    Column("requests_per_minute", BigInteger),
    Column("models_at_once", Integer),
    Column("labels", JSONB, nullable=False, server_default=_NO_LABELS),
    Column(
        "found_by", Text, nullable=False, server_default=text("''")
    ),  # agent or kubernetes; empty: somebody wants it
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

pools = Table(
    "pools",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("hosts", ARRAY(Text), nullable=False),
    Column("path_prefix", Text, nullable=False),
    Column("required_models", ARRAY(Text), nullable=False),
    Column("pull", Text, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
    Column("changed_by", Text, nullable=False),
)

model_facts = Table(
    "model_facts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("capabilities", ARRAY(Text), nullable=False),
    Column("context_length", Integer),
    Column("quantization", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("description", Text, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
    Column("changed_by", Text, nullable=False),
)

fleet_counter = Table(
    "fleet_counter",
    METADATA,
    Column("one", Boolean, CheckConstraint("one", name="fleet_counter_one"), primary_key=True),
    Column("version", BigInteger, nullable=False),  # of the desired state; locked by whoever changes it
)

fleet_versions = Table(
    "fleet_versions",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _MOMENT, nullable=False),
    Column("actor", Text, nullable=False),
    Column(
        "changes", JSONB, nullable=False
    ),  # [{"kind", "name", "before", "after"}]: what it made of the version before
)

last_samples = Table(
    "last_samples",
    METADATA,
    Column("node_id", Text, ForeignKey(nodes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("agent_started_us", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("sampled_at_us", BigInteger, nullable=False),  # as the agent said it, which may be no moment at all
    Column("heard_at", _MOMENT, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # TelemetrySample
)

node_samples = Table(  # empty: it is there for the version before, which kept all samples of a day
    "node_samples",
    METADATA,
    Column("node_id", Text, ForeignKey(nodes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("agent_started_us", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("sampled_at_us", BigInteger, nullable=False),
    Column("heard_at", _MOMENT, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("node_samples_heard_at", "heard_at"),
    Index("node_samples_node_heard_at", "node_id", "heard_at"),
)

found_engines = Table(
    "found_engines",
    METADATA,
    Column("url", Text, primary_key=True),  # added by itself once; without a backend there: turned away since
    Column("found_by", Text, nullable=False),
    Column("added_at", _MOMENT, nullable=False),
)

node_discovery = Table(
    "node_discovery",
    METADATA,
    Column("node_id", Text, ForeignKey(nodes.c.id, ondelete="CASCADE"), primary_key=True),
    Column(
        "policy", Text, nullable=False, server_default=text("''")
    ),  # suggest, auto or off; empty: as the settings say
    Column("pool", Text, nullable=False, server_default=text("''")),
    Column("addresses", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),  # by an operator, best first
    Column("joined_from", Text, nullable=False, server_default=text("''")),
)

leadership = Table(
    "leadership",
    METADATA,
    Column(
        "one", Boolean, CheckConstraint("one", name="leadership_one_row"), primary_key=True, server_default=text("true")
    ),
    Column("epoch", BigInteger, nullable=False),  # of the registry that may write
    Column("holder", Text, nullable=False),  # HOST:PORT
    Column("taken_at", _MOMENT, nullable=False),
)

model_jobs = Table(
    "model_jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("action", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("keep_alive", Text, nullable=False),
    Column("force", Boolean, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("ended_at", _MOMENT),
    Index("model_jobs_created_at", "created_at"),
)

model_job_targets = Table(
    "model_job_targets",
    METADATA,
    Column("job_id", Text, ForeignKey(model_jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("backend_id", Text, primary_key=True),  # which may be gone by now
    Column("backend", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("completed_bytes", BigInteger),
    Column("total_bytes", BigInteger),
    Column("status", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("load_ms", Integer),
    Column("warmup_ms", Integer),
    Column("started_at", _MOMENT),
    Column("ended_at", _MOMENT),
)

pinned_models = Table(
    "pinned_models",
    METADATA,
    Column("backend_id", Text, ForeignKey(backends.c.id, ondelete="CASCADE"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("pinned_at", _MOMENT, nullable=False),
    Column("pinned_by", Text, nullable=False),
)
