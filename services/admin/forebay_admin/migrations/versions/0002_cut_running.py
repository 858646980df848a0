"""Whether the revocation of a key ends running requests too."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is a constant, so no row is rewritten, and a replica that does not know the column yet still inserts keys.
    op.execute("ALTER TABLE admin.keys ADD COLUMN cut_running boolean NOT NULL DEFAULT false")
