"""Budgets of the last hours or days, what is left of one in the next period, and what new members of a group start with."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # A version before this one reads a window as a budget for ever, which lets less through and never more.
    "ALTER TABLE admin.budgets ADD COLUMN window_s integer CHECK (window_s > 0)",
    "ALTER TABLE admin.budgets ADD COLUMN carry_most bigint CHECK (carry_most > 0)",
    "ALTER TABLE admin.budgets ADD COLUMN carried bigint NOT NULL DEFAULT 0 CHECK (carried >= 0)",
    # The period that it was carried into, and what there was in all in the one before.
    "ALTER TABLE admin.budgets ADD COLUMN carried_since timestamptz",
    "ALTER TABLE admin.budgets ADD COLUMN carried_of bigint",
    """
    CREATE TABLE admin.member_limits (
        group_id text PRIMARY KEY REFERENCES admin.groups (id) ON DELETE CASCADE,
        requests_per_minute integer CHECK (requests_per_minute > 0),
        tokens_per_minute bigint CHECK (tokens_per_minute > 0),
        concurrency integer CHECK (concurrency > 0),
        budgets jsonb NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
