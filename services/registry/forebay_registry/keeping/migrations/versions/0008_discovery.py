"""What the registry found by itself: who found a backend, what was added once (and may have been turned away since), and
what it may do with the engines of a node."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column(
        "backends", sa.Column("found_by", sa.Text, nullable=False, server_default=sa.text("''")), schema="registry"
    )
    op.create_table(
        "found_engines",
        sa.Column("url", sa.Text, primary_key=True),
        sa.Column("found_by", sa.Text, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        schema="registry",
    )
    op.create_table(
        "node_discovery",
        sa.Column("node_id", sa.Text, sa.ForeignKey("registry.nodes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("policy", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("pool", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("addresses", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
        sa.Column("joined_from", sa.Text, nullable=False, server_default=sa.text("''")),
        schema="registry",
    )
