"""`forebay doctor`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import click

from forebay.doctor.finding import Finding, Grade, worst

_SIGNS = {Grade.OK: ("✓", "green"), Grade.WARN: ("!", "yellow"), Grade.FAIL: ("✗", "red"), Grade.UNKNOWN: ("?", "cyan")}


@click.command(short_help="Look for what is wrong on this machine, and say what to do about it.")
@click.argument("services", nargs=-1)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file; ./forebay.toml when there is one.")
@click.option("--quiet", is_flag=True, help="Show what is wrong alone.")
@click.option("--json", "as_json", is_flag=True, help="Answer as JSON, the same in every version.")
@click.pass_context
def doctor(ctx: click.Context, services: Sequence[str], config: Path | None, quiet: bool, as_json: bool) -> None:
    """Look at this machine and at all that the settings of SERVICES name: limits, memory and room; clocks; ports that are
    free or ours; files, and whether secrets are secret; certificates; NATS, PostgreSQL and the other services; versions.
    Nothing is changed, and nothing need run. Without SERVICES, those that the settings file has tables for; without a file,
    the machine and what `forebay up` needs of it or runs on it (with another data directory: FOREBAY_DATA_DIR).

    \b
    forebay doctor
    forebay doctor gateway scheduler --config /etc/forebay/forebay.toml
    sudo -u forebay-gateway --preserve-env=DATABASE_URL forebay doctor gateway   # with the rights that it has

    Exit status: 0 nothing is wrong, or might soon be; 1 something is.

    With --json: {"worst", "findings": [{"area", "subject", "grade", "found", "advice"}]}; grades are ok, warn, fail, unknown
    """
    from forebay.config import read_file
    from forebay.doctor.examining import examine_machine, examine_services, read_all
    from forebay.doctor.up import examine_up
    from forebay.launch import load_services

    file = read_file(config)
    known = sorted(entry.name for entry in entry_points(group="forebay.services"))
    chosen = list(services) or [name for name in known if name in file or name.replace("-", "_") in file]
    findings: list[Finding] = []

    def tell(one: Finding) -> None:
        findings.append(one)
        if not as_json and not (quiet and one.grade in (Grade.OK, Grade.UNKNOWN)):
            _show(one)

    for finding in examine_machine([] if chosen else [_data_directory()]):
        tell(finding)
    if chosen:
        settings, problems = read_all(load_services(chosen), file, os.environ, known)
        for finding in (*problems, *examine_services(settings)):
            tell(finding)
    else:
        for finding in examine_up(_data_directory(), datetime.now(UTC)):
            tell(finding)
    grade = worst(findings)
    if as_json:
        click.echo(
            json.dumps({"worst": grade, "findings": [asdict(one) for one in findings]}, indent=2, ensure_ascii=False)
        )
    else:
        _sum_up(findings)
    if grade is Grade.FAIL:
        ctx.exit(1)


def _show(finding: Finding) -> None:
    sign, colour = _SIGNS[finding.grade]
    click.echo(
        f"{click.style(sign, fg=colour)} {finding.area}: {click.style(finding.subject, bold=True)}: {finding.found}"
    )
    if finding.advice:
        click.echo(f"    {finding.advice}")


def _sum_up(findings: Sequence[Finding]) -> None:
    wrong = sum(one.grade is Grade.FAIL for one in findings)
    soon = sum(one.grade is Grade.WARN for one in findings)
    if wrong or soon:
        click.echo(f"\n{len(findings)} looks: {wrong} wrong, {soon} that may become so.")
    else:
        click.echo(f"\n{len(findings)} looks, and nothing is wrong.")


def _data_directory() -> Path:
    from forebay.local.data_directory import default_root

    named = os.environ.get("FOREBAY_DATA_DIR")
    return Path(named).expanduser() if named else default_root()
