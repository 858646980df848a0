"""The journal gives back every record exactly as it was, through restarts, kills, torn tails and full disks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.errors import CannotStart
from forebay_gateway.ledger.journal import Journal, close_lost, hold_directory, next_generation, open_journal
from forebay_gateway.ledger.journal_segment import Kind, Segment, frame, read_records
from forebay_gateway.refused import JournalFull

SMALL = 1 << 15


def name(number: int) -> bytes:
    return number.to_bytes(16)


def journal_in(directory: Path, segments: int = 8) -> Journal:
    directory.mkdir(exist_ok=True)
    return open_journal(directory, SMALL, segments)


def published(journal: Journal) -> dict[bytes, bytes]:
    return dict(journal.oldest(10_000, 1 << 30))


def opens(journal: Journal, ledger_id: bytes, payload: bytes) -> bool:
    try:
        journal.open(ledger_id, payload)
    except JournalFull:
        return False
    return True


def test_a_closed_record_waits_until_it_is_acknowledged(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.open(name(1), b"opened")
    assert published(journal) == {}
    assert not journal.closed.is_set()
    journal.close(name(1), b"closed")
    assert published(journal) == {name(1): b"closed"}
    assert journal.closed.is_set()
    journal.acknowledge([name(1)])
    assert published(journal) == {}
    assert not journal.closed.is_set()


def test_a_batch_is_bounded_by_number_and_by_bytes_and_is_never_empty(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(10):
        assert journal.note(name(number), b"x" * 100)
    assert len(journal.oldest(3, 1 << 20)) == 3
    assert len(journal.oldest(100, 250)) == 2
    assert len(journal.oldest(100, 1)) == 1


def test_a_successor_finds_what_was_not_published_and_what_was_open(tmp_path: Path) -> None:
    first = journal_in(tmp_path)
    for number in range(4):
        first.open(name(number), b"opened %d" % number)
    first.close(name(0), b"closed 0")
    first.close(name(1), b"closed 1")
    # the process dies here: nothing is left, nothing is written any more
    second = journal_in(tmp_path)
    assert published(second) == {name(0): b"closed 0", name(1): b"closed 1"}
    assert close_lost(second, lambda opened: b"lost: " + opened) == 2
    assert published(second)[name(3)] == b"lost: opened 3"
    # and once more, before anything was published
    third = journal_in(tmp_path)
    assert published(third) == published(second)
    assert close_lost(third, lambda opened: b"never") == 0
    third.acknowledge(list(published(third)))
    assert len(list(tmp_path.glob("*.segment"))) == 1
    assert published(journal_in(tmp_path)) == {}


def test_what_was_acknowledged_is_not_told_again_by_a_successor(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(4):
        journal.note(name(number), b"closed")
    journal.acknowledge([name(0), name(2)])
    assert list(published(journal_in(tmp_path))) == [name(1), name(3)]


def test_files_are_bounded_and_new_requests_refused_when_all_are_full(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segments=3)
    opened = 0
    while opens(journal, name(opened), b"o" * 300):
        journal.close(name(opened), b"c" * 4000)
        opened += 1
    assert opened > 10
    for number in range(1000, 2000):  # a flood of refused requests must not fill the disk either
        if not journal.note(name(number), b"x" * 300):
            break
    else:
        pytest.fail("it took a thousand more")
    assert len(list(tmp_path.glob("*.segment"))) <= 3
    journal.acknowledge(list(published(journal)))
    journal.open(name(opened), b"again")
    assert len(list(tmp_path.glob("*.segment"))) == 1


def test_every_open_request_can_still_be_closed_when_the_journal_is_full(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segments=3)
    opened = 0
    while opens(journal, name(opened), b"o"):
        opened += 1
    for number in range(opened):
        journal.close(name(number), b"c" * 4096)
    assert len(list(tmp_path.glob("*.segment"))) <= 3
    assert len(published(journal_in(tmp_path, segments=3))) == opened


def test_a_long_request_does_not_hold_on_to_old_files(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, segments=4)
    journal.open(name(0), b"the long one")
    for number in range(1, 500):
        journal.open(name(number), b"o" * 500)
        journal.close(name(number), b"c" * 500)
        journal.acknowledge([name(number)])
    assert len(list(tmp_path.glob("*.segment"))) <= 3
    successor = journal_in(tmp_path)
    assert successor.open_requests() == [(name(0), b"the long one")]


def test_a_full_disk_refuses_new_requests_and_keeps_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_in(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    opened = 0
    while opens(journal, name(opened), b"o" * 1000):
        opened += 1
    with pytest.raises(JournalFull, match="disk"):
        journal.open(name(opened), b"o" * 1000)
    for number in range(opened):
        journal.close(name(number), b"c" * 1000)
    assert len(published(journal)) == opened


async def test_the_next_file_is_made_ahead(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for number in range(20):
        journal.note(name(number), b"x" * 1000)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(list(tmp_path.glob("*.segment"))) == 2:
            break
    assert len(list(tmp_path.glob("*.segment"))) == 2
    for number in range(20, 60):
        journal.note(name(number), b"x" * 1000)
    await journal.leave()
    assert len(published(journal_in(tmp_path))) == 60


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with hold_directory(tmp_path / "journal"):
        again = hold_directory(tmp_path / "journal")
        with pytest.raises(CannotStart, match="Another gateway"):
            again.__enter__()
    with hold_directory(tmp_path / "journal"):
        assert (tmp_path / "journal").is_dir()


def test_the_start_counter_goes_up_by_one_and_is_stored(tmp_path: Path) -> None:
    assert [next_generation(tmp_path, 1000.0 + wait) for wait in (0, 2, 9)] == [1001, 1002, 1003]
    (tmp_path / "generation").write_text("not a number")
    with pytest.raises(CannotStart, match="no number"):
        next_generation(tmp_path, 1000.0)


def test_a_gateway_whose_directory_was_lost_counts_on_from_above_its_past(tmp_path: Path) -> None:
    before = [next_generation(tmp_path, 1000.0) for _ in range(3)][-1]
    (tmp_path / "generation").unlink()
    assert next_generation(tmp_path, 1060.0) > before


records = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.binary(min_size=16, max_size=16), st.binary(max_size=50)), max_size=8
)


@given(records)
def test_what_is_written_is_read_back(wanted: list[tuple[Kind, bytes, bytes]]) -> None:
    content = b"".join(frame(*record) for record in wanted) + bytes(64)
    assert [(r.kind, r.ledger_id, r.payload) for r in read_records(content)] == wanted


@given(records, st.integers(0, 500), st.binary(max_size=60))
def test_a_torn_tail_loses_only_what_was_torn(
    wanted: list[tuple[Kind, bytes, bytes]], cut: int, rubbish: bytes
) -> None:
    content = b"".join(frame(*record) for record in wanted)
    whole, end = [], 0
    for record in wanted:
        end += len(frame(*record))
        if end <= cut:
            whole.append(record)
    found = [(r.kind, r.ledger_id, r.payload) for r in read_records(content[:cut] + rubbish)]
    if not content[cut:].startswith(rubbish[:1]) or not rubbish:
        assert found[: len(whole)] == whole


@given(records.filter(bool), st.data())
def test_a_changed_byte_is_noticed(wanted: list[tuple[Kind, bytes, bytes]], data: st.DataObject) -> None:
    content = bytearray(b"".join(frame(*record) for record in wanted))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    found = [(r.kind, r.ledger_id, r.payload) for r in read_records(bytes(content))]
    assert found == wanted[: len(found)]
    assert len(found) < len(wanted)


steps = st.lists(st.tuples(st.sampled_from(["open", "close", "ack", "crash"]), st.integers(0, 9)), max_size=80)


@given(steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_the_journal_knows_what_was_told(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """Against a model: a dictionary of what is open and one of what is closed."""
    directory = tmp_path / os.urandom(4).hex()
    journal = journal_in(directory)
    is_open: dict[bytes, bytes] = {}
    is_closed: dict[bytes, bytes] = {}
    used: set[bytes] = set()
    for number, (step, which) in enumerate(steps):
        ledger_id, payload = name(which), (b"%d " % number) * 1000
        if step == "open" and ledger_id not in used:
            used.add(ledger_id)
            journal.open(ledger_id, payload)
            is_open[ledger_id] = payload
        elif step == "close" and is_open.pop(ledger_id, None) is not None:
            journal.close(ledger_id, payload)
            is_closed[ledger_id] = payload
        elif step == "ack" and is_closed.pop(ledger_id, None) is not None:
            journal.acknowledge([ledger_id])
        elif step == "crash":
            journal = journal_in(directory)
            # What was acknowledged may be told once more (the ledger knows it), when noting that needed a new file.
            journal.acknowledge([i for i in published(journal) if i not in is_closed])
    assert published(journal) == is_closed
    assert dict(journal.open_requests()) == is_open


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from forebay_gateway.ledger.journal import open_journal
        journal = open_journal(Path(sys.argv[1]), 1 << 20, 8)
        for number in range(200):
            journal.open(number.to_bytes(16), b"o" * 100)
            if number % 2:
                journal.close(number.to_bytes(16), b"c" * 100)
        print("written", flush=True)
        sys.stdin.read()
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
    journal = journal_in(tmp_path)
    assert len(published(journal)) == 100
    assert len(journal.open_requests()) == 100


def test_a_segment_is_not_written_over_an_existing_one(tmp_path: Path) -> None:
    Segment(tmp_path / "1.segment", SMALL).close()
    with pytest.raises(FileExistsError):
        Segment(tmp_path / "1.segment", SMALL)
    assert (tmp_path / "1.segment").stat().st_size == SMALL
