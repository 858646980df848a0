"""`forebay audit`: who did what, and whether the log of it still is what was written."""

from __future__ import annotations

import json
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.markup import escape

from forebay.errors import ForebayError
from forebay.wire.v1 import audit_pb2 as wire
from forebay_admin.audit.chain import Anchor, parse_anchor
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table, visible
from forebay_admin.cli.overview.anchor_file import AnchorFile
from forebay_admin.cli.overview.recordings import forget, policy, search, show
from forebay_admin.cli.plain import Plain, plain
from forebay_admin.cli.spans import parse_span, span_options
from forebay_admin.cli.words import count, moment

_EVER = "36500d"


class LogDamaged(ForebayError):
    """The audit log is not what was written."""


@click.group(short_help="Who did what, and whether the log still says so.")
def audit() -> None:
    """The audit log: every act of an operator, with who, when, from where, and how it was before and after. It is a chain:
    nothing in it can be changed, taken out or put in between without that being found. And, where policy wants it kept, what
    requests and answers said.

    \b
    forebay audit list --action key --last 7d
    forebay audit verify
    forebay audit policy full --group finance
    forebay audit search 'project nightfall'
    """


for command in (search, show, forget, policy):
    audit.add_command(command)


@audit.command("list")
@click.option("--actor", default="", metavar="NAME", help="Only what this user did.")
@click.option(
    "--action", default="", metavar="WORD", help="Only this: key.revoke; or key for all that is done to keys."
)
@click.option("--subject", default="", metavar="NAME", help="Only what was done to this.")
@click.option("--interface", default="", metavar="WORD", help="Only through this: grpc, rest, sign_in, join, …")
@click.option("--address", default="", metavar="IP", help="Only from there.")
@click.option("--text", default="", metavar="TEXT", help="Only where this stands somewhere, also in before and after.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="So many at most.")
@click.option("--page", default="", metavar="PAGE", help="The page that the answer before named.")
@span_options("all there is")
@json_option
def list_entries(
    actor: str,
    action: str,
    subject: str,
    interface: str,
    address: str,
    text: str,
    limit: int,
    page: str,
    last: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """List what was done, the newest first.

    \b
    forebay audit list
    forebay audit list --actor alice --last 24h
    forebay audit list --subject engine-1 --json

    With --json: {"entries": [{"id", "at", "actor", "actor_key_id", "interface", "address", "action", "subject",
    "before": {…}, "after": {…}, "seq", "hash"}], "next_page"}
    """
    request = wire.ListAuditRequest(
        actor=actor,
        action=action,
        subject=subject,
        interface=interface,
        address=address,
        text=text,
        limit=limit,
        page=page,
    )
    if last or since or until:
        span = parse_span(last, since, until, time.time(), _EVER)
        request.from_us, request.to_us = max(0, span.from_us), span.to_us

    async def work(calls: Calls) -> wire.ListAuditResponse:
        return await calls(calls.stub.ListAudit, request)

    told = ask(work)
    if as_json:
        print_json({"entries": [_plain(entry) for entry in told.entries], "next_page": told.next_page or None})
        return
    print_table(
        ("When", "Who", "From", "Did", "To what", "Which changed"),
        (
            (
                moment(entry.at_us),
                escape(entry.actor),
                escape(_from(entry)),
                escape(entry.action),
                escape(entry.subject),
                escape(changed(entry.before, entry.after)),
            )
            for entry in told.entries
        ),
        nothing="Nothing like that was done.",
    )
    if told.next_page:
        click.echo(f"There is more: add --page {told.next_page}")


@audit.command()
@click.option("--from", "first", type=click.IntRange(1), metavar="N", help="From this link on. Default: the first.")
@click.option("--to", "to", type=click.IntRange(1), metavar="N", help="Up to this link. Default: the last.")
@click.option(
    "--anchor", default="", metavar="ANCHOR", help="What a check ended with before: that must still be there."
)
@click.option(
    "--anchor-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The last anchor in this file must still be there; what the check ends with is added. Made when it is not there.",
)
@json_option
def verify(first: int | None, to: int | None, anchor: str, anchor_file: Path | None, as_json: bool) -> None:
    """Check that the log is what was written: nothing changed, taken out or put in between. It ends with an anchor: keep it
    outside of this database, and a later check with it finds also a log that was cut off at its end, or that somebody made
    anew as a whole. A file does both, from a cron job on another machine.

    \b
    forebay audit verify
    forebay audit verify --anchor 1234:9f86d081884c7d659a2feaa0c55ad015…
    forebay audit verify --anchor-file /var/lib/forebay-audit/anchors

    The first thing that is wrong is named, and the exit code is 1; then nothing is added to the file.

    With --json: {"checked", "links", "done", "fault": {"damage", "seq", "entry_id", "why"}, "anchor"}
    """
    if anchor_file is not None and (anchor or to):
        raise click.UsageError("--anchor-file goes with the whole log: leave out --anchor and --to.")
    kept = AnchorFile(anchor_file) if anchor_file is not None else None
    if kept is not None and kept.last is not None:
        anchor = str(kept.last)
    request = wire.VerifyAuditRequest(from_seq=first or 0, to_seq=to or 0, anchor=anchor)
    shows = sys.stderr.isatty() and not as_json

    async def work(calls: Calls) -> wire.VerifyAuditResponse:
        news = wire.VerifyAuditResponse()
        async with aclosing(calls.stream(calls.stub.VerifyAudit, request)) as told:  # type: ignore[type-var]
            async for news in told:
                if shows:
                    click.echo(f"\r{count(news.checked)} of {count(news.links)}", err=True, nl=news.done)
        return news

    end = ask(work)
    if as_json:
        print_json(plain(end))
    if not end.done:
        raise LogDamaged("The check broke off before its end: try again.")
    if end.HasField("fault"):
        fault = end.fault
        place = f"link {fault.seq}" if fault.seq else "no link"
        entry = f", entry {fault.entry_id}" if fault.entry_id else ""
        raise LogDamaged(f"The audit log is damaged ({fault.damage} at {place}{entry}): {fault.why}.")
    if not as_json:
        links = count(end.links)
        click.echo(f"The log is what was written: {links} entries, chained without a gap.")
        if end.anchor and kept is None:
            click.echo(f"Keep elsewhere: {end.anchor}")
    if kept is not None and end.anchor:
        said = _keep(kept, parse_anchor(end.anchor))
        if not as_json:
            click.echo(said)


def _keep(file: AnchorFile, end: Anchor) -> str:
    """Raises BadInput."""
    before = file.last
    if not file.keep(end, datetime.now(UTC)):
        return f"Nothing was added since the last anchor in {file.path}."
    if before is None:
        return f"This is the first anchor in {file.path}: from now on the log is compared with it."
    return f"It goes on from the last anchor in {file.path}, which has the new end now."


def changed(before: str, after: str) -> str:
    """`slots 4 → 8, note x`: of two JSON objects, what is not the same in both."""
    old, new = (_object(text) for text in (before, after))
    parts = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            parts.append(
                f"{name} {_shown(old[name])} → {_shown(new.get(name))}"
                if name in old
                else f"{name} {_shown(new[name])}"
            )
    return visible(", ".join(parts))


def _from(entry: wire.AuditEntry) -> str:
    return f"{entry.interface} {entry.address}".strip()


def _plain(entry: wire.AuditEntry) -> Plain:
    told = plain(entry)
    told["before"], told["after"] = (json.loads(text) if text else None for text in (entry.before, entry.after))
    return told


def _object(text: str) -> Plain:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {"": found}


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"
