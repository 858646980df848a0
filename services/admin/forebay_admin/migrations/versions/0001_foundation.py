"""People, keys, credentials, invitations, audit and the usage ledger."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    # The counter behind every version: one row, locked by each transaction that changes what others watch.
    """
    CREATE TABLE admin.version (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        value bigint NOT NULL
    )
    """,
    # It starts at 1: a watcher that knows nothing knows version 0, and so is always sent a snapshot.
    "INSERT INTO admin.version (value) VALUES (1)",
    """
    CREATE TABLE admin.groups (
        id text PRIMARY KEY,
        name text NOT NULL,
        weight_milli integer NOT NULL DEFAULT 1000 CHECK (weight_milli > 0),
        created_at timestamptz NOT NULL,
        version bigint NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX groups_name ON admin.groups (lower(name))",
    """
    CREATE TABLE admin.users (
        id text PRIMARY KEY,
        name text NOT NULL,
        group_id text NOT NULL REFERENCES admin.groups (id),
        role text NOT NULL CHECK (role IN ('member', 'auditor', 'operator', 'admin')),
        disabled boolean NOT NULL DEFAULT false,
        weight_milli integer NOT NULL DEFAULT 1000 CHECK (weight_milli > 0),
        max_queued integer NOT NULL DEFAULT 0 CHECK (max_queued >= 0),
        created_at timestamptz NOT NULL,
        version bigint NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX users_name ON admin.users (lower(name))",
    "CREATE INDEX users_version ON admin.users (version)",
    """
    CREATE TABLE admin.keys (
        public_id text PRIMARY KEY,
        name text NOT NULL,
        user_id text NOT NULL REFERENCES admin.users (id),
        secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
        allowed_models text[] NOT NULL DEFAULT '{}',
        pool text NOT NULL DEFAULT '',
        band_cap text NOT NULL CHECK (band_cap IN ('system', 'interactive', 'standard', 'batch')),
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz,
        version bigint NOT NULL
    )
    """,
    "CREATE INDEX keys_user ON admin.keys (user_id)",
    "CREATE INDEX keys_version ON admin.keys (version)",
    # `sealed` is null for a credential that was removed: its row tells watchers so.
    """
    CREATE TABLE admin.backend_credentials (
        backend_id text PRIMARY KEY,
        sealed bytea,
        changed_at timestamptz NOT NULL,
        version bigint NOT NULL
    )
    """,
    "CREATE INDEX backend_credentials_version ON admin.backend_credentials (version)",
    """
    CREATE TABLE admin.node_invitations (
        token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
        node text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        used_at timestamptz,
        used_by_nkey text
    )
    """,
    "CREATE INDEX node_invitations_node ON admin.node_invitations (node)",
    """
    CREATE TABLE admin.node_agents (
        node text PRIMARY KEY,
        public_nkey text NOT NULL UNIQUE,
        hostname text NOT NULL,
        enrolled_at timestamptz NOT NULL,
        version bigint NOT NULL
    )
    """,
    """
    CREATE TABLE admin.audit_log (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL,
        actor text NOT NULL,
        actor_key_id text NOT NULL DEFAULT '',
        interface text NOT NULL,
        action text NOT NULL,
        subject text NOT NULL,
        before jsonb,
        after jsonb
    )
    """,
    "CREATE INDEX audit_log_at ON admin.audit_log (at)",
    """
    CREATE FUNCTION admin.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    """
    CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE ON admin.audit_log
    FOR EACH ROW EXECUTE FUNCTION admin.refuse_change()
    """,
    """
    CREATE TABLE admin.usage_ledger (
        day date NOT NULL,
        ledger_id uuid NOT NULL,
        request_id text NOT NULL,
        gateway text NOT NULL,
        generation bigint NOT NULL,
        key_id text NOT NULL,
        user_id text NOT NULL,
        group_id text NOT NULL,
        pool text NOT NULL,
        model_requested text NOT NULL,
        model text NOT NULL,
        backend_id text NOT NULL,
        dialect text NOT NULL,
        route text NOT NULL,
        stream boolean NOT NULL,
        width bigint NOT NULL,
        outcome text NOT NULL,
        reason text NOT NULL,
        http_status integer NOT NULL,
        started_at timestamptz NOT NULL,
        queue_ms bigint NOT NULL,
        ttft_ms bigint,
        duration_ms bigint NOT NULL,
        prompt_tokens bigint NOT NULL,
        cached_prompt_tokens bigint NOT NULL,
        completion_tokens bigint NOT NULL,
        usage_source text NOT NULL,
        attempts integer NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (day, ledger_id)
    ) PARTITION BY RANGE (day)
    """,
    "CREATE INDEX usage_ledger_started ON admin.usage_ledger (started_at)",
    "CREATE INDEX usage_ledger_user ON admin.usage_ledger (user_id, started_at)",
    # Keyed by content: a message that comes again must not be kept again.
    """
    CREATE TABLE admin.dead_letters (
        digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
        received_at timestamptz NOT NULL DEFAULT now(),
        subject text NOT NULL,
        payload bytea NOT NULL,
        why text NOT NULL
    )
    """,
    "CREATE INDEX dead_letters_received ON admin.dead_letters (received_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
