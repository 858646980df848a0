"""What each request cost, prices that have versions, and balances that are paid in advance."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Rows from before say nothing of their cost, and neither do those of a replica of the version before.
    """
    ALTER TABLE admin.usage_ledger
        ADD COLUMN images bigint,
        ADD COLUMN audio_ms bigint,
        ADD COLUMN cost_micros bigint,
        ADD COLUMN price_version bigint,
        ADD COLUMN unbilled text
    """,
    # `prices` is null where the name has no price from then on. `begun`: what the scheduler goes by has followed it.
    """
    CREATE TABLE admin.price_versions (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        model text NOT NULL,
        starts_at timestamptz NOT NULL,
        prices jsonb,
        begun boolean NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        version bigint NOT NULL,
        UNIQUE (model, starts_at)
    )
    """,
    "CREATE INDEX price_versions_due ON admin.price_versions (starts_at) WHERE NOT begun",
    """
    CREATE FUNCTION admin.keep_prices() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.begun THEN
            RAISE EXCEPTION 'a price that has begun stays as it was' USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END
    $$
    """,
    """
    CREATE TRIGGER price_versions_stay BEFORE UPDATE OR DELETE ON admin.price_versions
    FOR EACH ROW EXECUTE FUNCTION admin.keep_prices()
    """,
    # One row, so that whoever keeps the prices in memory sees when any has changed, also one that was taken back.
    """
    CREATE TABLE admin.prices_version (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        value bigint NOT NULL
    )
    """,
    "INSERT INTO admin.prices_version (value) VALUES (1)",
    # What is charged today was charged ever since: there is nothing older to go by.
    """
    INSERT INTO admin.price_versions (model, starts_at, prices, begun, created_by, created_at, version)
    SELECT model, 'epoch', jsonb_build_object(
        'prompt_micros', prompt_micros,
        'cached_prompt_micros', cached_prompt_micros,
        'completion_micros', completion_micros
    ), true, 'migration', now(), version
    FROM admin.model_terms WHERE prompt_micros + cached_prompt_micros + completion_micros > 0
    """,
    # No reference to users and groups: what was paid is told of those who are gone, too. One account is open for each.
    """
    CREATE TABLE admin.balance_accounts (
        id text PRIMARY KEY,
        user_id text,
        group_id text,
        name text NOT NULL,
        created_by text NOT NULL,
        opened_at timestamptz NOT NULL,
        closed_at timestamptz,
        told_micros numeric(30) NOT NULL DEFAULT 0,
        CHECK (num_nonnulls(user_id, group_id) = 1)
    )
    """,
    "CREATE UNIQUE INDEX balance_accounts_user ON admin.balance_accounts (user_id) WHERE closed_at IS NULL",
    "CREATE UNIQUE INDEX balance_accounts_group ON admin.balance_accounts (group_id) WHERE closed_at IS NULL",
    """
    CREATE TABLE admin.balance_postings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account_id text NOT NULL REFERENCES admin.balance_accounts (id),
        kind text NOT NULL CHECK (kind IN ('top_up', 'refund', 'adjustment')),
        amount_micros bigint NOT NULL CHECK (amount_micros <> 0 AND (kind = 'adjustment' OR amount_micros > 0)),
        reference text NOT NULL,
        note text NOT NULL,
        created_by text NOT NULL,
        at timestamptz NOT NULL,
        UNIQUE (account_id, reference)
    )
    """,
    """
    CREATE TRIGGER balance_postings_are_append_only BEFORE UPDATE OR DELETE ON admin.balance_postings
    FOR EACH ROW EXECUTE FUNCTION admin.refuse_change()
    """,
    # What ledger rows cost, by account and hour, added up in the transaction that enters the rows. `counted_micros` is
    # what the scheduler counts for them, which knows prices of tokens alone.
    """
    CREATE TABLE admin.balance_charges (
        account_id text NOT NULL REFERENCES admin.balance_accounts (id),
        hour timestamptz NOT NULL,
        requests bigint NOT NULL CHECK (requests >= 0),
        cost_micros numeric(30) NOT NULL CHECK (cost_micros >= 0),
        counted_micros numeric(30) NOT NULL CHECK (counted_micros >= 0),
        PRIMARY KEY (account_id, hour)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
