"""Sums of the ledger by minute, hour and day; what of them is to be made again; from when on each is kept."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_SUMS = """
        at timestamptz NOT NULL,
        cut text NOT NULL,
        key_id text NOT NULL,
        user_id text NOT NULL,
        group_id text NOT NULL,
        pool text NOT NULL,
        model text NOT NULL,
        backend_id text NOT NULL,
        outcome text NOT NULL,
        requests bigint NOT NULL,
        finished bigint NOT NULL,
        refused bigint NOT NULL,
        failed bigint NOT NULL,
        cancelled bigint NOT NULL,
        prompt_tokens bigint NOT NULL,
        cached_prompt_tokens bigint NOT NULL,
        completion_tokens bigint NOT NULL,
        cost_micros bigint NOT NULL,
        unbilled bigint NOT NULL,
        queue_ms bigint NOT NULL,
        most_queue_ms bigint NOT NULL,
        answered bigint NOT NULL,
        ttft_ms bigint NOT NULL,
        most_ttft_ms bigint NOT NULL,
        duration_ms bigint NOT NULL,
        most_duration_ms bigint NOT NULL
"""

STATEMENTS = (
    *(
        statement
        for table in ("usage_minutes", "usage_hours", "usage_days")
        for statement in (
            # No key: whoever writes a span deletes what was there, under a lock, and a key of nine columns would be larger
            # than the sums.
            f"CREATE TABLE admin.{table} ({_SUMS}) PARTITION BY RANGE (at)",
            f"CREATE INDEX {table}_at ON admin.{table} (cut, at)",
            f"CREATE INDEX {table}_user ON admin.{table} (user_id, at) WHERE user_id <> ''",
            f"CREATE INDEX {table}_key ON admin.{table} (key_id, at) WHERE cut = 'whole'",
        )
    ),
    # A row for each transaction that touched a span, with a number of its own: whoever sums up deletes the rows that it
    # sees, and one that was not committed yet stays.
    """
    CREATE TABLE admin.usage_touched (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        span text NOT NULL CHECK (span IN ('minute', 'hour', 'day')),
        at timestamptz NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE admin.usage_kept (
        what text PRIMARY KEY CHECK (what IN ('ledger', 'minute', 'hour', 'day')),
        since timestamptz NOT NULL
    )
    """,
    """
    INSERT INTO admin.usage_touched (span, at)
    SELECT DISTINCT 'minute', date_trunc('minute', started_at, 'UTC') FROM admin.usage_ledger
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
