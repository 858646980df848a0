"""`forebay audit search`, `show`, `forget` and `policy`: what requests and answers said, and of whose it is kept."""

from __future__ import annotations

import json
import time

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import key_terms_pb2
from forebay.wire.v1 import recordings_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table, visible
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.spans import parse_span, span_options
from forebay_admin.cli.words import coloured, count, milliseconds, moment

_EVER = "36500d"
_POLICIES = {
    "off": key_terms_pb2.AUDIT_POLICY_OFF,
    "metadata": key_terms_pb2.AUDIT_POLICY_METADATA,
    "full": key_terms_pb2.AUDIT_POLICY_FULL,
    "sampled": key_terms_pb2.AUDIT_POLICY_SAMPLED,
    "none": key_terms_pb2.AUDIT_POLICY_UNSPECIFIED,
}


@click.command(short_help="Find requests by what was said in them.")
@click.argument("text", required=False, default="")
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@click.option("--key", "key_id", default="", metavar="ID", help="Only of this key.")
@click.option("--model", default="", metavar="NAME", help="Only of this model, asked for or answering.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="So many at most.")
@click.option("--page", default="", metavar="PAGE", help="The page that the answer before named.")
@span_options("all there is")
@json_option
def search(
    text: str,
    user: str,
    key_id: str,
    model: str,
    limit: int,
    page: str,
    last: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """Find requests by words in them or in their answers, the newest first. Each look is written into the audit log.

    \b
    forebay audit search 'merger "project nightfall" -weather'
    forebay audit search --user alice --last 24h

    Only requests whose policy keeps them are there: see forebay audit policy.

    With --json: {"recordings": [{"id", "request_id", "started_at", "user_name", "key_id", "group_name", "model", "outcome",
    "request_bytes", "answer_bytes", "redacted", …}], "next_page"}
    """
    request = wire.SearchRecordingsRequest(text=text, user=user, key_id=key_id, model=model, limit=limit, page=page)
    if last or since or until:
        span = parse_span(last, since, until, time.time(), _EVER)
        request.from_us, request.to_us = max(0, span.from_us), span.to_us

    async def work(calls: Calls) -> wire.SearchRecordingsResponse:
        return await calls(calls.stub.SearchRecordings, request)

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    print_table(
        ("Request", "When", "User", "Model", "#Took", "Became", "#Asked", "#Answered"),
        (
            (
                escape(one.request_id),
                moment(one.started_at_us),
                escape(one.user_name),
                escape(one.model or one.model_requested),
                milliseconds(one.duration_ms),
                coloured(one.outcome),
                count(one.request_bytes),
                count(one.answer_bytes),
            )
            for one in told.recordings
        ),
        nothing="Nothing like that is kept.",
    )
    if told.next_page:
        click.echo(f"There is more: add --page {told.next_page}")


@click.command(short_help="What was asked, and what was answered.")
@click.argument("request")
@json_option
def show(request: str, as_json: bool) -> None:
    """Show what the request REQUEST (its id, as in the answer's x-request-id) asked, and what it was answered. That somebody
    looked is written into the audit log.

    With --json: {"recording": {…, as in `forebay audit search --json`}, "request", "answer"}
    """

    async def work(calls: Calls) -> wire.ShowRecordingResponse:
        return await calls(calls.stub.ShowRecording, wire.ShowRecordingRequest(id=request))

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    one = told.recording
    rows = [
        ("Request", one.request_id),
        ("When", moment(one.started_at_us)),
        ("Whose", f"{one.user_name} of {one.group_name}, key {one.key_id}, from {one.address or 'somewhere'}"),
        ("What", f"{one.route}, {one.model or one.model_requested}"),
        ("Became", f"{one.outcome} {one.reason}, HTTP {one.http_status}, {milliseconds(one.duration_ms)}"),
        ("Kept by", f"{word(one, 'policy')}, {one.redacted} passages taken out"),
    ]
    print_table(("Recording", ""), ((head, escape(what)) for head, what in rows), nothing="")
    for head, body, is_cut in (("Asked", told.request, one.request_cut), ("Answered", told.answer, one.answer_cut)):
        click.echo(f"\n{head}{' (only its beginning is kept)' if is_cut and body else ''}:")
        click.echo(visible(_indented(body)) if body else "(not kept)")


@click.command(short_help="Delete what is kept of a user or a request.")
@click.argument("request", required=False, default="")
@click.option("--user", default="", metavar="NAME", help="All that is kept of this user's requests.")
@json_option
def forget(request: str, user: str, as_json: bool) -> None:
    """Delete what is kept of the request REQUEST, or of all requests of a user. The ledger and the audit log stay.

    \b
    forebay audit forget --user alice

    With --json: {"deleted"}
    """
    if bool(request) == bool(user):
        raise BadInput("Name a request, or a user with --user.")

    async def work(calls: Calls) -> wire.DeleteRecordingsResponse:
        return await calls(calls.stub.DeleteRecordings, wire.DeleteRecordingsRequest(id=request, user=user))

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    click.echo(f"Recordings deleted: {count(told.deleted)}.")


@click.command(short_help="Of whose requests what is kept.")
@click.argument("policy", required=False, type=click.Choice(list(_POLICIES)))
@click.option("--group", default="", metavar="NAME", help="Of the members of this group. Default: of everybody.")
@click.option("--percent", type=click.FloatRange(0.1, 100), metavar="N", help="How many, where samples are kept.")
@json_option
def policy(policy: str | None, group: str, percent: float | None, as_json: bool) -> None:
    """Say of whose requests what is kept, or list what is said. A key's own policy (forebay key restrict KEY --audit) goes
    before its group's, and the innermost group before those around it.

    \b
    off        nothing; so it is for everybody until something else is said
    metadata   who asked which model, when, from where, and what became of it
    full       that, and what was asked and answered
    sampled    the same of so many per cent
    none       the group says nothing of its own any more

    \b
    forebay audit policy
    forebay audit policy full --group finance
    forebay audit policy sampled --percent 5

    With --json: a list of {"group", "policy", "permille"}; the group "" is everybody
    """
    if policy is None and (group or percent is not None):
        raise BadInput("Name a policy: off, metadata, full, sampled or none.")
    if percent is not None and policy == "none":
        raise BadInput("None has no --percent.")
    wanted = wire.RecordingPolicy(group=group, policy=_POLICIES[policy or "none"], permille=round((percent or 0) * 10))

    async def work(calls: Calls) -> list[wire.RecordingPolicy]:
        if policy is None:
            listed = await calls(calls.stub.ListRecordingPolicies, wire.ListRecordingPoliciesRequest())
            return list(listed.policies)
        request = wire.SetRecordingPolicyRequest(policy=wanted)
        return list((await calls(calls.stub.SetRecordingPolicy, request)).policies)

    told = ask(work)
    if as_json:
        print_json([plain(one) for one in told])
        return
    print_table(
        ("Whose", "Kept", "#Samples"),
        ((escape(one.group) or "everybody", word(one, "policy") or "", f"{one.permille / 10:g} %") for one in told),
        nothing="Nothing is kept of anybody's requests, unless a key says so.",
    )


def _indented(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
