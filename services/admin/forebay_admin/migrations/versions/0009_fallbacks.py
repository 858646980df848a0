"""Which models are asked instead of one that does not answer, and the most that a prompt may hold."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The pool '' is every pool. `others` are names in the fleet, in the operator's order.
    """
    CREATE TABLE admin.model_fallbacks (
        model text NOT NULL,
        pool text NOT NULL,
        others text[] NOT NULL CHECK (cardinality(others) > 0),
        preference text NOT NULL CHECK (preference IN ('listed', 'cheapest', 'soonest')),
        after_ms bigint CHECK (after_ms > 0),
        version bigint NOT NULL,
        PRIMARY KEY (model, pool)
    )
    """,
    "ALTER TABLE admin.model_rules ADD COLUMN max_context_tokens integer CHECK (max_context_tokens > 0)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
