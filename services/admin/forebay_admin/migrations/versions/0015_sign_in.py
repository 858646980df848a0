"""How people sign in: passwords, sessions, providers, device codes; service accounts, custom roles and narrow tokens."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    "ALTER TABLE admin.users ADD COLUMN is_service_account boolean NOT NULL DEFAULT false",
    "ALTER TABLE admin.users ADD COLUMN owner_group_id text REFERENCES admin.groups (id)",
    """
    CREATE TABLE admin.custom_roles (
        name text PRIMARY KEY,
        permissions text[] NOT NULL,
        about text NOT NULL DEFAULT '',
        version bigint NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX custom_roles_name ON admin.custom_roles (lower(name))",
    # A row for whoever ever had a custom role; it stays when the last one is taken, so that replicas hear of it.
    """
    CREATE TABLE admin.user_roles (
        user_id text PRIMARY KEY REFERENCES admin.users (id) ON DELETE CASCADE,
        roles text[] NOT NULL,
        version bigint NOT NULL
    )
    """,
    """
    CREATE TABLE admin.admin_tokens (
        id text PRIMARY KEY,
        name text NOT NULL,
        user_id text NOT NULL REFERENCES admin.users (id) ON DELETE CASCADE,
        secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
        permissions text[] NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz,
        last_used_at timestamptz,
        version bigint NOT NULL
    )
    """,
    "CREATE INDEX admin_tokens_user ON admin.admin_tokens (user_id)",
    "CREATE INDEX admin_tokens_version ON admin.admin_tokens (version)",
    """
    CREATE TABLE admin.sessions (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES admin.users (id) ON DELETE CASCADE,
        secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
        kind text NOT NULL CHECK (kind IN ('web', 'program')),
        way text NOT NULL,
        address text NOT NULL,
        user_agent text NOT NULL,
        created_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        ended_at timestamptz,
        version bigint NOT NULL
    )
    """,
    "CREATE INDEX sessions_user ON admin.sessions (user_id)",
    "CREATE INDEX sessions_version ON admin.sessions (version)",
    "CREATE INDEX sessions_expires ON admin.sessions (expires_at)",
    """
    CREATE TABLE admin.passwords (
        user_id text PRIMARY KEY REFERENCES admin.users (id) ON DELETE CASCADE,
        hash text NOT NULL,
        changed_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE admin.password_resets (
        token_hmac bytea PRIMARY KEY CHECK (octet_length(token_hmac) = 32),
        user_id text NOT NULL UNIQUE REFERENCES admin.users (id) ON DELETE CASCADE,
        created_by text NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    # `subject`: user:<name in lower case> or address:<where from>.
    """
    CREATE TABLE admin.sign_in_failures (
        subject text PRIMARY KEY,
        failures integer NOT NULL,
        last_at timestamptz NOT NULL,
        locked_until timestamptz
    )
    """,
    "CREATE INDEX sign_in_failures_last ON admin.sign_in_failures (last_at)",
    """
    CREATE TABLE admin.identities (
        issuer text NOT NULL,
        subject text NOT NULL,
        user_id text NOT NULL REFERENCES admin.users (id) ON DELETE CASCADE,
        provider text NOT NULL,
        linked_at timestamptz NOT NULL,
        PRIMARY KEY (issuer, subject)
    )
    """,
    "CREATE INDEX identities_user ON admin.identities (user_id)",
    # What may be used once, and was: the states of sign-ins at a provider.
    """
    CREATE TABLE admin.spent_states (
        mark bytea PRIMARY KEY CHECK (octet_length(mark) = 32),
        until timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE admin.device_codes (
        device_hmac bytea PRIMARY KEY CHECK (octet_length(device_hmac) = 32),
        user_code text NOT NULL UNIQUE,
        address text NOT NULL,
        user_agent text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        asked_at timestamptz,
        user_id text REFERENCES admin.users (id) ON DELETE CASCADE,
        way text NOT NULL DEFAULT '',
        refused boolean NOT NULL DEFAULT false
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
