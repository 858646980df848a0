"""`forebay top` in a real terminal: it draws, renews itself, and leaves the screen as it was."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios

from tests.admin.replica import Running
from tests.admin.test_alerts import at_work


async def test_in_a_terminal_it_takes_the_screen_renews_it_and_gives_it_back(admin: Running) -> None:
    at_work(admin)
    inner, outer = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
        "FOREBAY_ADMIN": admin.grpc_address,
        "FOREBAY_TOKEN": admin.site.first_key,
        "TERM": "xterm-256color",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forebay", "top", "--every", "0.5"),
        stdin=outer,
        stdout=outer,
        stderr=outer,
        env=environment,
        start_new_session=True,
        # A run in the background ignores it, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(outer)
    told = b""

    def take() -> None:
        nonlocal told
        try:
            told += os.read(inner, 65536)
        except OSError:  # the other side is closed
            loop.remove_reader(inner)

    loop = asyncio.get_running_loop()
    loop.add_reader(inner, take)
    try:
        async with asyncio.timeout(30):
            while told.count(b"slots in use") < 3:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            while b"\x1b[?1049l" not in told:
                await asyncio.sleep(0.05)
    finally:
        loop.remove_reader(inner)
        os.close(inner)
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = told.decode()
    assert text.index("\x1b[?1049h") < text.index("slots in use") < text.rindex("\x1b[?1049l")
    assert "Traceback" not in text
    assert "gpu" in text
    assert "healthy" in text
