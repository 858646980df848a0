"""The audit log is chained, and says where from; what requests and answers said is kept where policy wants it."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# The head is written once: a row that one transaction changes again and again gets slower each time.
CHAIN_WHAT_IS_THERE = """
    DO $$
    DECLARE
        entry admin.audit_log;
        head admin.audit_head;
        mark bytea;
    BEGIN
        SELECT * INTO STRICT head FROM admin.audit_head FOR UPDATE;
        FOR entry IN SELECT * FROM admin.audit_log ORDER BY id LOOP
            mark := admin.audit_hash(head.seq + 1, head.hash, entry);
            INSERT INTO admin.audit_chain (seq, entry_id, form, previous, hash)
                VALUES (head.seq + 1, entry.id, 1, head.hash, mark);
            head.seq := head.seq + 1;
            head.hash := mark;
        END LOOP;
        UPDATE admin.audit_head SET seq = head.seq, hash = head.hash;
    END
    $$
    """

CHAIN: tuple[str, ...] = (
    "ALTER TABLE admin.audit_log ADD COLUMN address text NOT NULL DEFAULT ''",
    "CREATE INDEX audit_log_actor ON admin.audit_log (actor, id)",
    "CREATE INDEX audit_log_action ON admin.audit_log (action text_pattern_ops, id)",
    "CREATE INDEX audit_log_subject ON admin.audit_log (subject, id)",
    """
    CREATE TABLE admin.audit_chain (
        seq bigint PRIMARY KEY,
        entry_id bigint NOT NULL UNIQUE,
        form smallint NOT NULL,
        previous bytea NOT NULL CHECK (octet_length(previous) = 32),
        hash bytea NOT NULL CHECK (octet_length(hash) = 32)
    )
    """,
    # The end of the chain: one row, locked by each transaction that lengthens it, from then until it has committed.
    """
    CREATE TABLE admin.audit_head (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        seq bigint NOT NULL,
        hash bytea NOT NULL CHECK (octet_length(hash) = 32)
    )
    """,
    "INSERT INTO admin.audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'))",
    """
    CREATE FUNCTION admin.audit_field(value text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE WHEN value IS NULL THEN int4send(-1)
            ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END
    $$
    """,
    """
    CREATE FUNCTION admin.audit_hash(seq bigint, previous bytea, entry admin.audit_log) RETURNS bytea
    LANGUAGE sql STABLE AS $$
        SELECT sha256(
            convert_to('forebay-audit-1', 'UTF8') || previous || int8send(seq) || int8send(entry.id)
            || int8send((extract(epoch FROM entry.at) * 1000000)::bigint)
            || admin.audit_field(entry.actor) || admin.audit_field(entry.actor_key_id)
            || admin.audit_field(entry.interface) || admin.audit_field(entry.address)
            || admin.audit_field(entry.action) || admin.audit_field(entry.subject)
            || admin.audit_field(entry.before::text) || admin.audit_field(entry.after::text)
        )
    $$
    """,
    """
    CREATE FUNCTION admin.chain_audit(entry admin.audit_log) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        head admin.audit_head;
        mark bytea;
    BEGIN
        SELECT * INTO STRICT head FROM admin.audit_head FOR UPDATE;
        mark := admin.audit_hash(head.seq + 1, head.hash, entry);
        INSERT INTO admin.audit_chain (seq, entry_id, form, previous, hash)
            VALUES (head.seq + 1, entry.id, 1, head.hash, mark);
        UPDATE admin.audit_head SET seq = head.seq + 1, hash = mark;
    END
    $$
    """,
    """
    CREATE FUNCTION admin.chain_new_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM admin.chain_audit(NEW);
        RETURN NULL;
    END
    $$
    """,
    # No entry comes in between until this has committed: creating the trigger shuts writers out.
    """
    CREATE CONSTRAINT TRIGGER audit_log_is_chained AFTER INSERT ON admin.audit_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION admin.chain_new_audit()
    """,
    CHAIN_WHAT_IS_THERE,
    """
    CREATE TRIGGER audit_log_is_not_emptied BEFORE TRUNCATE ON admin.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION admin.refuse_change()
    """,
    """
    CREATE TRIGGER audit_chain_is_append_only BEFORE UPDATE OR DELETE ON admin.audit_chain
    FOR EACH ROW EXECUTE FUNCTION admin.refuse_change()
    """,
    """
    CREATE TRIGGER audit_chain_is_not_emptied BEFORE TRUNCATE ON admin.audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION admin.refuse_change()
    """,
)

RECORDINGS: tuple[str, ...] = (
    # What is kept of whose requests, by group; the empty one is everybody.
    """
    CREATE TABLE admin.recording_policies (
        group_id text PRIMARY KEY,
        policy text NOT NULL CHECK (policy IN ('off', 'metadata', 'full', 'sampled')),
        permille integer NOT NULL CHECK (permille BETWEEN 1 AND 1000)
    )
    """,
    """
    CREATE TABLE admin.recordings (
        at timestamptz NOT NULL,
        ledger_id uuid NOT NULL,
        request_id text NOT NULL,
        gateway text NOT NULL,
        key_id text NOT NULL,
        user_id text NOT NULL,
        group_id text NOT NULL,
        model_requested text NOT NULL,
        model text NOT NULL,
        route text NOT NULL,
        stream boolean NOT NULL,
        policy text NOT NULL,
        outcome text NOT NULL,
        reason text NOT NULL,
        http_status integer NOT NULL,
        duration_ms bigint NOT NULL,
        address text NOT NULL,
        request_bytes bigint NOT NULL,
        answer_bytes bigint NOT NULL,
        request_cut boolean NOT NULL,
        answer_cut boolean NOT NULL,
        request bytea,
        answer bytea,
        redacted integer NOT NULL,
        words tsvector NOT NULL,
        PRIMARY KEY (at, ledger_id)
    ) PARTITION BY RANGE (at)
    """,
    "CREATE INDEX recordings_words ON admin.recordings USING gin (words)",
    "CREATE INDEX recordings_request ON admin.recordings (request_id)",
    "CREATE INDEX recordings_ledger ON admin.recordings (ledger_id)",
    "CREATE INDEX recordings_user ON admin.recordings (user_id, at)",
)


def upgrade() -> None:
    for statement in (*CHAIN, *RECORDINGS):
        op.execute(statement)
