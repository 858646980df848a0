"""Following another service: from what was kept, through every break, and kept again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import grpc
import grpc.aio
import pytest

from forebay.clock import ManualClock
from forebay.follow import Follower
from forebay.ops import Ops
from forebay.sealed import Seal, SnapshotFile

MAX_AGE_S = 1000.0


class Source:
    """A service that owns words. Each of its streams sends what is put into it, until `cut`."""

    def __init__(self) -> None:
        self.is_up = True
        self.opened_at: list[float] = []
        self._current: asyncio.Queue[list[str] | None] | None = None

    def say(self, *words: str) -> None:
        assert self._current is not None
        self._current.put_nowait(list(words))

    def cut(self) -> None:
        assert self._current is not None
        self._current.put_nowait(None)

    @property
    def is_watched(self) -> bool:
        return self._current is not None

    async def stream(self) -> AsyncIterator[list[str]]:
        self.opened_at.append(asyncio.get_running_loop().time())
        if not self.is_up:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="nobody listens"
            )
        current = self._current = asyncio.Queue()
        try:
            while (words := await current.get()) is not None:
                yield words
        finally:
            self._current = None


class Words:
    """What is followed: every word in its order."""

    name = "words"
    owner = "dictionary"

    def __init__(self, source: Source) -> None:
        self._source = source
        self.known: list[str] = []

    def watch(self) -> AsyncIterable[list[str]]:
        return self._source.stream()

    def apply(self, update: list[str]) -> None:
        self.known += update

    def dump(self) -> bytes:
        return json.dumps(self.known).encode()

    def restore(self, kept: bytes) -> None:
        self.known = list(json.loads(kept))


class Place:
    """One follower and what lies around it."""

    def __init__(self, folder: Path, **options: bool) -> None:
        self.file = SnapshotFile(folder / "words.snapshot", Seal(b"s" * 32, "words"), MAX_AGE_S)
        self.folder = folder
        self.clock = ManualClock()
        self.source = Source()
        self.words = Words(self.source)
        self.ops = Ops("tests")
        self.ops.ready("start")
        self.follower = Follower(self.words, self.file, self.clock, self.ops, **options)

    def kept(self) -> list[str] | None:
        """What a start at this moment would begin with."""
        opened = self.file.read(self.clock.now())
        return None if opened is None else list(json.loads(opened))

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.follower.follow()), asyncio.create_task(self.follower.keep())]
        try:
            await eventually(lambda: self.source.opened_at)
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


async def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.002)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("forebay.follow._GATHER_S", 0.02)
    return Place(tmp_path)


async def test_updates_are_applied_in_their_order_and_the_first_makes_it_ready(place: Place) -> None:
    assert place.ops.missing == {"words": "dictionary has not told the words yet"}
    async with place.following():
        assert not place.follower.is_live
        place.source.say("one")
        place.source.say("two", "three")
        await eventually(lambda: place.words.known == ["one", "two", "three"])
        assert place.follower.is_live
        assert place.ops.missing == {}


async def test_what_was_kept_is_started_from_and_readiness_does_not_wait_for_the_owner(place: Place) -> None:
    place.file.write(b'["kept"]', place.clock.now())
    place.source.is_up = False
    await place.follower.start()
    assert place.words.known == ["kept"]
    assert place.ops.missing == {}
    async with place.following():
        await eventually(lambda: len(place.source.opened_at) == 3)
        assert place.words.known == ["kept"]
        assert place.ops.missing == {}
        assert not place.follower.is_live


@pytest.mark.parametrize("kept", [None, b"", b"not sealed at all", "too old"])
async def test_without_a_usable_snapshot_it_starts_with_nothing_and_is_not_ready(
    place: Place, kept: bytes | str | None
) -> None:
    if isinstance(kept, bytes):
        (place.folder / "words.snapshot").write_bytes(kept)
    if kept == "too old":
        place.file.write(b'["kept"]', place.clock.now())
        place.clock.advance(MAX_AGE_S + 1)
    await place.follower.start()
    assert place.words.known == []
    assert "words" in place.ops.missing


async def test_a_snapshot_of_a_form_that_is_not_understood_is_left_alone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.file.write(b"{of a later version", place.clock.now())
    await place.follower.start()
    assert "words" in place.ops.missing
    assert "snapshot not usable" in caplog.text


async def test_readyz_says_why_it_waits(place: Place) -> None:
    place.source.is_up = False
    async with place.following():
        told = "dictionary has not told the words yet (UNAVAILABLE: nobody listens)"
        await eventually(lambda: place.ops.missing == {"words": told})
        assert place.ops.answer("/readyz")[0] == 503
        place.source.is_up = True
        await eventually(lambda: place.source.is_watched)
        place.source.say("one")
        await eventually(lambda: place.ops.answer("/readyz")[0] == 200)


async def test_while_the_owner_is_away_it_asks_ever_more_slowly_and_quickly_again_after_a_word(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.follow._FIRST_RETRY_S", 0.02)
    monkeypatch.setattr("forebay.follow._LAST_RETRY_S", 0.3)
    opened = place.source.opened_at
    place.source.is_up = False
    async with place.following():
        await eventually(lambda: len(opened) == 7)
        pauses = [later - earlier for earlier, later in pairwise(opened)]
        for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.16, 0.3, 0.3), strict=True):
            assert pause >= least - 0.005, pauses  # timers may be a clock tick early
        assert pauses[-1] < 0.6, "no slower than the slowest"
        place.source.is_up = True
        await eventually(lambda: place.source.is_watched)
        place.source.say("one")
        await eventually(lambda: place.follower.is_live)
        tried, cut_at = len(opened), asyncio.get_running_loop().time()
        place.source.cut()
        await eventually(lambda: len(opened) > tried)
        assert opened[-1] - cut_at < 0.25


async def test_when_the_owner_goes_the_last_truth_stays_and_is_added_to_when_it_returns(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.following():
        place.source.say("one")
        await eventually(lambda: place.words.known == ["one"])
        place.source.is_up = False
        place.source.cut()
        await eventually(lambda: not place.follower.is_live)
        assert place.words.known == ["one"]
        assert place.ops.missing == {}, "a service that was told once goes on"
        assert "watch lost, the last known stays" in caplog.text
        place.source.is_up = True
        await eventually(lambda: place.source.is_watched)
        assert not place.follower.is_live, "it has not been heard yet"
        place.source.say("two")
        await eventually(lambda: place.follower.is_live)
        assert place.words.known == ["one", "two"]


async def test_what_changed_is_kept_many_changes_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = place.file.write

    def count(payload: bytes, now: float) -> None:
        written.append(payload)
        write(payload, now)

    monkeypatch.setattr(place.file, "write", count)
    async with place.following():
        for number in range(50):
            place.source.say(str(number))
        await eventually(lambda: place.kept() == [str(number) for number in range(50)])
        assert len(written) == 1
        await asyncio.sleep(0.06)
        assert len(written) == 1, "nothing has changed since"


async def test_what_changed_last_is_kept_when_the_service_stops(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.follow._GATHER_S", 60.0)
    async with place.following():
        place.source.say("one")
        await eventually(lambda: place.words.known)
        await asyncio.sleep(0)
        assert place.kept() is None
    assert place.kept() == ["one"]


async def test_a_disk_that_takes_nothing_stops_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    (place.folder / "words.snapshot").mkdir()
    await place.follower.start()
    async with place.following():
        place.source.say("one")
        await eventually(lambda: "snapshot not written" in caplog.text)
        place.source.say("two")
        await eventually(lambda: place.words.known == ["one", "two"])


async def test_while_it_is_live_an_unchanged_snapshot_is_dated_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.follow._REWRITE_S", 0.02)
    async with place.following():
        place.source.say("one")
        await eventually(lambda: place.kept() == ["one"])
        for _ in range(3):
            place.clock.advance(0.6 * MAX_AGE_S)
            await eventually(lambda: place.file.read(place.clock.now() + 0.9 * MAX_AGE_S))


async def test_without_its_owner_a_snapshot_grows_old(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.follow._REWRITE_S", 0.02)
    async with place.following():
        place.source.say("one")
        await eventually(lambda: place.kept() == ["one"])
        place.source.is_up = False
        place.source.cut()
        await eventually(lambda: not place.follower.is_live)
        await asyncio.sleep(0.1)  # for a writing that had begun before
        place.clock.advance(MAX_AGE_S + 1)
        await asyncio.sleep(0.1)
        assert place.kept() is None


async def test_an_empty_update_says_that_the_owner_is_there(place: Place) -> None:
    place.file.write(b'["kept"]', place.clock.now())
    await place.follower.start()
    place.clock.advance(0.9 * MAX_AGE_S)
    async with place.following():
        place.source.say()
        await eventually(lambda: place.follower.is_live)
        await eventually(lambda: place.file.read(place.clock.now() + 0.9 * MAX_AGE_S))
        assert place.kept() == ["kept"]


async def test_what_is_not_needed_keeps_nobody_from_being_ready_and_the_log_says_that_it_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path, is_needed=False)
    place.source.is_up = False
    await place.follower.start()
    async with place.following():
        await eventually(lambda: len(place.source.opened_at) == 3)
        assert place.ops.missing == {}
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == ["not watched yet"], "once, not at every try"


async def test_without_a_file_nothing_is_kept(place: Place) -> None:
    follower = Follower(place.words, None, place.clock, place.ops)
    place.follower = follower
    await follower.start()
    async with place.following():
        place.source.say("one")
        await eventually(lambda: follower.is_live)
        await asyncio.sleep(0.05)
    assert list(place.folder.iterdir()) == []
