"""Children that are ours."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forebay.errors import CannotStart
from forebay.local.process import Account, Command, last_lines, run_to_end, start_child
from forebay.local.supervised import keep_running


async def at_once() -> bool:
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(pid: int, within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


async def test_what_a_child_says_goes_to_its_log(place: Path) -> None:
    command = Command("echo", ("/bin/sh", "-c", "echo out; echo err >&2"), place / "log")
    assert await run_to_end(command) == 0
    assert sorted(last_lines(place / "log").split()) == ["err", "out"]


async def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_reaches_only_us(place: Path) -> None:
    child = await start_child(Command("sleep", ("/bin/sleep", "60"), place / "log"))
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        await child.stop()
    assert not is_alive(child.pid)


async def test_a_child_that_ignores_the_signal_is_killed_after_its_grace_with_its_own_children(place: Path) -> None:
    script = f"trap '' TERM; sleep 61 & echo $! > {place}/grandchild; while :; do sleep 0.05; done"
    command = Command("stubborn", ("/bin/sh", "-c", script), place / "log", grace_s=0.3)
    child = await start_child(command)
    while not (place / "grandchild").exists() or not (place / "grandchild").read_text():
        await asyncio.sleep(0.02)
    await child.stop()
    assert await child.wait() == -signal.SIGKILL
    assert until_gone(int((place / "grandchild").read_text()))


async def test_a_child_that_dies_at_once_is_told_with_the_end_of_its_log(place: Path) -> None:
    command = Command("thing", ("/bin/sh", "-c", "echo no such model; exit 3"), place / "thing.log")
    child = await start_child(command)

    async def never() -> bool:
        return False

    with pytest.raises(CannotStart, match=r"thing ended at once \(exit status 3\)(?s:.*)no such model"):
        await child.wait_ready(never)


async def test_a_program_that_is_not_there_is_named(place: Path) -> None:
    assert await run_to_end(Command("ghost", ("/no/such/program",), place / "log")) != 0
    assert "/no/such/program cannot be run: No such file or directory" in last_lines(place / "log")


def test_children_end_when_their_parent_is_killed(place: Path) -> None:
    """The kernel tells them; nobody else is left who could."""
    script = f"""
import asyncio
from pathlib import Path
from forebay.local.process import Command, start_child
async def main():
    child = await start_child(Command("sleep", ("/bin/sleep", "62"), Path({str(place / "log")!r})))
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)  # past its launcher
        assert is_alive(pid)
        parent.kill()
        parent.wait()
        assert until_gone(pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become somebody else")
async def test_a_child_of_root_can_be_somebody_else_and_still_ends_with_us(place: Path) -> None:
    nobody = Account("nobody", 65534, 65534)
    child = await start_child(Command("sleep", ("/bin/sleep", "63"), place / "log", account=nobody))
    try:
        for _ in range(100):
            if "sleep" in Path(f"/proc/{child.pid}/cmdline").read_text().split("\0")[0]:
                break
            await asyncio.sleep(0.02)
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert "Groups:\t \n" in status or "Groups:\t\n" in status
    finally:
        await child.stop()


async def test_a_supervised_child_that_is_killed_comes_back_and_says_so(place: Path) -> None:
    said: list[str] = []
    command = Command("worker", ("/bin/sleep", "64"), place / "log")
    async with keep_running(command, at_once, said.append) as worker:
        first = worker.pid
        worker.send(signal.SIGKILL)
        async with asyncio.timeout(30):
            while worker.restarts == 0:
                await asyncio.sleep(0.02)
        second = worker.pid
        assert second is not None
        assert second != first
        assert said[0] == "worker ended (SIGKILL); starting it again in 0.2 s."
        assert said[1] == f"worker runs again (process {second})."
    assert until_gone(second)


async def test_a_supervised_child_that_keeps_dying_is_tried_less_and_less_often(place: Path) -> None:
    said: list[str] = []
    command = Command("broken", ("/bin/sh", "-c", f"[ -e {place}/bad ] && exit 7; exec sleep 65"), place / "log")

    async def still_up() -> bool:
        return not (place / "bad").exists()

    async with keep_running(command, still_up, said.append) as broken:
        (place / "bad").touch()
        broken.send(signal.SIGKILL)
        async with asyncio.timeout(10):
            while len(said) < 7:
                await asyncio.sleep(0.05)
    assert [line.rpartition("again in ")[2] for line in said[:7:2]] == ["0.2 s.", "0.4 s.", "0.8 s.", "1.6 s."]
    assert all(line.startswith("broken ended at once (exit status 7). The end of its log") for line in said[1:7:2])


async def test_one_that_runs_again_but_is_not_ready_is_left_alone(place: Path) -> None:
    """It may be waiting for another part, and serve those it has meanwhile."""
    said: list[str] = []
    command = Command("waiting", ("/bin/sleep", "68"), place / "log", ready_within_s=0.3)

    async def once() -> bool:
        return not said

    async with keep_running(command, once, said.append) as waiting:
        waiting.send(signal.SIGKILL)
        async with asyncio.timeout(30):
            while len(said) < 2:
                await asyncio.sleep(0.02)
        pid = waiting.pid
        await asyncio.sleep(0.5)
        assert waiting.pid == pid is not None
    assert said[1].startswith("waiting did not get ready in time")


async def test_a_stopped_child_stays_down_until_it_is_started_again(place: Path) -> None:
    async with keep_running(Command("worker", ("/bin/sleep", "66"), place / "log"), at_once, print) as worker:
        await worker.stop()
        await asyncio.sleep(0.4)
        assert worker.pid is None
        await worker.start()
        assert worker.pid is not None


async def test_a_hurried_child_ends_for_good_and_its_end_is_no_news(place: Path) -> None:
    said: list[str] = []
    command = Command("worker", ("/bin/sleep", "67"), place / "log")
    async with keep_running(command, at_once, said.append) as worker:
        worker.hurry()
        await asyncio.sleep(0.5)
        assert (worker.pid, worker.restarts, said) == (None, 0, [])


async def test_a_child_that_never_comes_up_the_first_time_is_an_error_and_leaves_nothing(place: Path) -> None:
    command = Command("slow", ("/bin/sleep", "67"), place / "log", ready_within_s=0.2)

    async def never() -> bool:
        return False

    with pytest.raises(CannotStart, match="slow did not get ready in time"):
        async with keep_running(command, never, print):
            pytest.fail("it is not ready")
    running = subprocess.run(
        ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"], capture_output=True
    )
    assert b"/bin/sleep 67" not in running.stdout
