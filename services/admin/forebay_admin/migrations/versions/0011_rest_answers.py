"""Answers of the REST API to requests with an Idempotency-Key, for a day."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE admin.rest_answers (
        caller text NOT NULL,
        idempotency_key text NOT NULL,
        request_mac bytea NOT NULL,
        begun_at timestamptz NOT NULL,
        status integer,
        sealed bytea,
        PRIMARY KEY (caller, idempotency_key)
    )
    """,
    "CREATE INDEX rest_answers_begun_at ON admin.rest_answers (begun_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
