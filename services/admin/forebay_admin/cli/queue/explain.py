"""`forebay explain`: what became of one request, and why."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, scheduler_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import Plain, plain, word
from forebay_admin.cli.words import count, milliseconds, moment

_TERMS = (
    ("wait_s", "#Wait"),
    ("load_model_s", "#Load"),
    ("prefill_s", "#Prefill"),
    ("slow_decode_s", "#Slowdown"),
    ("failure_s", "#Failures"),
    ("guard_s", "#Guard"),
)
CANDIDATE_COLUMNS = ("Backend", "#Total", *(title for _, title in _TERMS), "#Cached", "#Free slots", "")


@click.command(short_help="What became of one request, and why.")
@click.argument("request_id")
@json_option
def explain(request_id: str, as_json: bool) -> None:
    """Tell what became of the request REQUEST_ID (the answer's header x-request-id, or its ledger id): how long it waited
    and for what, which backends were considered and what each would have cost in seconds, what was predicted and what came.

    \b
    Wait       until it has room there
    Load       until the model is in memory
    Prefill    reading the prompt, less what is in the cache
    Slowdown   how full it is, and answers that would come slower than they should
    Failures   what is feared of a backend that failed lately
    Guard      reading that delays those who come next, and use by others than Forebay

    \b
    forebay explain req-7f3a

    The scheduler remembers the latest requests only; of older ones `forebay usage --rows` tells what became of them.

    With --json: a list, newest first, of {"request_id", "ledger_id", "state", "reason", "user_name", "model", "arrived_at",
    "waited_ms", "predicted_wait_ms", "blocked_by", "attempts": [{"backend_name", "policy", "predicted_ttft_ms", "ttft_ms",
    "candidates": [{"backend_name", "total_s", "wait_s", …}], …}], …}
    """

    async def work(calls: Calls) -> admin_pb2.ViewExplanationResponse:
        return await calls(calls.stub.ViewExplanation, admin_pb2.ViewExplanationRequest(request_id=request_id))

    answer = ask(work)
    if as_json:
        print_json([_plain(told, answer.names) for told in answer.explanations])
        return
    for index, told in enumerate(answer.explanations):
        if index:
            click.echo()
        for line in account(told, answer.names):
            click.echo(line)
        for attempt in told.attempts:
            _print_candidates(attempt, answer.names)


def account(told: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Iterator[str]:
    """The lines that need no table."""
    who = names.users.get(told.user_id, told.user_id) or "nobody"
    groups = " › ".join(names.groups.get(group, group) for group in told.groups)
    yield f"Request {told.request_id} of {who}{f' ({groups})' if groups else ''}, key {told.key_id}"
    width = f", {told.width} slots" if told.width > 1 else ""
    yield (
        f"  {told.model} in the pool {told.pool or 'default'}, {word(told, 'band') or 'standard'}, "
        f"about {count(told.prompt_tokens)} prompt tokens{width}; ledger id {_ledger_id(told)}"
    )
    yield f"  It is {told.state}{f' ({told.reason})' if told.reason else ''}."
    yield ""
    yield from _timeline(told, names)
    if told.state == "waiting":
        yield from _why_it_waits(told)


def _timeline(told: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Iterator[str]:
    expected = f", expected to wait {milliseconds(told.predicted_wait_ms)}" if told.predicted_wait_ms else ""
    bound = f" and never longer than {milliseconds(told.wait_bound_ms)}" if expected and told.wait_bound_ms else ""
    came = moment(told.arrived_at_us) if told.arrived_at_us else "at a time not known"
    yield _at(0, f"came to {told.gateway or 'a gateway'} ({came}){expected}{bound}")
    for attempt in told.attempts:
        backend = names.backends.get(attempt.backend_id, attempt.backend_id)
        by = "its gateway, on a slot lent to it" if attempt.on_credit else attempt.policy
        cached = f", {count(attempt.cached_tokens)} tokens of it cached there" if attempt.cached_tokens else ""
        if by:
            yield _at(attempt.queued_ms, f"attempt {attempt.number}: placed on {backend} by {by}{cached}")
        else:  # by a leader before this one, or by its gateway while none led
            yield _at(None, f"attempt {attempt.number}: was on {backend} when the present leader heard of it")
        if attempt.passed_over_tokens > 0:
            ahead = count(round(attempt.passed_over_tokens))
            yield _at(None, f"before its turn, for its cached prefix: it was {ahead} tokens ahead of the least served")
        if attempt.HasField("ttft_ms"):
            yield _at(attempt.queued_ms + attempt.ttft_ms, f"first token {_against(attempt)}")
        elif attempt.predicted_ttft_ms and not attempt.end:
            yield _at(None, f"first token expected {milliseconds(attempt.predicted_ttft_ms)} after that")
        if attempt.end or attempt.HasField("settled_milli"):
            yield _at(None, f"{attempt.end or 'ended'}{_cost(attempt)}")
    if not told.attempts and told.state != "waiting":
        yield _at(told.waited_ms, f"{told.state}, without having been placed")


def _why_it_waits(told: scheduler_pb2.Explanation) -> Iterator[str]:
    yield ""
    yield f"  It has waited {milliseconds(told.waited_ms)}; its user's due is {told.due:.1%} of the pool."
    if told.ahead:
        yield f"  {count(told.ahead)} requests of the same key go first."
    for reason in told.blocked_by:
        yield f"  It waits for: {reason}"


def _against(attempt: scheduler_pb2.Attempt) -> str:
    came = f"{milliseconds(attempt.ttft_ms)} after that"
    if not attempt.predicted_ttft_ms:
        return came
    late_ms = attempt.ttft_ms - attempt.predicted_ttft_ms
    by = f", {milliseconds(abs(late_ms))} {'later' if late_ms > 0 else 'sooner'}" if late_ms else ""
    return f"{came}; expected {milliseconds(attempt.predicted_ttft_ms)}{by}"


def _cost(attempt: scheduler_pb2.Attempt) -> str:
    reserved = f"{count(round(attempt.reserved_milli / 1000))} weighted tokens reserved"
    if attempt.HasField("settled_milli"):
        return f"; {reserved}, {count(round(attempt.settled_milli / 1000))} charged"
    return f"; {reserved}" if attempt.reserved_milli else ""


def _at(ms: int | None, said: str) -> str:
    when = "" if ms is None else f"+{milliseconds(ms)}"
    return f"  {when:>10}  {said}"


def _print_candidates(attempt: scheduler_pb2.Attempt, names: admin_pb2.Names) -> None:
    if not attempt.candidates:
        return
    click.echo()
    click.echo(why_there(attempt, names))
    print_table(CANDIDATE_COLUMNS, candidate_rows(attempt, names), nothing="")


def why_there(attempt: scheduler_pb2.Attempt, names: admin_pb2.Names) -> str:
    """What stands over its candidates."""
    return f"Why {names.backends.get(attempt.backend_id, attempt.backend_id)} (attempt {attempt.number}), in seconds:"


def candidate_rows(attempt: scheduler_pb2.Attempt, names: admin_pb2.Names) -> Iterator[tuple[str, ...]]:
    """By CANDIDATE_COLUMNS, in rich's markup."""
    for c in attempt.candidates:
        yield (
            escape(names.backends.get(c.backend_id, c.backend_id)),
            _seconds(c.total_s),
            *(_seconds(getattr(c, field)) for field, _ in _TERMS),
            count(c.cached_tokens),
            count(c.free_slots),
            "[green]chosen[/green]" if c.backend_id == attempt.backend_id else "",
        )


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value else "0"


def _ledger_id(told: scheduler_pb2.Explanation) -> str:
    return str(UUID(bytes=told.ledger_id)) if len(told.ledger_id) == 16 else told.ledger_id.hex()


def _plain(told: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Plain:
    flat = plain(told)
    flat["ledger_id"] = _ledger_id(told)
    flat["user_name"] = names.users.get(told.user_id)
    flat["group_names"] = [names.groups.get(group, group) for group in told.groups]
    for attempt in flat["attempts"]:
        for one in (attempt, *attempt["candidates"]):
            one["backend_name"] = names.backends.get(one["backend_id"])
    return flat
