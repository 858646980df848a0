"""The desired state of the fleet: pools, what operators say of models, more about backends and nodes, and each of its
versions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)
NOTHING = sa.text("'{}'")
NO_LABELS = sa.text("'{}'::jsonb")


def upgrade() -> None:
    for column in (
        sa.Column("labels", JSONB, nullable=False, server_default=NO_LABELS),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("has_agent", sa.Boolean, nullable=False, server_default=sa.true()),
    ):
        op.add_column("nodes", column, schema="registry")
    for column in (
        sa.Column("gpu_indices", ARRAY(sa.Integer), nullable=False, server_default=NOTHING),
        sa.Column("weight_milli", sa.Integer, nullable=False, server_default="0"),
        sa.Column("kv_tokens", sa.BigInteger),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("models_at_once", sa.Integer),
        sa.Column("labels", JSONB, nullable=False, server_default=NO_LABELS),
    ):
        op.add_column("backends", column, schema="registry")
    op.create_table(
        "pools",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("hosts", ARRAY(sa.Text), nullable=False),
        sa.Column("path_prefix", sa.Text, nullable=False),
        sa.Column("required_models", ARRAY(sa.Text), nullable=False),
        sa.Column("pull", sa.Text, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        schema="registry",
    )
    op.create_table(
        "model_facts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("capabilities", ARRAY(sa.Text), nullable=False),
        sa.Column("context_length", sa.Integer),
        sa.Column("quantization", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        schema="registry",
    )
    op.create_table(
        "fleet_counter",
        sa.Column("one", sa.Boolean, sa.CheckConstraint("one", name="fleet_counter_one"), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        schema="registry",
    )
    op.execute("INSERT INTO registry.fleet_counter (one, version) VALUES (true, 0)")
    op.create_table(
        "fleet_versions",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("changes", JSONB, nullable=False),
        schema="registry",
    )
