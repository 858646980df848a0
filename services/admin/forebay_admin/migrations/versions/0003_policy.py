"""What the scheduler goes by: nested groups, weights, limits, budgets, prices of models, how pools place."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LIMITS = """
    ADD COLUMN requests_per_minute integer CHECK (requests_per_minute > 0),
    ADD COLUMN tokens_per_minute bigint CHECK (tokens_per_minute > 0),
    ADD COLUMN concurrency integer CHECK (concurrency > 0)
"""

STATEMENTS = (
    # Defaults are constants, so no row is rewritten, and a replica that does not know the columns yet still inserts.
    f"""
    ALTER TABLE admin.groups
        ADD COLUMN parent_id text REFERENCES admin.groups (id) CHECK (parent_id <> id),
        ADD COLUMN paused boolean NOT NULL DEFAULT false,
        {_LIMITS}
    """,
    # `terms_version` apart from `version`: gateways, who watch users and keys too, have no use for weights and limits.
    f"""
    ALTER TABLE admin.users
        ADD COLUMN paused boolean NOT NULL DEFAULT false,
        ADD COLUMN terms_version bigint NOT NULL DEFAULT 0,
        {_LIMITS}
    """,
    f"""
    ALTER TABLE admin.keys
        ADD COLUMN weight_milli integer NOT NULL DEFAULT 1000 CHECK (weight_milli > 0),
        ADD COLUMN terms_version bigint NOT NULL DEFAULT 0,
        {_LIMITS}
    """,
    "CREATE INDEX users_group ON admin.users (group_id)",
    # Without a version: a budget changes with the user, group or key that it is for.
    """
    CREATE TABLE admin.budgets (
        id text PRIMARY KEY,
        user_id text REFERENCES admin.users (id) ON DELETE CASCADE,
        group_id text REFERENCES admin.groups (id) ON DELETE CASCADE,
        key_id text REFERENCES admin.keys (public_id) ON DELETE CASCADE,
        unit text NOT NULL CHECK (unit IN ('tokens', 'money')),
        amount bigint NOT NULL CHECK (amount > 0),
        period text NOT NULL CHECK (period IN ('ever', 'hour', 'day', 'week', 'month', 'year')),
        time_zone text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        CHECK (num_nonnulls(user_id, group_id, key_id) = 1)
    )
    """,
    """
    CREATE TABLE admin.model_terms (
        model text PRIMARY KEY,
        prompt_micros bigint NOT NULL CHECK (prompt_micros >= 0),
        cached_prompt_micros bigint NOT NULL CHECK (cached_prompt_micros >= 0),
        completion_micros bigint NOT NULL CHECK (completion_micros >= 0),
        weight_milli integer NOT NULL CHECK (weight_milli > 0),
        version bigint NOT NULL
    )
    """,
    """
    CREATE TABLE admin.pool_terms (
        pool text PRIMARY KEY,
        placement text NOT NULL,
        sticky boolean NOT NULL,
        locality_window integer CHECK (locality_window >= 0),
        version bigint NOT NULL
    )
    """,
    # What is gone leaves its name here, so that a watcher hears of it.
    """
    CREATE TABLE admin.policy_removals (
        kind text NOT NULL CHECK (kind IN ('group', 'model', 'pool')),
        name text NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (kind, name)
    )
    """,
    # What was spent of a budget is a sum over one of these.
    "CREATE INDEX usage_ledger_group ON admin.usage_ledger (group_id, started_at)",
    "CREATE INDEX usage_ledger_key ON admin.usage_ledger (key_id, started_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
