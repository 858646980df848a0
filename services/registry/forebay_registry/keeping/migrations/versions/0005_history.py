"""Minutes and hours of nodes, GPUs, backends and models, in partitions by time; and the last sample of each node instead
of all of a day. The table of all samples stays for the version before, without its rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"

MOMENT = sa.DateTime(timezone=True)


def rollup(name: str, *columns: sa.Column) -> None:
    op.create_table(
        name,
        sa.Column("series_id", sa.Integer, primary_key=True),
        sa.Column("at", MOMENT, primary_key=True),
        *columns,
        sa.Column("mins", ARRAY(sa.REAL), nullable=False),
        sa.Column("means", ARRAY(sa.REAL), nullable=False),
        sa.Column("maxs", ARRAY(sa.REAL), nullable=False),
        sa.Column("lasts", ARRAY(sa.REAL), nullable=False),
        sa.Column("gpu_wh", sa.Double),
        sa.Column("server_wh", sa.Double),
        sa.Column("idle_wh", sa.Double),
        sa.Column("measured_s", sa.REAL, nullable=False),
        sa.Column("is_estimated", sa.Boolean, nullable=False),
        schema="registry",
        postgresql_partition_by="RANGE (at)",
    )


def upgrade() -> None:
    op.create_table(
        "history_series",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "ref", name="history_series_kind_ref_key"),
        schema="registry",
    )
    op.create_index("history_series_name", "history_series", ["kind", "name"], schema="registry")
    rollup("history_minutes", sa.Column("samples", ARRAY(sa.SmallInteger), nullable=False))
    rollup(
        "history_hours",
        sa.Column("samples", ARRAY(sa.Integer), nullable=False),
        sa.Column("minutes", ARRAY(sa.SmallInteger), nullable=False),
    )
    op.create_table("history_hours_due", sa.Column("hour", MOMENT, primary_key=True), schema="registry")
    op.create_table(
        "history_flushes",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("run", sa.Uuid, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        schema="registry",
    )
    op.create_table(
        "last_samples",
        sa.Column("node_id", sa.Text, sa.ForeignKey("registry.nodes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("agent_started_us", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("sampled_at_us", sa.BigInteger, nullable=False),
        sa.Column("heard_at", MOMENT, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        schema="registry",
    )
    op.execute(
        """
        INSERT INTO registry.last_samples (node_id, agent_started_us, sequence, sampled_at_us, heard_at, payload)
        SELECT DISTINCT ON (node_id) node_id, agent_started_us, sequence, sampled_at_us, heard_at, payload
        FROM registry.node_samples ORDER BY node_id, heard_at DESC, sequence DESC
        """
    )
    op.execute("TRUNCATE registry.node_samples")
