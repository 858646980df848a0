"""What a key may, as options of the commands that say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from forebay.errors import BadInput
from forebay.wire.v1 import key_terms_pb2
from forebay_admin.cli.amounts import parse_cap
from forebay_admin.cli.output import F
from forebay_admin.keys.key_words import AUDITS, BANDS

_MOST_TOKENS = 10**9


def terms_options(command: F) -> F:
    for option in (
        click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A word of your own (repeatable)."),
        click.option("--description", metavar="TEXT", help="What it is for, at length."),
        click.option("--audit", type=click.Choice(list(AUDITS)), help="What is kept of its requests and answers."),
        click.option("--max-context", metavar="N", help="Tokens that a prompt may have."),
        click.option("--max-output", metavar="N", help="Tokens that an answer may have; more is cut to it."),
        click.option("--call", "calls", multiple=True, metavar="WORD", help="What it may ask for: chat, embedding, …"),
        click.option(
            "--from", "addresses", multiple=True, metavar="NETWORK", help="From where it works: 10.0.0.0/8, …"
        ),
        click.option("--deny-model", "denied", multiple=True, metavar="PATTERN", help="A model that it may not use."),
    ):
        command = option(command)
    return command


def key_terms(
    *,
    denied: Sequence[str],
    addresses: Sequence[str],
    calls: Sequence[str],
    max_output: str | None,
    max_context: str | None,
    audit: str | None,
    other_pools: Sequence[str],
) -> key_terms_pb2.KeyTerms:
    """Of a new key. Raises BadInput."""
    return key_terms_pb2.KeyTerms(
        denied_models=denied,
        other_pools=other_pools,
        addresses=addresses,
        calls=calls,
        max_output_tokens=_tokens(max_output),
        max_context_tokens=_tokens(max_context),
        audit=AUDITS[audit] if audit else key_terms_pb2.AUDIT_POLICY_UNSPECIFIED,
    )


def terms_change(
    key_id: str,
    *,
    models: Sequence[str],
    denied: Sequence[str],
    pools: Sequence[str],
    addresses: Sequence[str],
    calls: Sequence[str],
    max_output: str | None,
    max_context: str | None,
    audit: str | None,
    band: str | None,
    **others: Any,
) -> key_terms_pb2.SetKeyTermsRequest:
    """`others`: fields of the request as they are. `none` takes a restriction away. Raises BadInput."""
    return key_terms_pb2.SetKeyTermsRequest(
        key_id=key_id,
        allowed_models=_words(models),
        denied_models=_words(denied),
        pools=_words(pools),
        addresses=_words(addresses),
        calls=_words(calls),
        max_output_tokens=_most(max_output),
        max_context_tokens=_most(max_context),
        audit=AUDITS[audit] if audit else None,
        band_cap=BANDS[band] if band else None,
        **others,
    )


def parse_labels(labels: Sequence[str]) -> Mapping[str, str]:
    """Raises BadInput."""
    found = {}
    for label in labels:
        name, equals, value = label.partition("=")
        if not equals:
            raise BadInput(f"{label!r} is no label: write NAME=VALUE.")
        found[name] = value
    return found


def _words(words: Sequence[str]) -> key_terms_pb2.Words | None:
    if not words:
        return None
    return key_terms_pb2.Words(words=[] if list(words) == ["none"] else words)


def _most(text: str | None) -> key_terms_pb2.Most | None:
    return key_terms_pb2.Most(tokens=_tokens(text)) if text is not None else None


def _tokens(text: str | None) -> int | None:
    return parse_cap(text, most=_MOST_TOKENS) if text is not None else None
