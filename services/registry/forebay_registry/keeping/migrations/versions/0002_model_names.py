"""What engines call the fleet's models, where an operator has said so."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "backends",
        sa.Column("model_names", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        schema="registry",
    )
