"""What requests and answers say, kept where policy wants it: by which policy, how much, and that nobody waits for it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from forebay.bus import Delivery
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.subjects import RECORDINGS_STREAM
from forebay.wire.v1 import key_terms_pb2, recordings_pb2, types_pb2
from forebay_gateway.accounting import Entry, Outcome
from forebay_gateway.callers.key_terms import AuditPolicy, KeyTerms
from forebay_gateway.callers.principals import Principal
from forebay_gateway.recordings.recorder import MOST_BODY_BYTES, Recorder
from forebay_gateway.recordings.tape import Room, Tape, recorded_by
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import ask, open_house
from tests.gateway.sse_text import stream

FULL = Principal("k", "u", terms=KeyTerms(audit=AuditPolicy.FULL))


def entry(request_id: str = "req-1") -> Entry:
    return Entry(bytes(16), request_id, "/v1/chat/completions", 1_800_000_000.0, 0.0, outcome=Outcome.FINISHED)


def test_a_policy_says_what_is_kept_and_samples_are_told_by_their_ids() -> None:
    ids = [number.to_bytes(16) for number in range(2000)]
    assert recorded_by(None, ids[0]) is None
    assert recorded_by(KeyTerms(), ids[0]) is None
    assert recorded_by(KeyTerms(audit=AuditPolicy.OFF), ids[0]) is None
    assert recorded_by(KeyTerms(audit=AuditPolicy.METADATA), ids[0]) is AuditPolicy.METADATA
    tenth = KeyTerms(audit=AuditPolicy.SAMPLED, audit_permille=100)
    assert sum(recorded_by(tenth, one) is AuditPolicy.SAMPLED for one in ids) == 200
    assert recorded_by(KeyTerms(audit=AuditPolicy.SAMPLED), ids[0]) is None


def test_a_tape_keeps_so_much_and_no_more_and_says_so() -> None:
    room = Room(10)
    tape, other, none = Tape(room, 8), Tape(room, 8), Tape(room, 0)
    for piece in (b"abc", b"defgh", b"ij", b"kl"):
        tape.add(piece)
        none.add(piece)
    assert (tape.taken(), tape.size, tape.is_cut) == (b"abcdefgh", 12, True)
    assert (none.taken(), none.size, none.is_cut) == (b"", 12, True)
    other.add(b"123")
    assert (other.taken(), other.is_cut) == (b"", True)
    tape.wipe()
    assert room.held_bytes == 0
    fresh = Tape(room, 8)
    fresh.add(b"123")
    assert (fresh.taken(), fresh.is_cut) == (b"123", False)


async def test_what_waits_for_the_bus_is_bounded_and_comes_when_it_is_back() -> None:
    bus, metrics = MemoryBus(time.time), Metrics()
    recorder = Recorder(bus, "g1", metrics, body_bytes=1 << 30, held_bytes=3 * MOST_BODY_BYTES)
    noise = bytes(range(256)) * 4096
    bus.is_connected = False
    for number in range(4200):
        recording = recorder.begin(FULL, bytes(16), "192.0.2.1")
        assert recording is not None
        if number < 3:
            recording.request.add(noise[number:])
            recording.answer.add(noise[number:])
        recorder.end(recording, entry(f"req-{number}"))
    told = metrics.exposition().decode()
    assert 'forebay_gateway_recordings_total{result="dropped"} 104' in told or 'result="dropped"} 104' in told
    bus.is_connected = True
    await bus.ensure_stream(RECORDINGS_STREAM)
    await recorder.flush(60.0)
    consumer = await bus.consumer(RECORDINGS_STREAM, "test")
    came: list[recordings_pb2.Recording] = []
    for delivery in await consumer.fetch(1000, 1.0):
        assert len(delivery.payload) < 512 * 1024
        came.extend(recordings_pb2.RecordingBatch.FromString(delivery.payload).recordings)
    assert [one.request_id for one in came] == [f"req-{number}" for number in range(4096)]
    assert zlib.decompress(came[0].request) == noise[:MOST_BODY_BYTES]
    assert (came[0].request_cut, came[0].request_bytes, came[0].address) == (True, len(noise), "192.0.2.1")
    assert (came[2].answer, came[2].answer_cut) == (b"", True)


async def test_a_request_and_its_answer_are_taken_down_as_they_pass(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=2000, answer_tokens=5))
    async with open_house(tmp_path, engine) as house:
        await house.bus.ensure_stream(RECORDINGS_STREAM)
        consumer = await house.bus.consumer(RECORDINGS_STREAM, "test")

        async def next_one() -> recordings_pb2.Recording:
            deliveries: Sequence[Delivery] = ()
            for _ in range(60):
                if deliveries := await consumer.fetch(1, 1.0):
                    break
            await deliveries[0].ack()
            (one,) = recordings_pb2.RecordingBatch.FromString(deliveries[0].payload).recordings
            return one

        async def with_policy(policy: key_terms_pb2.AuditPolicy.ValueType) -> None:
            house.key = house.admin.add_key(terms=key_terms_pb2.KeyTerms(audit=policy))
            for _ in range(600):
                async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
                    if answer.status == 200:
                        return

        async with house.post(ask()) as answer:  # whose key says nothing of it
            assert answer.status == 200
        await with_policy(key_terms_pb2.AUDIT_POLICY_FULL)
        async with house.post(ask(user="somebody")) as answer:
            whole = await answer.read()
            request_id = answer.headers["x-request-id"]
        one = await next_one()
        assert (one.request_id, one.outcome, one.http_status) == (request_id, types_pb2.OUTCOME_FINISHED, 200)
        assert b"somebody" in zlib.decompress(one.request)
        assert zlib.decompress(one.answer) == whole
        assert (one.request_cut, one.answer_cut, one.answer_bytes) == (False, False, len(whole))
        assert one.address == "127.0.0.1"
        assert len(await stream(house)) > 3
        streamed = await next_one()
        assert streamed.stream
        assert zlib.decompress(streamed.answer).rstrip().endswith(b"data: [DONE]")
        async with house.post(ask(model="nothing-like-it")) as answer:
            assert answer.status == 404
        refused = await next_one()
        assert (refused.outcome, refused.http_status) == (types_pb2.OUTCOME_REFUSED, 404)
        assert b"nothing-like-it" in zlib.decompress(refused.answer)
        await with_policy(key_terms_pb2.AUDIT_POLICY_METADATA)
        async with house.post(ask()) as answer:
            assert answer.status == 200
        bare = await next_one()
        assert (bare.request, bare.answer, bare.request_cut) == (b"", b"", True)
        assert bare.request_bytes > 10
        assert bare.policy == key_terms_pb2.AUDIT_POLICY_METADATA
        for _ in range(600):
            if not house.metric("forebay_gateway_recordings_held_bytes"):
                break
        assert house.metric("forebay_gateway_recordings_held_bytes") == 0
