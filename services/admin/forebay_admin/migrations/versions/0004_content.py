"""What clients let Forebay keep for them: responses, conversations and their items, files, batches."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The body is bytea: it is given back as it came, byte for byte, and nobody asks what is in it. Ids are ordered by their
    # bytes, so that things of the same moment come in the same order whatever language the database speaks.
    """
    CREATE TABLE admin.content (
        kind text NOT NULL,
        id text COLLATE "C" NOT NULL,
        user_id text NOT NULL REFERENCES admin.users (id) ON DELETE CASCADE,
        parent_id text COLLATE "C",
        created_at timestamptz NOT NULL,
        expires_at timestamptz,
        body bytea NOT NULL,
        blob_path text,
        blob_bytes bigint NOT NULL DEFAULT 0 CHECK (blob_bytes >= 0),
        bytes bigint NOT NULL GENERATED ALWAYS AS (octet_length(body) + blob_bytes) STORED,
        PRIMARY KEY (kind, id)
    )
    """,
    # Pages, and with the columns at its end what a user has in all, without a look at the rows.
    """
    CREATE INDEX content_of_user ON admin.content (user_id, kind, created_at, id) INCLUDE (expires_at, bytes)
    """,
    """
    CREATE INDEX content_within ON admin.content (kind, parent_id, created_at, id) WHERE parent_id IS NOT NULL
    """,
    "CREATE INDEX content_expiry ON admin.content (expires_at) WHERE expires_at IS NOT NULL",
    # Which files have a row.
    "CREATE UNIQUE INDEX content_blob ON admin.content (blob_path) WHERE blob_path IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
