"""`forebay up`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from forebay.local.data_dir_option import data_dir_option
from forebay.local.terminal import RichTerminal, Terminal
from forebay.local.up import Up, Wanted

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Run a whole Forebay on this machine.")
@data_dir_option
@click.option(
    "--base-port",
    type=click.IntRange(1, 65400),
    default=8090,
    show_default=True,
    help="The gateway's port; all others follow from it.",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Serve other machines on this address (0.0.0.0 for all): HTTPS for clients, NATS with TLS for agents.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate chain (PEM) to serve with; else one from a local CA is made.")
@click.option("--tls-key", type=_FILE, help="Its private key (PEM).")
@click.option("--plain-http", is_flag=True, help="With --listen: no HTTPS, for a proxy in front that speaks it.")
@click.option(
    "--mtls", is_flag=True, help="Certificates between all parts and NATS, made and renewed in the data directory."
)
@click.option("--config", type=_FILE, help="Settings file; ./forebay.toml when there is one.")
@click.option("--no-engine", is_flag=True, help="Neither look for an engine nor start one.")
@click.option(
    "--engine-slots",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many answers the engine that is started here writes at once.",
)
@click.option("--gateways", type=click.IntRange(1, 16), default=1, show_default=True, help="How many gateways to run.")
@click.option(
    "--gateway-workers",
    type=click.IntRange(1, 64),
    help="How many processes share each gateway's address.  [default: 1]",
)
@click.option(
    "--schedulers",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="How many schedulers to run: one leads, the others stand by and take over within seconds.",
)
@click.option(
    "--registries",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="How many registries to run: one leads, the other stands by and takes over within seconds.",
)
def up(no_engine: bool, **options: object) -> None:
    """Run a whole Forebay on this machine: PostgreSQL, NATS, the services and, where no engine is found, a small model.

    DATABASE_URL and NATS_URL name servers of your own, which are used instead. Ctrl-C stops all of it in good order.
    """
    wanted = Wanted(engine=not no_engine, **options)  # type: ignore[arg-type]
    terminal = RichTerminal()
    asyncio.run(_run(Up(wanted, terminal), terminal))


async def _run(everything: Up, terminal: Terminal) -> None:
    """Until the first signal; the second one hurries."""
    running = asyncio.create_task(_until_cancelled(everything))
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            terminal.line("\nStopping: requests under way may finish. Ctrl-C again stops at once.")
            running.cancel()  # wherever it is: starting, or all ready
        else:
            everything.hurry()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, on_signal)
    try:
        await running
    except asyncio.CancelledError:
        if not signals:
            raise


async def _until_cancelled(everything: Up) -> None:
    async with everything.open():
        await asyncio.Event().wait()
