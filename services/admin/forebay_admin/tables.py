"""The tables of the schema `admin`, as queries name them. `migrations` makes them; a test holds the two together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Computed,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    any_,
    literal,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

SCHEMA = "admin"
METADATA = MetaData(schema=SCHEMA)

_MOMENT = DateTime(timezone=True)


def is_one_of(column: Column[Any], ids: Collection[str]) -> ColumnElement[bool]:
    """For a column of text. All are one parameter: of parameters there may be some thirty thousand, of users more."""
    return column == any_(literal(list(ids), ARRAY(Text)))


version = Table(
    "version",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

groups = Table(
    "groups",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("weight_milli", Integer, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("parent_id", Text, ForeignKey("admin.groups.id")),
    Column("paused", Boolean, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", Integer),
)

users = Table(
    "users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("group_id", Text, ForeignKey(groups.c.id), nullable=False),
    Column("role", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("weight_milli", Integer, nullable=False),
    Column("max_queued", Integer, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("terms_version", BigInteger, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", Integer),
    Column("is_service_account", Boolean, nullable=False),
    Column("owner_group_id", Text, ForeignKey(groups.c.id)),
)

keys = Table(
    "keys",
    METADATA,
    Column("public_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("allowed_models", ARRAY(Text), nullable=False),
    Column("pool", Text, nullable=False),
    Column("band_cap", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("revoked_at", _MOMENT),
    Column("version", BigInteger, nullable=False),
    Column("cut_running", Boolean, nullable=False),
    Column("weight_milli", Integer, nullable=False),
    Column("terms_version", BigInteger, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", Integer),
    Column("description", Text, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("denied_models", ARRAY(Text), nullable=False),
    Column("other_pools", ARRAY(Text), nullable=False),
    Column("addresses", ARRAY(Text), nullable=False),
    Column("calls", ARRAY(Text), nullable=False),
    Column("max_output_tokens", BigInteger),
    Column("max_context_tokens", BigInteger),
    Column("audit_policy", Text, nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("block_reason", Text, nullable=False),
    Column("blocked_until", _MOMENT),
    Column("old_secret_hmac", LargeBinary),
    Column("old_secret_until", _MOMENT),
)

spent_ephemeral_keys = Table(
    "spent_ephemeral_keys",
    METADATA,
    Column("id", LargeBinary, primary_key=True),
    Column("expires_at", _MOMENT, nullable=False),
)

key_uses = Table(
    "key_uses",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("used_at", _MOMENT, nullable=False),
)

quota_requests = Table(
    "quota_requests",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("wish", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("decided_at", _MOMENT),
    Column("decided_by", Text, nullable=False),
    Column("answer", Text, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    METADATA,
    Column("fingerprint", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("key_id", Text, ForeignKey(keys.c.public_id), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)

budgets = Table(
    "budgets",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id)),
    Column("group_id", Text, ForeignKey(groups.c.id)),
    Column("key_id", Text, ForeignKey(keys.c.public_id)),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("period", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("window_s", Integer),
    Column("carry_most", BigInteger),
    Column("carried", BigInteger, nullable=False, server_default="0"),
    Column("carried_since", _MOMENT),
    Column("carried_of", BigInteger),
)

member_limits = Table(
    "member_limits",
    METADATA,
    Column("group_id", Text, ForeignKey(groups.c.id), primary_key=True),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrency", Integer),
    Column("budgets", JSONB, nullable=False),
)

model_terms = Table(
    "model_terms",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("prompt_micros", BigInteger, nullable=False),
    Column("cached_prompt_micros", BigInteger, nullable=False),
    Column("completion_micros", BigInteger, nullable=False),
    Column("weight_milli", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
)

pool_terms = Table(
    "pool_terms",
    METADATA,
    Column("pool", Text, primary_key=True),
    Column("placement", Text, nullable=False),
    Column("sticky", Boolean, nullable=False),
    Column("locality_window", Integer),
    Column("version", BigInteger, nullable=False),
)

model_aliases = Table(
    "model_aliases",
    METADATA,
    Column("alias", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)

model_rules = Table(
    "model_rules",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("defaults", Text, nullable=False),
    Column("pinned", Text, nullable=False),
    Column("max_output_tokens", Integer),
    Column("num_ctx", Integer),
    Column("keep_alive_s", Integer),
    Column("thinking", Text),
    Column("structured", Text),
    Column("version", BigInteger, nullable=False),
    Column("max_context_tokens", Integer),
)

model_fallbacks = Table(
    "model_fallbacks",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("others", ARRAY(Text), nullable=False),
    Column("preference", Text, nullable=False),
    Column("after_ms", BigInteger),
    Column("version", BigInteger, nullable=False),
)

model_rules_version = Table(
    "model_rules_version",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

policy_removals = Table(
    "policy_removals",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

backend_credentials = Table(
    "backend_credentials",
    METADATA,
    Column("backend_id", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("sealed", LargeBinary),
    Column("changed_at", _MOMENT, nullable=False),
    Column("version", BigInteger, nullable=False),
)

node_invitations = Table(
    "node_invitations",
    METADATA,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("node", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("used_at", _MOMENT),
    Column("used_by_nkey", Text),
)

node_agents = Table(
    "node_agents",
    METADATA,
    Column("node", Text, primary_key=True),
    Column("public_nkey", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("enrolled_at", _MOMENT, nullable=False),
    Column("version", BigInteger, nullable=False),
)

audit_log = Table(
    "audit_log",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("at", _MOMENT, nullable=False),
    Column("actor", Text, nullable=False),
    Column("actor_key_id", Text, nullable=False),
    Column("interface", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("address", Text, nullable=False),
)

audit_chain = Table(
    "audit_chain",
    METADATA,
    Column("seq", BigInteger, primary_key=True),
    Column("entry_id", BigInteger, nullable=False),
    Column("form", SmallInteger, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_head = Table(
    "audit_head",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

recording_policies = Table(
    "recording_policies",
    METADATA,
    Column("group_id", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("permille", Integer, nullable=False),
)

recordings = Table(
    "recordings",
    METADATA,
    Column("at", _MOMENT, primary_key=True),
    Column("ledger_id", Uuid, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("request_id", "gateway", "key_id", "user_id", "group_id")),
    *(Column(name, Text, nullable=False) for name in ("model_requested", "model", "route")),
    Column("stream", Boolean, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("policy", "outcome", "reason")),
    Column("http_status", Integer, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("request_bytes", BigInteger, nullable=False),
    Column("answer_bytes", BigInteger, nullable=False),
    Column("request_cut", Boolean, nullable=False),
    Column("answer_cut", Boolean, nullable=False),
    Column("request", LargeBinary),
    Column("answer", LargeBinary),
    Column("redacted", Integer, nullable=False),
    Column("words", TSVECTOR, nullable=False),
)

usage_ledger = Table(
    "usage_ledger",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("ledger_id", Uuid, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("group_id", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("model_requested", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("backend_id", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("width", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("started_at", _MOMENT, nullable=False),
    Column("queue_ms", BigInteger, nullable=False),
    Column("ttft_ms", BigInteger),
    Column("duration_ms", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("usage_source", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("images", BigInteger),
    Column("audio_ms", BigInteger),
    Column("cost_micros", BigInteger),
    Column("price_version", BigInteger),
    Column("unbilled", Text),
    Column("recorded_at", _MOMENT, nullable=False),
)


def _usage_sums(name: str) -> Table:
    texts = ("cut", "key_id", "user_id", "group_id", "pool", "model", "backend_id", "outcome")
    sums = (
        *("requests", "finished", "refused", "failed", "cancelled"),
        *("prompt_tokens", "cached_prompt_tokens", "completion_tokens", "cost_micros", "unbilled"),
        *("queue_ms", "most_queue_ms", "answered", "ttft_ms", "most_ttft_ms", "duration_ms", "most_duration_ms"),
    )
    return Table(
        name,
        METADATA,
        Column("at", _MOMENT, nullable=False),
        *(Column(text, Text, nullable=False) for text in texts),
        *(Column(number, BigInteger, nullable=False) for number in sums),
    )


usage_minutes, usage_hours, usage_days = (_usage_sums(f"usage_{span}s") for span in ("minute", "hour", "day"))

usage_touched = Table(
    "usage_touched",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("span", Text, nullable=False),
    Column("at", _MOMENT, nullable=False),
    Column("made_at", _MOMENT, nullable=False),
)

usage_kept = Table(
    "usage_kept",
    METADATA,
    Column("what", Text, primary_key=True),
    Column("since", _MOMENT, nullable=False),
)

dead_letters = Table(
    "dead_letters",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("received_at", _MOMENT, nullable=False),
    Column("subject", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("why", Text, nullable=False),
)

content = Table(
    "content",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("id", Text(collation="C"), primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("parent_id", Text(collation="C")),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("body", LargeBinary, nullable=False),
    Column("blob_path", Text),
    Column("blob_bytes", BigInteger, nullable=False),
    Column("bytes", BigInteger, Computed("octet_length(body) + blob_bytes", persisted=True), nullable=False),
)

chat_conversations = Table(
    "chat_conversations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("title", Text, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
    Column("share_id", Text),
    Column("shared_at", _MOMENT),
    Column("bytes", BigInteger, nullable=False),
)

chat_messages = Table(
    "chat_messages",
    METADATA,
    Column("conversation_id", Text, ForeignKey(chat_conversations.c.id), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("role", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("model", Text, nullable=False),
    Column("told", JSONB, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

chat_attachments = Table(
    "chat_attachments",
    METADATA,
    Column("conversation_id", Text, ForeignKey(chat_conversations.c.id), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("body", LargeBinary),
    Column("blob_path", Text),
    Column("created_at", _MOMENT, nullable=False),
)

batches = Table(
    "batches",
    METADATA,
    Column("id", Text(collation="C"), primary_key=True),
    Column("user_id", Text, ForeignKey(users.c.id), nullable=False),
    Column("key_id", Text, ForeignKey(keys.c.public_id), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("output_expires_s", Integer),
    Column("status", Text, nullable=False),
    Column("ending", Text),
    Column("errors", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("in_progress_at", _MOMENT),
    Column("finalizing_at", _MOMENT),
    Column("completed_at", _MOMENT),
    Column("failed_at", _MOMENT),
    Column("expired_at", _MOMENT),
    Column("cancelling_at", _MOMENT),
    Column("cancelled_at", _MOMENT),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
)

batch_lines = Table(
    "batch_lines",
    METADATA,
    Column("batch_id", Text(collation="C"), ForeignKey(batches.c.id), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("custom_id", Text, nullable=False),
    Column("first_byte", BigInteger, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("engine_failures", Integer, nullable=False),
    Column("ledger_id", Uuid),
    Column("status_code", Integer),
    Column("request_id", Text),
    Column("answer", LargeBinary),
    Column("error_code", Text),
    Column("error_message", Text),
)

rest_answers = Table(
    "rest_answers",
    METADATA,
    Column("caller", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("request_mac", LargeBinary, nullable=False),
    Column("begun_at", _MOMENT, nullable=False),
    Column("status", Integer),
    Column("sealed", LargeBinary),
)

price_versions = Table(
    "price_versions",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("model", Text, nullable=False),
    Column("starts_at", _MOMENT, nullable=False),
    Column("prices", JSONB(none_as_null=True)),
    Column("begun", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("version", BigInteger, nullable=False),
)

prices_version = Table(
    "prices_version",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

balance_accounts = Table(
    "balance_accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text),
    Column("group_id", Text),
    Column("name", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("opened_at", _MOMENT, nullable=False),
    Column("closed_at", _MOMENT),
    Column("told_micros", Numeric(30, 0), nullable=False),
)

balance_postings = Table(
    "balance_postings",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("account_id", Text, ForeignKey(balance_accounts.c.id), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("at", _MOMENT, nullable=False),
)

balance_charges = Table(
    "balance_charges",
    METADATA,
    Column("account_id", Text, ForeignKey(balance_accounts.c.id), primary_key=True),
    Column("hour", _MOMENT, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("cost_micros", Numeric(30, 0), nullable=False),
    Column("counted_micros", Numeric(30, 0), nullable=False),
)
