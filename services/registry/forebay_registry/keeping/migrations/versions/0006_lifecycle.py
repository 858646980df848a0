"""What takes backends out of service for a while, by order or by the calendar; and how each backend has changed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "drains",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("ends_at", MOMENT),
        sa.Column("is_forced", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        schema="registry",
    )
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("begins_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("drain_before_s", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.Column("added_by", sa.Text, nullable=False),
        schema="registry",
    )
    op.create_table(
        "health_changes",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("backend_id", sa.Text, sa.ForeignKey("registry.backends.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("in_maintenance", sa.Boolean, nullable=False),
        schema="registry",
    )
    op.create_index("health_changes_of_backend", "health_changes", ["backend_id", "id"], schema="registry")
