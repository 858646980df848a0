"""Several credentials for one backend, each with a label."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = (
    # What there was before keeps its seal, which was made for the backend alone: see credential_store.
    "ALTER TABLE admin.backend_credentials ADD COLUMN label text NOT NULL DEFAULT 'default' CHECK (label <> '')",
    "ALTER TABLE admin.backend_credentials DROP CONSTRAINT backend_credentials_pkey",
    "ALTER TABLE admin.backend_credentials ADD PRIMARY KEY (backend_id, label)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
