"""Nodes, backends, the models last seen on them, and the samples of the agents.

Migrations only add: this code runs on a newer schema, and the code before it on this one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("enrolled_at", MOMENT, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.UniqueConstraint("name", name="nodes_name_key"),
        schema="registry",
    )
    op.create_table(
        "backends",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("node_id", sa.Text, sa.ForeignKey("registry.nodes.id")),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("seen_kind", sa.Text),
        sa.Column("seen_slots", sa.Integer),
        sa.UniqueConstraint("name", name="backends_name_key"),
        sa.UniqueConstraint("url", name="backends_url_key"),
        schema="registry",
    )
    op.create_table(
        "backend_models",
        sa.Column("backend_id", sa.Text, sa.ForeignKey("registry.backends.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("context_length", sa.Integer),
        sa.Column("capabilities", ARRAY(sa.Text), nullable=False),
        sa.Column("loaded", sa.Boolean),
        schema="registry",
    )
    op.create_table(
        "node_samples",
        sa.Column("node_id", sa.Text, sa.ForeignKey("registry.nodes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("agent_started_us", sa.BigInteger, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("sampled_at_us", sa.BigInteger, nullable=False),
        sa.Column("heard_at", MOMENT, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        schema="registry",
    )
    op.create_index("node_samples_heard_at", "node_samples", ["heard_at"], schema="registry")
    op.create_index("node_samples_node_heard_at", "node_samples", ["node_id", "heard_at"], schema="registry")
