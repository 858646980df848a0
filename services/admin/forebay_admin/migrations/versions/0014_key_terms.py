"""What a key may do beyond its models, its second secret, its block; ephemeral keys that were spent; requests for more."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The defaults are for the version before, which makes keys without these columns.
    """
    ALTER TABLE admin.keys
        ADD COLUMN description text NOT NULL DEFAULT '',
        ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN denied_models text[] NOT NULL DEFAULT '{}',
        ADD COLUMN other_pools text[] NOT NULL DEFAULT '{}',
        ADD COLUMN addresses text[] NOT NULL DEFAULT '{}',
        ADD COLUMN calls text[] NOT NULL DEFAULT '{}',
        ADD COLUMN max_output_tokens bigint,
        ADD COLUMN max_context_tokens bigint,
        ADD COLUMN audit_policy text NOT NULL DEFAULT '',
        ADD COLUMN blocked boolean NOT NULL DEFAULT false,
        ADD COLUMN block_reason text NOT NULL DEFAULT '',
        ADD COLUMN blocked_until timestamptz,
        ADD COLUMN old_secret_hmac bytea,
        ADD COLUMN old_secret_until timestamptz
    """,
    "CREATE INDEX keys_labels ON admin.keys USING gin (labels)",
    """
    CREATE TABLE admin.spent_ephemeral_keys (
        id bytea PRIMARY KEY,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX spent_ephemeral_keys_expires_at ON admin.spent_ephemeral_keys (expires_at)",
    # No foreign key: the ledger may know keys that this table does not.
    "CREATE TABLE admin.key_uses (key_id text PRIMARY KEY, used_at timestamptz NOT NULL)",
    """
    CREATE TABLE admin.quota_requests (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES admin.users (id),
        wish jsonb NOT NULL,
        reason text NOT NULL,
        state text NOT NULL,
        created_at timestamptz NOT NULL,
        decided_at timestamptz,
        decided_by text NOT NULL DEFAULT '',
        answer text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX quota_requests_created_at ON admin.quota_requests (created_at, id)",
    "CREATE INDEX quota_requests_of_user ON admin.quota_requests (user_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
