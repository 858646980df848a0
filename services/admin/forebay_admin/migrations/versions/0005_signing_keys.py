"""Public keys that sign calls, each trusted by one API key."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The fingerprint is a hash of the public key, so that each is trusted by one key at most.
    """
    CREATE TABLE admin.signing_keys (
        fingerprint text PRIMARY KEY,
        public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
        key_id text NOT NULL REFERENCES admin.keys (public_id) ON DELETE CASCADE,
        name text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX signing_keys_of_key ON admin.signing_keys (key_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
