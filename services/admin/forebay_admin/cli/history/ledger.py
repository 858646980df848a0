"""`forebay ledger`: its rows as a file, and what could not be a row."""

from __future__ import annotations

import time
from contextlib import ExitStack

import click
from rich.markup import escape

from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.history.files import open_rows
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, usage_row
from forebay_admin.cli.spans import parse_span, span_options
from forebay_admin.cli.words import age, count, moment
from forebay_admin.ledger.export_rows import COLUMNS
from forebay_admin.row_files import FORMATS, Writer, writer_of

_USUAL = "24h"
_ROWS_OF_PAGE = 5000


@click.group(short_help="The ledger's rows as a file; what could not be a row.")
def ledger() -> None:
    """The ledger has a row for each request. `forebay usage` adds them up.

    \b
    forebay ledger export --last 30d --format parquet -o november.parquet
    forebay ledger dead-letters list
    """


@ledger.command()
@span_options(_USUAL)
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@click.option("--group", default="", metavar="NAME", help="Only of this group, and of groups within it.")
@click.option("--key", "key_id", default="", metavar="ID", help="Only with this key.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True, help="Of the file.")
@click.option("-o", "--output", "path", default="-", metavar="FILE", help="Where to. Default: standard output.")
def export(
    last: str | None,
    since: str | None,
    until: str | None,
    user: str,
    group: str,
    key_id: str,
    form: str,
    path: str,
) -> None:
    """Write the ledger into a file: a row for each request, nearly in the order in which they began. Times are ISO 8601
    in UTC, costs in millionths of the currency; what is not known is empty. In CSV a text that a spreadsheet would take
    for a formula gets a ' before it.

    \b
    forebay ledger export --last 24h > usage.csv
    forebay ledger export --from 2026-11-01 --to 2026-12-01 --format parquet -o november.parquet
    forebay ledger export --group research --last 7d --format json -o research.json
    """
    span = parse_span(last, since, until, time.time(), _USUAL)
    request = wire.ReadLedgerRequest(
        from_us=span.from_us, to_us=span.to_us, user=user, group=group, key_id=key_id, limit=_ROWS_OF_PAGE
    )

    async def work(calls: Calls) -> int:
        rows = 0
        with ExitStack() as stack:
            writer: Writer | None = None
            while True:
                page = await calls(calls.stub.ReadLedger, request)
                if writer is None:  # only now: a question that is refused makes no file
                    writer = stack.enter_context(open_rows(form, path, lambda file: writer_of(form, file, COLUMNS)))
                for record in page.rows:
                    writer.write({**usage_row(record), "started_at_us": record.started_at_us})
                    rows += 1
                if not page.next_page:
                    return rows
                request.page = page.next_page

    rows = ask(work)
    if path != "-":
        click.echo(f"{count(rows)} rows in {path}.")


@ledger.group("dead-letters", short_help="What came as usage and could not be a row.")
def dead_letters() -> None:
    """What came as usage and could not be a row: kept as it came, with the reason."""


@dead_letters.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, the newest first."
)
@json_option
def list_letters(limit: int, as_json: bool) -> None:
    """List them.

    With --json: {"letters": [{"id", "received_at", "from", "why", "bytes"}], "total", "next_page"}
    """

    async def work(calls: Calls) -> wire.ListDeadLettersResponse:
        return await calls(calls.stub.ListDeadLetters, wire.ListDeadLettersRequest(limit=limit))

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    now = time.time()
    print_table(
        ("Id", "Came", "From", "#Bytes", "Why"),
        (
            (one.id[:12], age(one.received_at_us, now), escape(getattr(one, "from")), count(one.bytes), escape(one.why))
            for one in answer.letters
        ),
        nothing="No dead letters: all that came became rows.",
    )
    if answer.next_page:
        click.echo(f"{count(answer.total)} in all.")


@dead_letters.command("show")
@click.argument("letter")
@json_option
def show_letter(letter: str, as_json: bool) -> None:
    """Show one, by its id or the beginning of it, and what of it can be read.

    With --json: {"letter": {"id", "received_at", "from", "why", "bytes"}, "payload": hexadecimal, "records": […]}
    """

    async def work(calls: Calls) -> wire.ShowDeadLetterResponse:
        return await calls(calls.stub.ShowDeadLetter, wire.ShowDeadLetterRequest(id=letter))

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    one = answer.letter
    click.echo(one.id)
    click.echo(f"Came {moment(one.received_at_us)} by {getattr(one, 'from')}, {count(one.bytes)} bytes: {one.why}")
    for record in answer.records:
        print_json(usage_row(record) if len(record.ledger_id) == 16 else plain(record))
    if not answer.records:
        click.echo(f"Nothing of it can be read. It begins with {answer.payload[:64].hex()}.")


@dead_letters.command("retry")
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them, at most 1000 at once.")
@json_option
def retry_letters(letters: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Make rows of those that can be some now; the others stay.

    With --json: {"retried", "rows", "left", "still": [{"id", "why", …}]}
    """
    if bool(letters) == every:
        raise click.UsageError("Name dead letters, or say --all.")

    async def work(calls: Calls) -> wire.RetryDeadLettersResponse:
        shown = [await calls(calls.stub.ShowDeadLetter, wire.ShowDeadLetterRequest(id=one)) for one in letters]
        ids = [one.letter.id for one in shown]
        return await calls(calls.stub.RetryDeadLetters, wire.RetryDeadLettersRequest(ids=ids))

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    click.echo(f"{count(answer.retried)} read, {count(answer.rows)} new rows; {count(answer.left)} stay.")
    for one in answer.still:
        click.echo(f"{one.id[:12]}  {one.why}")
