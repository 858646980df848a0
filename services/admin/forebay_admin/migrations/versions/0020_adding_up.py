"""An aggregate that adds up in 64 bits: Postgres's own sum of them keeps a longer number for each group, in memory of its
own, which costs most of an answer about many groups."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STATEMENTS = (
    # An error where 64 bits do not hold it, as of any addition; whoever asks then uses sum().
    """
    CREATE AGGREGATE admin.add_up(bigint) (SFUNC = int8pl, STYPE = bigint, COMBINEFUNC = int8pl, PARALLEL = SAFE)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
