"""Which registry acts: one row, whose epoch grows with each that takes the lead, and which every write checks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "leadership",
        sa.Column("one", sa.Boolean, primary_key=True, server_default=sa.true()),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("one", name="leadership_one_row"),
        schema="registry",
    )
    op.execute("INSERT INTO registry.leadership (epoch, holder, taken_at) VALUES (0, '', now())")
