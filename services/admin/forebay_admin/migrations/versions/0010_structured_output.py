"""What gateways do about answers that must be JSON."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE admin.model_rules ADD COLUMN structured text CHECK (structured IN ('trust', 'check', 'ask_again'))"
    )
