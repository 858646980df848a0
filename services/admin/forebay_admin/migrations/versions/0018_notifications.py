"""What happened and who wants to hear of it: an outbox of events, subscriptions, deliveries, thresholds of budgets."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    """
    CREATE TABLE admin.events (
        id text PRIMARY KEY,
        number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
        kind text NOT NULL,
        subject text NOT NULL,
        user_id text NOT NULL DEFAULT '',
        at timestamptz NOT NULL,
        body jsonb NOT NULL
    )
    """,
    "CREATE INDEX events_at ON admin.events (at)",
    "CREATE INDEX events_user ON admin.events (user_id, number) WHERE user_id <> ''",
    # Whose user_id is empty hears of everybody; a mail without an address goes to whom the event is about.
    """
    CREATE TABLE admin.event_subscriptions (
        id text PRIMARY KEY,
        channel text NOT NULL CHECK (channel IN ('webhook', 'mail', 'nats')),
        address text NOT NULL DEFAULT '',
        sealed bytea,
        kinds text[] NOT NULL CHECK (cardinality(kinds) > 0),
        user_id text NOT NULL DEFAULT '',
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        delivered bigint NOT NULL DEFAULT 0,
        delivered_at timestamptz,
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        retry_at timestamptz NOT NULL DEFAULT '-infinity',
        last_error text NOT NULL DEFAULT ''
    )
    """,
    """
    INSERT INTO admin.event_subscriptions (id, channel, kinds, created_by, created_at) VALUES
        ('owners', 'mail', '{budget.*,balance.*,quota.decided}', 'forebay', now()),
        ('nats', 'nats', '{*}', 'forebay', now())
    """,
    """
    CREATE TABLE admin.event_deliveries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id text NOT NULL REFERENCES admin.events (id) ON DELETE CASCADE,
        subscription_id text NOT NULL REFERENCES admin.event_subscriptions (id) ON DELETE CASCADE,
        state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
        attempts integer NOT NULL DEFAULT 0,
        since timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        ended_at timestamptz,
        said text NOT NULL DEFAULT '',
        UNIQUE (event_id, subscription_id)
    )
    """,
    "CREATE INDEX event_deliveries_waiting ON admin.event_deliveries (subscription_id, id) WHERE state = 'waiting'",
    "CREATE INDEX event_deliveries_dead ON admin.event_deliveries (subscription_id, id) WHERE state = 'dead'",
    # What was told once and for all: a threshold of a budget in one of its periods, of a balance since it was topped up.
    """
    CREATE TABLE admin.event_marks (
        subject text NOT NULL,
        span text NOT NULL,
        percent smallint NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (subject, span, percent)
    )
    """,
    """
    CREATE TABLE admin.budget_thresholds (
        budget_id text PRIMARY KEY REFERENCES admin.budgets (id) ON DELETE CASCADE,
        percents smallint[] NOT NULL
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
