"""What commands that change one thing of the fleet share: how labels are said, and what is told of the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from google.protobuf.message import Message

from forebay.errors import BadInput
from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay_admin.cli.amounts import MOST_VERSION
from forebay_admin.cli.fleet.changes import plain_change, print_changes
from forebay_admin.cli.output import print_json
from forebay_admin.cli.plain import plain

F = TypeVar("F", bound=Callable[..., Any])
Changed = wire.ChangeBackendResponse | wire.ChangeNodeResponse | wire.ChangePoolResponse

label_option: Callable[[F], F] = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="A label, beside those that it has; several times for more.",
)
base_option: Callable[[F], F] = click.option(
    "--base-version",
    type=click.IntRange(0, MOST_VERSION),
    metavar="N",
    help="Refuse when the fleet is at another version by now.",
)


def reset_option(example: str) -> Callable[[F], F]:
    return click.option(
        "--reset", multiple=True, metavar="FIELD", help=f"As usual again, such as {example}; several times for more."
    )


def parse_labels(told: Iterable[str]) -> dict[str, str]:
    """Raises BadInput."""
    labels = {}
    for text in told:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise BadInput(f"{text!r} is not NAME=VALUE: write rack=a.")
        labels[name.strip()] = value.strip()
    return labels


def tell(answer: Changed, what: str, entry: Message, *, as_json: bool) -> None:
    if as_json:
        changes = [plain_change(change) for change in answer.changes]
        print_json({what: plain(entry), "version": answer.version, "changes": changes})
        return
    print_changes(answer.changes)
    if answer.changes:
        click.echo(f"The fleet is at version {answer.version}.")
    else:
        click.echo(f"No changes: it is so already, and the fleet is at version {answer.version}.")
