"""Orders to engines about their models, how each goes on each backend, and models that stay in memory."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "model_jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("keep_alive", sa.Text, nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        schema="registry",
    )
    op.create_index("model_jobs_created_at", "model_jobs", ["created_at"], schema="registry")
    op.create_table(
        "model_job_targets",
        sa.Column("job_id", sa.Text, sa.ForeignKey("registry.model_jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("backend_id", sa.Text, primary_key=True),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("completed_bytes", sa.BigInteger),
        sa.Column("total_bytes", sa.BigInteger),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("load_ms", sa.Integer),
        sa.Column("warmup_ms", sa.Integer),
        sa.Column("started_at", MOMENT),
        sa.Column("ended_at", MOMENT),
        schema="registry",
    )
    op.create_table(
        "pinned_models",
        sa.Column("backend_id", sa.Text, sa.ForeignKey("registry.backends.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("pinned_at", MOMENT, nullable=False),
        sa.Column("pinned_by", sa.Text, nullable=False),
        schema="registry",
    )
