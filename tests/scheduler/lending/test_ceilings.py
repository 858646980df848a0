"""Each rule of ceilings as a sentence. G1 and G2 are gateway processes, B is a backend."""

from __future__ import annotations

from collections.abc import Mapping

from forebay_scheduler.decisions import CeilingTold, StoreCeilings, StoredCeilings
from forebay_scheduler.lending.ceiling_writes import SHARDS, shard_of
from forebay_scheduler.lending.ceilings import Ceilings, Wanted
from forebay_scheduler.request import BackendId, GatewayName, PoolName, Process, SessionId

G1: Process = (GatewayName("g1"), 1)
G2: Process = (GatewayName("g2"), 1)
S1, S2, S3 = SessionId(1), SessionId(2), SessionId(3)
B = BackendId("gpu1")


class Leader:
    def __init__(self, caps: Mapping[BackendId, int] | None = None) -> None:
        self.ceilings = Ceilings()
        self.now = 10.0
        if caps is not None:
            self.ceilings.set_caps(caps, {B: PoolName("p")})

    def open(self, process: Process, session: SessionId, held: int = 0, claimed: int = 0) -> None:
        self.ceilings.open(process, session, {B: held}, {B: claimed})

    def turn(self) -> tuple[list[CeilingTold], list[StoreCeilings]]:
        out = self.ceilings.turn(self.now)
        return (
            [decision for decision in out if isinstance(decision, CeilingTold)],
            [decision for decision in out if isinstance(decision, StoreCeilings)],
        )

    def settle(self, held: Mapping[SessionId, int] | None = None, turns: int = 6) -> dict[SessionId, int]:
        """Turns in which all is acknowledged and confirmed at once. Returns what was told last, by session."""
        last: dict[SessionId, int] = {}
        for _ in range(turns):
            told, writes = self.turn()
            for ceiling in told:
                last[ceiling.session] = ceiling.slots
                self.ceilings.acked(ceiling.session, B, ceiling.version, (held or {}).get(ceiling.session, 0))
            for write in writes:
                self.ceilings.stored(write.ticket)
        return last


def both(cap: int = 4) -> Leader:
    """Each has half."""
    leader = Leader()
    leader.open(G1, S1)
    leader.open(G2, S2)
    leader.ceilings.set_caps({B: cap})
    leader.settle()
    assert leader.ceilings.room(G1, B) == leader.ceilings.room(G2, B) == cap // 2
    return leader


def slots_of(write: StoreCeilings, process: Process) -> int:
    (shard,) = write.shards.values()
    return sum(stored.slots.get(B, 0) for stored in shard if (stored.gateway, stored.generation) == process)


def test_a_raise_is_stored_then_told_and_only_then_is_there_room() -> None:
    leader = Leader({B: 3})
    leader.open(G1, S1)
    told, (write,) = leader.turn()
    assert told == []
    assert slots_of(write, G1) == 3
    assert leader.turn() == ([], [])
    assert leader.ceilings.room(G1, B) == 0
    leader.ceilings.stored(write.ticket)
    assert leader.ceilings.room(G1, B) == 0
    assert leader.turn() == ([CeilingTold(S1, B, PoolName("p"), 3, version=1)], [])
    assert leader.ceilings.room(G1, B) == 3


def test_a_lone_gateway_gets_everything_and_never_has_to_want() -> None:
    leader = Leader({B: 5})
    leader.open(G1, S1)
    leader.settle()
    assert leader.ceilings.room(G1, B) == 5
    leader.ceilings.set_caps({B: 9})
    leader.settle()
    assert leader.ceilings.room(G1, B) == 9


def test_a_newcomer_gets_its_share_of_what_is_unallotted() -> None:
    leader = both(6)
    leader.ceilings.set_caps({B: 8})
    leader.settle()
    assert (leader.ceilings.room(G1, B), leader.ceilings.room(G2, B)) == (4, 4)
    leader.ceilings.leave(G2)
    leader.settle()
    assert leader.ceilings.room(G1, B) == 8
    leader.open(G2, S2)
    assert leader.settle() == {}, "nothing is unallotted"


def test_what_is_taken_and_given_back_is_counted() -> None:
    leader = both(4)
    leader.ceilings.take(G1, B, 2)
    assert leader.ceilings.room(G1, B) == 0
    leader.ceilings.take(G1, B, 1)
    assert leader.ceilings.room(G1, B) == -1
    leader.ceilings.give_back(G1, B, 2)
    leader.ceilings.give_back(G1, B, 9)
    assert leader.ceilings.room(G1, B) == 2


def test_idle_room_moves_to_who_wants_it_lowered_before_it_is_raised() -> None:
    leader = both(4)
    leader.ceilings.take(G2, B, 2)
    assert leader.ceilings.want(G2, B, 1) is Wanted.COMING
    (lower,), writes = leader.turn()
    assert (lower.session, lower.slots) == (S1, 1)
    assert writes == []
    leader.ceilings.acked(S1, B, lower.version, held=0)
    told, (write,) = leader.turn()
    assert told == []
    assert (slots_of(write, G1), slots_of(write, G2)) == (1, 3)
    leader.ceilings.stored(write.ticket)
    leader.turn()
    assert leader.ceilings.want(G2, B, 1) is Wanted.READY


def test_a_lowered_gateway_has_no_room_from_that_moment_on() -> None:
    leader = both(4)
    assert leader.ceilings.want(G2, B, 4) is Wanted.COMING
    assert leader.ceilings.room(G1, B) == 0


def test_room_that_is_in_use_is_not_taken_from_anybody() -> None:
    leader = both(4)
    leader.ceilings.take(G1, B, 2)
    leader.ceilings.take(G2, B, 2)
    assert leader.ceilings.want(G2, B, 1) is Wanted.IMPOSSIBLE
    assert leader.settle() == {}


def test_more_than_the_cap_is_impossible() -> None:
    assert both(4).ceilings.want(G1, B, 5) is Wanted.IMPOSSIBLE
    assert both(4).ceilings.want(G1, BackendId("unknown"), 1) is Wanted.IMPOSSIBLE


def test_asking_again_while_it_is_coming_moves_nothing_more() -> None:
    leader = both(8)
    for _ in range(5):
        assert leader.ceilings.want(G2, B, 5) is Wanted.COMING
    assert leader.settle() == {S1: 2, S2: 6}, "half of what was idle"


def test_gateways_that_take_turns_stop_moving_slots() -> None:
    leader = Leader({B: 2})
    leader.open(G1, S1)
    leader.settle()
    leader.open(G2, S2)
    moved = 0
    for _ in range(10):
        for process in (G2, G1):
            if leader.ceilings.want(process, B, 1) is Wanted.COMING:
                moved += 1
                leader.settle()
            assert leader.ceilings.want(process, B, 1) is Wanted.READY
            leader.ceilings.take(process, B, 1)
            leader.ceilings.give_back(process, B, 1)
    assert moved == 1


def test_a_burst_needs_few_moves() -> None:
    leader = both(64)
    moved = 0
    for _ in range(64):
        if leader.ceilings.want(G2, B, 1) is Wanted.COMING:
            moved += 1
            leader.settle()
        leader.ceilings.take(G2, B, 1)
    assert moved <= 6


def test_who_holds_more_than_a_lowered_ceiling_keeps_it_until_it_settles() -> None:
    leader = both(4)
    leader.ceilings.take(G1, B, 2)
    leader.ceilings.take(G2, B, 2)
    leader.ceilings.set_caps({B: 2})
    leader.settle({S1: 2, S2: 2})
    assert leader.ceilings.unallotted(B) == -2
    leader.ceilings.give_back(G1, B, 1)
    assert leader.settle({S1: 1}) == {S1: 1}, "asked again"
    assert leader.ceilings.unallotted(B) == -1


def test_what_still_runs_unknown_to_us_is_asked_for_again_after_a_while() -> None:
    leader = both(4)
    leader.ceilings.set_caps({B: 2})
    assert leader.settle({S1: 2}) == {S1: 1, S2: 1}
    assert leader.ceilings.unallotted(B) == -1
    leader.now += 0.2
    leader.settle()
    assert leader.ceilings.unallotted(B) == 0


def test_credits_not_yet_used_are_held_whatever_an_acknowledgement_counts() -> None:
    leader = both(4)
    leader.ceilings.take(G1, B, 2)
    leader.ceilings.set_caps({B: 2})
    leader.settle({S1: 0})
    assert leader.ceilings.reserved(G1) == {B: 2}


def test_a_late_acknowledgement_of_an_older_session_changes_nothing() -> None:
    leader = both(4)
    leader.ceilings.want(G2, B, 3)
    (lower,), _ = leader.turn()
    leader.open(G1, S3, claimed=2)
    leader.ceilings.acked(S1, B, lower.version, held=0)
    leader.ceilings.acked(S3, B, lower.version, held=0)
    leader.ceilings.acked(S3, B, 999, held=0)
    assert leader.ceilings.reserved(G1) == {B: 2}


def test_an_acknowledgement_of_a_lower_ceiling_says_nothing_of_a_higher_one_told_since() -> None:
    leader = both(4)
    leader.ceilings.want(G2, B, 4)
    (lower,), _ = leader.turn()
    assert lower.slots == 0
    leader.ceilings.bury(G2, leader.now, leader.now)
    (back,), _ = leader.turn()
    assert back.slots == 2
    leader.ceilings.acked(S1, B, lower.version, held=0)
    assert leader.ceilings.reserved(G1)[B] == 4, "what its successor's share was is raised too, once stored"
    assert leader.ceilings.room(G1, B) == 2


def test_out_of_reach_its_ceiling_stands_and_cannot_be_lowered() -> None:
    leader = both(4)
    leader.ceilings.lose(G1)
    assert leader.ceilings.want(G2, B, 3) is Wanted.IMPOSSIBLE
    assert leader.ceilings.want(G1, B, 1) is Wanted.IMPOSSIBLE
    assert leader.ceilings.room(G1, B) == 0
    leader.ceilings.set_caps({B: 2})
    assert leader.settle() == {S2: 0}
    leader.open(G1, S3, held=1, claimed=2)
    leader.settle({S3: 1})
    assert leader.ceilings.reserved(G1)[B] + leader.ceilings.reserved(G2).get(B, 0) <= 2


def test_a_return_to_the_same_leader_tells_again_what_was_lost_on_the_way() -> None:
    leader = Leader({B: 4})
    leader.open(G1, S1)
    _, (write,) = leader.turn()
    leader.ceilings.stored(write.ticket)
    leader.turn()
    leader.ceilings.lose(G1)
    leader.open(G1, S3, claimed=0)
    ((again,), _) = leader.turn()
    assert (again.session, again.slots) == (S3, 4)


def test_while_the_bus_is_away_nothing_is_raised_beyond_what_it_holds() -> None:
    leader = both(4)
    leader.ceilings.bus_changed(True)
    assert leader.ceilings.want(G1, B, 2) is Wanted.READY
    assert leader.ceilings.want(G1, B, 3) is Wanted.IMPOSSIBLE
    assert leader.settle() == {}
    leader.ceilings.bus_changed(False)
    assert leader.ceilings.want(G1, B, 3) is Wanted.COMING


def test_what_was_on_its_way_when_the_bus_went_is_written_anew() -> None:
    leader = Leader({B: 4})
    leader.open(G1, S1)
    _, (first,) = leader.turn()
    leader.ceilings.bus_changed(True)
    assert leader.turn() == ([], [])
    leader.ceilings.bus_changed(False)
    _, (second,) = leader.turn()
    assert second.ticket > first.ticket
    leader.ceilings.stored(first.ticket)
    assert leader.turn() == ([], []), "a ticket that was replaced confirms nothing"
    leader.ceilings.stored(second.ticket)
    assert [told.slots for told in leader.turn()[0]] == [4]


def test_one_write_is_on_its_way_and_all_that_comes_meanwhile_goes_into_the_next() -> None:
    other = next(BackendId(name) for name in ("gpu2", "gpu3", "gpu4") if shard_of(BackendId(name)) != shard_of(B))
    leader = Leader({B: 4})
    leader.open(G1, S1)
    _, (first,) = leader.turn()
    leader.ceilings.set_caps({B: 6, other: 2})
    assert leader.turn() == ([], [])
    leader.ceilings.stored(first.ticket)
    told, (second,) = leader.turn()
    assert [ceiling.slots for ceiling in told] == [4]
    assert set(second.shards) == {shard_of(B), shard_of(other)}


def test_the_shard_of_a_backend_is_the_same_for_every_leader() -> None:
    assert {shard_of(BackendId(f"b{i}")) for i in range(500)} == set(range(SHARDS))
    assert shard_of(BackendId("gpu1")) == 15


def test_what_is_lowered_is_stored_lazily() -> None:
    leader = both(4)
    leader.ceilings.set_caps({B: 2})
    assert leader.settle() == {S1: 1, S2: 1}
    leader.now += 1.0
    _, (write,) = leader.turn()
    assert (slots_of(write, G1), slots_of(write, G2)) == (1, 1)


def test_a_backend_that_is_gone_and_comes_back() -> None:
    leader = both(4)
    leader.ceilings.set_caps({})
    assert leader.settle() == {S1: 0, S2: 0}
    assert leader.ceilings.want(G1, B, 1) is Wanted.IMPOSSIBLE
    leader.ceilings.set_caps({B: 4})
    assert leader.settle() == {S1: 2, S2: 2}


def test_who_died_at_once_leaves_what_it_held_and_who_died_later_all_it_may_have_begun() -> None:
    for silent_s, kept in ((1.0, 1), (1.9, 2)):
        leader = both(4)
        leader.ceilings.take(G1, B, 1)
        assert leader.ceilings.bury(G1, now=50.0 + silent_s, heard_at=50.0) == {B: kept}
        assert leader.ceilings.unallotted(B) <= 4 - 2 - kept
        leader.settle()
        assert leader.ceilings.room(G2, B) == 4 - kept


def test_the_slots_of_the_dead_return_bit_by_bit() -> None:
    leader = both(4)
    leader.ceilings.bury(G1, now=99.0, heard_at=50.0)
    assert leader.ceilings.want(G2, B, 3) is Wanted.IMPOSSIBLE
    leader.ceilings.give_back(G1, B, 2)
    assert leader.ceilings.want(G2, B, 3) is Wanted.IMPOSSIBLE, "only the quarantine lets go"
    for left in (1, 0):
        leader.ceilings.release(G1, B, 1)
        leader.settle()
        assert leader.ceilings.room(G2, B) == 4 - left
    assert leader.ceilings.dead() == []
    leader.ceilings.release(G1, B, 1)


def test_one_that_was_taken_for_dead_and_speaks_again_counts_in_full() -> None:
    leader = both(4)
    leader.ceilings.bury(G1, now=50.0, heard_at=50.0)
    leader.settle()
    assert leader.ceilings.room(G2, B) == 4
    leader.open(G1, S3, held=1, claimed=2)
    leader.settle({S3: 1})
    assert leader.ceilings.reserved(G1)[B] + leader.ceilings.reserved(G2)[B] == 4


def stored(process: Process, slots: int, *, is_dead: bool = False) -> StoredCeilings:
    return StoredCeilings(*process, {B: slots}, is_dead=is_dead)


def test_a_new_leader_keeps_all_that_was_stored_for_those_who_have_not_spoken() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 2), stored(G2, 2)])
    leader.ceilings.set_caps({B: 4})
    leader.open(G2, S2, claimed=2)
    assert leader.ceilings.want(G2, B, 3) is Wanted.IMPOSSIBLE
    assert leader.ceilings.unheard() == [G1]
    assert leader.ceilings.bury(G1, leader.now, leader.now) == {B: 2}, "what it held, only it could have said"


def test_by_its_hello_a_gateway_gives_up_what_was_stored_and_not_told() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 4)])
    leader.ceilings.set_caps({B: 4})
    leader.open(G2, S2)
    assert leader.settle() == {}
    leader.open(G1, S1, held=1, claimed=1)
    leader.settle({S1: 1})
    assert leader.ceilings.room(G2, B) == 2
    assert leader.ceilings.room(G1, B) == 1


def test_a_hello_that_claims_more_than_was_stored_is_counted_stored_and_lowered() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 2), stored(G2, 2)])
    leader.ceilings.set_caps({B: 4})
    leader.open(G2, S2, claimed=2)
    leader.open(G1, S1, claimed=4)
    assert leader.ceilings.unallotted(B) == -2
    _, (write,) = leader.turn()
    assert slots_of(write, G1) == 4
    leader.ceilings.stored(write.ticket)
    leader.settle()
    leader.open(G1, S3, claimed=1)
    leader.settle()
    assert leader.ceilings.unallotted(B) >= 0


def test_what_a_stored_death_left_stays_until_it_is_released() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 3, is_dead=True)])
    leader.ceilings.set_caps({B: 4})
    assert leader.ceilings.dead() == [G1]
    leader.open(G2, S2)
    leader.settle()
    assert leader.ceilings.room(G2, B) == 1
    leader.ceilings.release(G1, B, 3)
    leader.settle()
    assert leader.ceilings.room(G2, B) == 4


def test_before_the_fleet_is_known_nothing_is_lowered() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 2)])
    leader.open(G1, S1, claimed=2)
    assert leader.settle() == {}
    assert leader.ceilings.room(G1, B) == 2


def test_what_nobody_knows_is_passed_over() -> None:
    ceilings = Leader({B: 4}).ceilings
    ceilings.take(G1, B, 1)
    ceilings.give_back(G1, B, 1)
    ceilings.lose(G1)
    ceilings.leave(G1)
    ceilings.release(G1, B, 1)
    ceilings.stored(7)
    assert ceilings.bury(G1, 1.0, 1.0) == {}
    assert ceilings.want(G1, B, 1) is Wanted.IMPOSSIBLE
    assert ceilings.turn(1.0) == []


def test_a_hello_that_holds_more_than_its_ceiling_counts_for_what_it_holds() -> None:
    leader = Leader()
    leader.ceilings.recover([stored(G1, 4)])
    leader.ceilings.set_caps({B: 4})
    leader.open(G2, S2)
    leader.open(G1, S1, held=3, claimed=1)
    assert leader.ceilings.reserved(G1) == {B: 3}
    leader.settle({S1: 3})
    assert leader.ceilings.room(G2, B) == 1
