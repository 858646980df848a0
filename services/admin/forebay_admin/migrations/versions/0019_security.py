"""From where Forebay may be reached, who is banned, and what happened that somebody should look at."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Who has been let in until now still is: nothing is denied before somebody says so.
    """
    CREATE TABLE admin.address_policy (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        mode text NOT NULL CHECK (mode IN ('permissive', 'restrictive')),
        ban_after integer NOT NULL CHECK (ban_after >= 0),
        ban_window_s integer NOT NULL CHECK (ban_window_s > 0),
        ban_first_s integer NOT NULL CHECK (ban_first_s > 0),
        ban_longest_s integer NOT NULL CHECK (ban_longest_s >= ban_first_s),
        version bigint NOT NULL
    )
    """,
    """
    INSERT INTO admin.address_policy (mode, ban_after, ban_window_s, ban_first_s, ban_longest_s, version)
    VALUES ('permissive', 30, 60, 60, 3600, 0)
    """,
    """
    CREATE TABLE admin.address_rules (
        list text NOT NULL CHECK (list IN ('deny', 'allow')),
        network text NOT NULL,
        note text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (list, network)
    )
    """,
    # One that ended or was lifted stays for a while: gateways are told that it was lifted, and the next one is longer.
    """
    CREATE TABLE admin.address_bans (
        network text PRIMARY KEY,
        begun_at timestamptz NOT NULL,
        until timestamptz,
        reason text NOT NULL,
        made_by text NOT NULL,
        strikes integer NOT NULL,
        spares_valid boolean NOT NULL,
        lifted_at timestamptz,
        lifted_by text NOT NULL,
        version bigint NOT NULL
    )
    """,
    "CREATE INDEX address_bans_version ON admin.address_bans (version)",
    """
    CREATE TABLE admin.security_events (
        at timestamptz NOT NULL,
        id uuid NOT NULL,
        last_at timestamptz NOT NULL,
        kind text NOT NULL,
        count bigint NOT NULL,
        source text NOT NULL,
        address text NOT NULL,
        key_id text NOT NULL,
        "user" text NOT NULL,
        reason text NOT NULL,
        detail text NOT NULL,
        PRIMARY KEY (at, id)
    ) PARTITION BY RANGE (at)
    """,
    "CREATE INDEX security_events_kind ON admin.security_events (kind, at)",
    # Up to which link of the audit log acts were told as events; NULL: none were yet.
    """
    CREATE TABLE admin.security_acts (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        told_seq bigint
    )
    """,
    "INSERT INTO admin.security_acts (told_seq) VALUES (NULL)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
