"""Batches of requests, and what became of each of their lines."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE admin.batches (
        id text COLLATE "C" PRIMARY KEY,
        user_id text NOT NULL REFERENCES admin.users (id),
        key_id text NOT NULL REFERENCES admin.keys (public_id),
        endpoint text NOT NULL,
        input_file_id text NOT NULL,
        metadata text NOT NULL,
        output_expires_s integer CHECK (output_expires_s > 0),
        status text NOT NULL CHECK (status IN ('validating', 'in_progress', 'finalizing', 'completed', 'failed', 'expired',
            'cancelling', 'cancelled')),
        ending text CHECK (ending IN ('completed', 'failed', 'expired', 'cancelled')),
        errors text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        in_progress_at timestamptz,
        finalizing_at timestamptz,
        completed_at timestamptz,
        failed_at timestamptz,
        expired_at timestamptz,
        cancelling_at timestamptz,
        cancelled_at timestamptz,
        output_file_id text,
        error_file_id text,
        total integer NOT NULL,
        completed integer NOT NULL,
        failed integer NOT NULL
    )
    """,
    "CREATE INDEX ON admin.batches (user_id, created_at, id)",
    """
    CREATE INDEX ON admin.batches (created_at, id)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
    """,
    # A line is sent once its row is committed as started, and counts as answered once its row is committed as done.
    """
    CREATE TABLE admin.batch_lines (
        batch_id text COLLATE "C" NOT NULL REFERENCES admin.batches (id) ON DELETE CASCADE,
        line integer NOT NULL,
        custom_id text NOT NULL,
        first_byte bigint NOT NULL,
        bytes integer NOT NULL,
        state text NOT NULL CHECK (state IN ('waiting', 'started', 'done')),
        attempts integer NOT NULL,
        engine_failures integer NOT NULL,
        ledger_id uuid CHECK ((ledger_id IS NULL) = (state = 'waiting')),
        status_code integer,
        request_id text,
        answer bytea,
        error_code text,
        error_message text,
        PRIMARY KEY (batch_id, line),
        CHECK ((state = 'done') = (status_code IS NOT NULL OR error_code IS NOT NULL)),
        CHECK ((status_code IS NULL) = (answer IS NULL))
    )
    """,
    "CREATE INDEX ON admin.batch_lines (batch_id, attempts, line) WHERE state = 'waiting'",
    "CREATE INDEX ON admin.batch_lines (batch_id) WHERE state = 'started'",
    "CREATE UNIQUE INDEX ON admin.batch_lines (ledger_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
