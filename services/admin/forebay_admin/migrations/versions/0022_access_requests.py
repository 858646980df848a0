"""Who is no user yet and asks to be one."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    """
    CREATE TABLE admin.access_requests (
        id text PRIMARY KEY,
        name text NOT NULL,
        mail text NOT NULL,
        reason text NOT NULL,
        address text NOT NULL,
        state text NOT NULL CHECK (state IN ('open', 'approved', 'denied')),
        created_at timestamptz NOT NULL,
        decided_at timestamptz,
        decided_by text NOT NULL DEFAULT '',
        answer text NOT NULL DEFAULT '',
        user_name text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX access_requests_at ON admin.access_requests (created_at)",
    # Whoever asks twice asks once.
    "CREATE UNIQUE INDEX access_requests_open ON admin.access_requests (lower(mail)) WHERE state = 'open'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
