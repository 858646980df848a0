"""Other names of models, and what gateways do to requests."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The pool '' is every pool.
    """
    CREATE TABLE admin.model_aliases (
        alias text NOT NULL,
        pool text NOT NULL,
        model text NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (alias, pool)
    )
    """,
    # Fields are kept as text and not as jsonb, which would change how numbers are written.
    """
    CREATE TABLE admin.model_rules (
        kind text NOT NULL CHECK (kind IN ('everyone', 'pool', 'model', 'key')),
        name text NOT NULL CHECK ((name = '') = (kind = 'everyone')),
        defaults text NOT NULL,
        pinned text NOT NULL,
        max_output_tokens integer CHECK (max_output_tokens > 0),
        num_ctx integer CHECK (num_ctx > 0),
        keep_alive_s integer CHECK (keep_alive_s > 0),
        thinking text CHECK (thinking IN ('off', 'usual')),
        version bigint NOT NULL,
        PRIMARY KEY (kind, name)
    )
    """,
    # When either last changed, removals included: gateways are told all of them or nothing.
    """
    CREATE TABLE admin.model_rules_version (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        value bigint NOT NULL
    )
    """,
    "INSERT INTO admin.model_rules_version (value) VALUES (0)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
