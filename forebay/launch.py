"""`forebay`: the command. `forebay run SERVICE…` runs any of the services in this process; the other commands are nouns that
the services bring along through the entry points `forebay.commands`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, NoReturn

import click

from forebay import collector, completing
from forebay.clock import SystemClock
from forebay.config import read_file, read_settings, unknown_tables
from forebay.errors import BadInput, BadSettings, CannotStart, ForebayError

log = logging.getLogger(__name__)


class Nouns(click.Group):
    """Commands found by entry point and imported only when named: an agent's machine has no database driver."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(e.name for e in entry_points(group="forebay.commands"))})

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """By name alone: to tell what each of them is, all would have to be imported."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return completing.name_items(self.list_commands(ctx), incomplete)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        known = super().get_command(ctx, name)
        if known is not None:
            return known
        for entry in entry_points(group="forebay.commands", name=name):
            command = _load_command(entry)
            if completing.is_completing():
                completing.complete_names(name, command)
            return command
        return None


def _load_command(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        message = (
            f"This command needs the module {error.name}, which is not installed here: pip install 'forebay[all]'."
        )

        @click.command(
            entry.name,
            short_help=f"(not installed here: {error.name} is missing)",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True},  # whatever was asked of it, this is the answer
        )
        @click.argument("_", nargs=-1, type=click.UNPROCESSED)
        def missing(_: Sequence[str]) -> None:
            raise click.ClickException(message)

        return missing
    assert isinstance(command, click.Command)
    return command


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("forebay"), prog_name="forebay")
def cli() -> None:
    """One address in front of many LLM engines, shared fairly among many people.

    \b
    forebay up            everything on this machine, with a model, from nothing
    forebay run SERVICE   one or more services in this process
    forebay NOUN VERB     talk to a running Forebay: key create, backend add, usage …

    Commands that talk to a running Forebay find it through FOREBAY_ADMIN (host:port) and FOREBAY_TOKEN (an admin's key), and
    without them through the connection.json that `forebay up` writes.
    """


@cli.command(short_help="Run one or more services in this process.")
@click.argument("services", nargs=-1, required=True)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file; ./forebay.toml when there is one.")
@click.option(
    "--set", "sets", multiple=True, metavar="SERVICE.FIELD=VALUE", help="One setting, over file and environment."
)
@click.option(
    "--workers", type=click.IntRange(1, 64), help="With gateway: how many processes share its address. [default: 1]"
)
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text", "syslog"]),
    help="Or FOREBAY_LOG_FORMAT. auto: text at a terminal, syslog (RFC 5424) where --log-to names another place, else json.",
)
@click.option(
    "--log-to",
    metavar="PLACE",
    help="Or FOREBAY_LOG_TO: stderr, unix:/dev/log, udp://HOST:514, tcp://HOST:601. A place that is away stops nothing: "
    "what finds no room in a queue of 10,000 lines is counted (forebay_log_lines_dropped_total).",
)
def run(
    services: Sequence[str],
    config: Path | None,
    sets: Sequence[str],
    workers: int | None,
    log_level: str,
    log_format: str | None,
    log_to: str | None,
) -> None:
    """Run SERVICES (gateway, scheduler, registry, admin, gpu-agent, or all) in this process until SIGTERM or Ctrl-C."""
    import asyncio  # here and below, since a shell that completes waits for what is imported above

    from forebay.telemetry import FORMAT_VARIABLE, PLACE_VARIABLE, set_up_logs

    # Else gRPC writes a line of its own, which is no JSON, for each handshake that fails. It reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Workers of a gateway find them in the environment.
    os.environ.update({n: v for n, v in ((FORMAT_VARIABLE, log_format), (PLACE_VARIABLE, log_to)) if v is not None})
    set_up_logs("+".join(services), log_level)
    chosen = load_services(services)
    counted = () if workers is None else (f"gateway.workers={workers}",)
    prepared = prepare(chosen, read_file(config), _split_sets((*sets, *counted)))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run_until_told(prepared))


@cli.command(short_help="Print what a shell needs to complete this command at a TAB.")
@click.argument("shell", type=click.Choice(completing.SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL needs to complete nouns, verbs, options, and names of users, keys, groups, backends, nodes, pools and
    models. Names are asked of the Forebay that commands would talk to; while it is away, there are none.

    \b
    bash   in ~/.bashrc:  eval "$(forebay completion bash)"
    zsh    in ~/.zshrc:   eval "$(forebay completion zsh)"
    fish   once:          forebay completion fish > ~/.config/fish/completions/forebay.fish
    """
    click.echo(completing.script(shell, cli))


@cli.command("version", short_help="Say which version this is; --check says whether there is a newer one.")
@click.option("--check", is_flag=True, help="Ask the page at FOREBAY_VERSION_URL, or --url, which one is the newest.")
@click.option("--url", metavar="URL", envvar="FOREBAY_VERSION_URL", help="The page to ask, with --check.")
@click.option("--json", "as_json", is_flag=True, help="Answer as JSON, the same in every version.")
def tell_version(check: bool, url: str | None, as_json: bool) -> None:
    """Say which version of Forebay this is. Nobody is asked whether there is a newer one, but with --check, and then only
    that page: text such as 1.2.3, or JSON as package indexes and the releases of GitHub tell it.

    \b
    forebay version
    forebay version --check --url https://mirror.example.org/forebay/version

    With --json: {"version", "newest", "is_newest"}; the latter two are null without --check.
    """
    import json

    from forebay.version_check import is_newer, newest_at

    here, newest = version("forebay"), None
    if check:
        if not url:
            raise BadInput(
                "Say whom to ask: set FOREBAY_VERSION_URL, or --url, to a page that names the newest version."
            )
        newest = newest_at(url)
    is_newest = None if newest is None else not is_newer(newest, here)
    if as_json:
        click.echo(json.dumps({"version": here, "newest": newest, "is_newest": is_newest}, indent=2))
        return
    click.echo(f"forebay {here}")
    if newest is not None:
        click.echo("There is no newer one." if is_newest else f"There is a newer one: {newest}")


def load_services(names: Sequence[str]) -> list[Any]:
    """The services of these names, each after those it needs. Raises CannotStart for a name there is not."""
    known = {entry.name: entry for entry in entry_points(group="forebay.services")}
    wanted = list(known) if "all" in names else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise CannotStart(f"There is no service {', '.join(unknown)}; there are {', '.join(sorted(known))} and all.")
    try:
        services = {name: known[name].load() for name in wanted}
    except ModuleNotFoundError as error:
        raise CannotStart(f"{error.name} is not installed here: pip install 'forebay[{','.join(wanted)}]'.") from error
    ordered: list[Any] = []

    def place(name: str) -> None:
        service = services.get(name)
        if service is None or service in ordered:
            return
        for need in service.needs:
            place(need)
        ordered.append(service)

    for name in wanted:
        place(name)
    return ordered


def prepare(services: Sequence[Any], file: dict[str, Any], flags: dict[str, dict[str, str]]) -> list[tuple[Any, Any]]:
    """(service, settings) pairs. Raises BadSettings with the problems of all of them."""
    running = {service.name for service in services}
    problems = [f"--set {name}.…: {name} is not among the services to run" for name in flags if name not in running]
    problems += unknown_tables(file, [*running, *(entry.name for entry in entry_points(group="forebay.services"))])
    prepared = []
    for service in services:
        try:
            flag = flags.get(service.name, {})
            settings = read_settings(service.settings, service.name, file=file, environ=os.environ, flags=flag)
            prepared.append((service, settings))
        except BadSettings as error:
            problems += error.problems
    if problems:
        raise BadSettings(problems)
    return prepared


async def run_until_told(prepared: Sequence[tuple[Any, Any]]) -> None:
    """Enters each service, waits for SIGTERM or SIGINT, leaves them in reverse."""
    import asyncio
    from contextlib import AsyncExitStack

    from forebay.memory_bus import MemoryBus
    from forebay.ops import Ops, serve_ops
    from forebay.service import Ground
    from forebay.traces.opening import open_tracing

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    clock = SystemClock()
    memory_bus = MemoryBus(clock.now)
    all_ops = [Ops(service.name) for service, _ in prepared]
    traced = [ops for ops, (_, settings) in zip(all_ops, prepared, strict=True) if _is_traced(ops.service, settings)]
    async with AsyncExitStack() as stack:
        if traced:
            name = "+".join(ops.service for ops in traced)
            stack.enter_context(open_tracing(name, metrics=traced[0].metrics))
        for ops, (service, settings) in zip(all_ops, prepared, strict=True):
            address = stack.enter_context(serve_ops(ops, settings.ops_listen))
            beating = asyncio.create_task(beat(ops), name="beat")
            stack.callback(beating.cancel)
            ground = Ground(service.name, clock, ops, memory_bus)
            await stack.enter_async_context(service.open(settings, ground))
            ops.ready("start")
            log.info("service ready", extra={"action": "ready", "name_": service.name, "ops": address})
        collector.calm()
        await told.wait()
        for ops in all_ops:
            ops.not_ready("drain", "draining: told to stop")
        log.info("draining", extra={"action": "drain"})


def _is_traced(name: str, settings: Any) -> bool:
    """Whether spans begin in this process: an agent has none, and the parent of several gateway processes serves nobody."""
    return name != "gpu-agent" and getattr(settings, "workers", 1) == 1


async def beat(ops: Any) -> None:
    """For ever: the loop turns."""
    import asyncio

    while True:
        ops.beat()
        await asyncio.sleep(1)


def loop_factory() -> Any:
    """What makes the fastest event loop that is installed here. None: asyncio's own does."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _split_sets(sets: Sequence[str]) -> dict[str, dict[str, str]]:
    flags: dict[str, dict[str, str]] = {}
    for text in sets:
        target, equals, value = text.partition("=")
        service, dot, field = target.partition(".")
        if not equals or not dot:
            raise BadSettings([f"--set {text}: write SERVICE.FIELD=VALUE, such as gateway.listen=127.0.0.1:8090"])
        flags.setdefault(service, {})[field.replace("-", "_")] = value
    return flags


def main() -> None:
    if completing.is_completing():
        completing.set_up()
    try:
        status = cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has read enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        sys.exit(141)  # as a shell tells SIGPIPE
    except ForebayError as error:
        _exit_saying(error)
    except UnicodeEncodeError as error:
        if not any(str(error.object) in word for word in sys.argv[1:]):
            raise
        _exit_saying(BadInput(f"{error.object!a} is not text: its bytes are no UTF-8."))
    except BaseExceptionGroup as group:  # what a service's TaskGroup makes of the error that ended it
        error_in_group = first_of_ours(group)
        if error_in_group is None:
            raise
        _exit_saying(error_in_group)
    if isinstance(status, int):  # what click gives for `ctx.exit(n)`
        sys.exit(status)


def _exit_saying(error: ForebayError) -> NoReturn:
    click.echo(f"forebay: {error.message}", err=True)
    sys.exit(next((EXIT_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in EXIT_CODES), 1))


def first_of_ours(group: BaseExceptionGroup[BaseException]) -> ForebayError | None:
    """None unless every error in the group is of our family: another one needs its traceback."""
    ours, others = group.split(ForebayError)
    if ours is None or others is not None:
        return None
    first: BaseException = ours
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, ForebayError)
    return first


EXIT_CODES = {
    "BadSettings": 2,
    "BadInput": 2,
    "NotFound": 3,
    "NotAuthenticated": 4,
    "NotAllowed": 4,
    "AlreadyExists": 5,
    "Unavailable": 6,
}
"""For scripts: 1 anything else, 2 wrong use, 3 no such thing, 4 no right, 5 already there, 6 not reachable now."""
