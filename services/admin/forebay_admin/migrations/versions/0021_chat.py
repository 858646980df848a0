"""Conversations of the chat, their messages, and the files that were put into them."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STATEMENTS = (
    # The bytes of a conversation are counted as it grows: what a user has in all is asked at each message.
    """
    CREATE TABLE admin.chat_conversations (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES admin.users (id) ON DELETE CASCADE,
        title text NOT NULL,
        settings jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        changed_at timestamptz NOT NULL,
        share_id text,
        shared_at timestamptz,
        bytes bigint NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE INDEX chat_conversations_of_user ON admin.chat_conversations (user_id, changed_at, id) INCLUDE (bytes)
    """,
    "CREATE INDEX chat_conversations_changed_at ON admin.chat_conversations (changed_at)",
    "CREATE UNIQUE INDEX chat_conversations_share ON admin.chat_conversations (share_id) WHERE share_id IS NOT NULL",
    # A tree: what was asked or answered again hangs beside what was there. No reference to the parent, since rows go with
    # their conversation and never one by one.
    """
    CREATE TABLE admin.chat_messages (
        conversation_id text NOT NULL REFERENCES admin.chat_conversations (id) ON DELETE CASCADE,
        id text NOT NULL,
        parent_id text,
        role text NOT NULL CHECK (role IN ('user', 'assistant')),
        content jsonb NOT NULL,
        model text NOT NULL DEFAULT '',
        told jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        bytes bigint NOT NULL,
        PRIMARY KEY (conversation_id, id)
    )
    """,
    # A file's bytes are in the row or in the blob store; the same file twice in a conversation is one.
    """
    CREATE TABLE admin.chat_attachments (
        conversation_id text NOT NULL REFERENCES admin.chat_conversations (id) ON DELETE CASCADE,
        digest bytea NOT NULL,
        kind text NOT NULL,
        bytes bigint NOT NULL,
        body bytea,
        blob_path text,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (conversation_id, digest)
    )
    """,
    "CREATE UNIQUE INDEX chat_attachments_blob ON admin.chat_attachments (blob_path) WHERE blob_path IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
