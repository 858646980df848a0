"""Where a request goes, by each policy; what it learns from what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_scheduler.backend import Backend
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.placement import Placement, PlacingRules
from forebay_scheduler.placing.prefix_index import PrefixIndex
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request, Used, UserId
from forebay_scheduler.terms import PlacementPolicy, PoolTerms

POOL = PoolName("default")
EXACT = PlacingRules(explored=0.0, jitter=0.0)


class Cluster:
    def __init__(
        self,
        *backends: Backend,
        policy: PlacementPolicy = PlacementPolicy.EXPECTED_TTFT,
        is_sticky: bool = False,
        rules: PlacingRules = EXACT,
    ) -> None:
        self.stations = Stations(PrefixIndex(block_tokens=512))
        self.stations.change(backends, now=0.0)
        terms = PoolTerms(POOL, placement=policy, is_sticky=is_sticky)
        self.placement = Placement(self.stations, terms, Random(1), rules)

    def station(self, name: str) -> Station:
        station = self.stations.get(BackendId(name))
        assert station is not None
        return station

    def choose(self, request: Request, now: float = 0.0) -> Choice:
        choice = self.placement.choose(request, now)
        assert choice is not None
        return choice

    def start(self, request: Request, now: float = 0.0) -> Station:
        choice = self.choose(request, now)
        self.stations.take(choice.station, request.model, request.width, 0, now)
        self.placement.note_grant(choice.station, request, choice, now)
        return choice.station

    def end(self, request: Request, station: Station, now: float) -> None:
        self.placement.note_end(station, request, Used(request.prompt_tokens, 0, 10), now, is_success=True)
        self.stations.give_back(station, request.model, request.width, 0, now)


def a_backend(name: str, slots: int = 4, **facts: object) -> Backend:
    return replace(Backend(BackendId(name), POOL, frozenset({"m"}), slots), **facts)  # type: ignore[arg-type]


def want(name: str = "r", prompt: int = 0, hashes: tuple[int, ...] = (), **more: object) -> Request:
    request = Request(LedgerId(name.encode()), UserId("alice"), "m", 0.0, prompt_tokens=prompt, prefix_hashes=hashes)
    return replace(request, **more)  # type: ignore[arg-type]


def test_of_equal_backends_the_emptiest_answers_soonest() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"))
    assert [cluster.start(want(str(number))).id for number in range(4)] == ["a", "b", "a", "b"]


def test_the_backend_that_holds_the_prompts_start_is_chosen() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"), a_backend("c"))
    cluster.stations.prefixes.insert(cluster.station("b").index, [1, 2, 3])
    cluster.stations.prefixes.insert(cluster.station("c").index, [1])
    choice = cluster.choose(want(prompt=4096, hashes=(1, 2, 3, 4)))
    assert (choice.station.id, choice.cached_tokens) == ("b", 3 * 512)
    assert {candidate.backend: candidate.cached_tokens for candidate in choice.candidates} == {
        "a": 0,
        "b": 1536,
        "c": 512,
    }


def test_what_a_backend_still_has_to_read_counts_against_it() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"))
    first = cluster.start(want("long", prompt=20_000, hashes=(1,)))
    # It holds one block of this prompt, but it is busy with the long one for longer than reading that block takes.
    assert cluster.start(want("short", prompt=1024, hashes=(1, 2))) is not first


def test_a_backend_with_enough_to_read_gets_nothing_new_while_others_are_free() -> None:
    cluster = Cluster(a_backend("a"))
    station = cluster.start(want("long", prompt=60_000))
    assert cluster.placement.choose(want("next", prompt=100), 0.0) is None
    assert cluster.placement.note_first_token(station, want("long", prompt=60_000), 7.0, now=7.0)
    assert cluster.placement.choose(want("next", prompt=100), 7.0) is not None


def test_it_waits_at_a_busy_backend_that_holds_nearly_all_of_a_long_prompt() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"))
    hashes = tuple(range(1, 65))
    cluster.stations.prefixes.insert(cluster.station("a").index, hashes)
    reader = want("reader", prompt=30_000, excluded=frozenset({BackendId("b")}))
    assert cluster.start(reader).id == "a"
    assert not cluster.station("a").places["m"].is_free
    assert cluster.choose(want("long", prompt=40_000, hashes=hashes)).station.id == "a"
    assert cluster.choose(want("other", prompt=40_000, hashes=(99,))).station.id == "b"


def test_the_slower_backend_is_found_out() -> None:
    cluster = Cluster(a_backend("fast"), a_backend("slow"))
    now = 0.0
    for number in range(60):
        request = want(str(number), prompt=4000)
        for name, speed in (("fast", 1.0), ("slow", 2.5)):
            station = cluster.station(name)
            cluster.stations.take(station, "m", 1, 0, now)
            cluster.placement.note_grant(station, request, None, now)
            cluster.placement.note_first_token(station, request, 0.4 * speed, now + 0.4 * speed)
            cluster.end(request, station, now + 0.4 * speed + 0.5)
        now += 3.0
    fast, slow = (cluster.station(name).places["m"].fit.seconds(4000, 0) for name in ("fast", "slow"))
    assert fast == pytest.approx(0.4, rel=0.1)
    assert slow == pytest.approx(1.0, rel=0.1)
    assert cluster.choose(want(prompt=4000), now).station.id == "fast"


def test_a_backend_that_fails_is_avoided_and_forgiven() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"))
    request = want("x")
    station = cluster.start(request)
    cluster.placement.note_failure(station, request, 0.1, is_busy=False)
    cluster.stations.give_back(station, "m", 1, 0, 0.1)
    assert station.id == "a"
    assert cluster.choose(want("y"), 0.2).station.id == "b"
    for number in range(60):
        again = want(f"again{number}", excluded=frozenset({BackendId("b")}))
        cluster.start(again, 1.0)
        cluster.placement.note_first_token(station, again, 0.05, 1.05)
        cluster.end(again, station, 1.1)
    assert station.failure < 0.01


def test_an_answer_without_streaming_teaches_nothing_about_reading() -> None:
    cluster = Cluster(a_backend("a"))
    request = want("x", prompt=1000, is_streamed=False)
    station = cluster.start(request)
    before = station.places["m"].fit.sums()
    cluster.placement.note_first_token(station, request, 30.0, 30.0)
    cluster.end(request, station, 30.0)
    assert station.places["m"].fit.sums() == before
    assert station.reading == {}


def test_a_first_token_that_is_never_told_of_does_not_close_a_backend() -> None:
    cluster = Cluster(a_backend("a", 8))
    cluster.start(want("long", prompt=60_000, is_streamed=False))
    assert cluster.placement.choose(want("x"), 1.0) is None
    assert cluster.stations.wake(60.0) == [cluster.station("a")]
    assert cluster.placement.choose(want("x"), 60.0) is not None


def test_the_least_loaded_has_the_most_free_slots() -> None:
    cluster = Cluster(a_backend("a", 2), a_backend("b", 4), policy=PlacementPolicy.LEAST_LOADED)
    assert [cluster.start(want(str(number))).id for number in range(6)] == ["b", "b", "a", "b", "a", "b"]


def test_round_robin_takes_turns_and_passes_over_the_full() -> None:
    cluster = Cluster(a_backend("a", 1), a_backend("b", 3), a_backend("c", 3), policy=PlacementPolicy.ROUND_ROBIN)
    assert [cluster.start(want(str(number))).id for number in range(7)] == ["a", "b", "c", "b", "c", "b", "c"]


def test_weighted_follows_the_weights_and_slots_where_there_are_none() -> None:
    cluster = Cluster(
        a_backend("a", 10, weight=1.0),
        a_backend("b", 10, weight=3.0),
        a_backend("off", 10, weight=0.0),
        a_backend("slots", 4),
        policy=PlacementPolicy.WEIGHTED,
    )
    drawn = Counter(cluster.choose(want(str(number))).station.id for number in range(4000))
    assert drawn[BackendId("off")] == 0
    assert drawn[BackendId("a")] == pytest.approx(500, rel=0.2)
    assert drawn[BackendId("b")] == pytest.approx(1500, rel=0.2)
    assert drawn[BackendId("slots")] == pytest.approx(2000, rel=0.2)


def test_random_goes_everywhere_alike() -> None:
    cluster = Cluster(*(a_backend(name) for name in "abcd"), policy=PlacementPolicy.RANDOM)
    drawn = Counter(cluster.choose(want(str(number))).station.id for number in range(2000))
    assert all(count == pytest.approx(500, rel=0.2) for count in drawn.values())
    assert len(drawn) == 4


@pytest.mark.parametrize("policy", list(PlacementPolicy))
def test_a_session_stays_where_it_was_until_that_backend_closes_or_is_excluded(policy: PlacementPolicy) -> None:
    cluster = Cluster(*(a_backend(f"b{number}", 50) for number in range(20)), policy=policy, is_sticky=True)
    home = cluster.start(want("first", session_key="chat"))
    assert {cluster.start(want(str(number), session_key="chat")).id for number in range(10)} == {home.id}
    elsewhere = cluster.choose(want("x", session_key="chat", excluded=frozenset({home.id})))
    assert elsewhere.station is not home
    cluster.stations.set_closed(home, "rests")
    moved = cluster.start(want("y", session_key="chat"))
    assert moved is not home
    cluster.stations.set_closed(home, None)
    assert cluster.start(want("z", session_key="chat")) is moved


def test_sessions_of_two_users_with_one_name_are_two() -> None:
    cluster = Cluster(a_backend("a"), a_backend("b"), is_sticky=True)
    home = cluster.start(want("first", session_key="chat"))
    assert cluster.start(want("other", session_key="chat", user=UserId("bob"))) is not home


def test_no_more_sessions_are_remembered_than_allowed() -> None:
    rules = replace(EXACT, sessions=2)
    cluster = Cluster(a_backend("a", 9), a_backend("b", 9), is_sticky=True, rules=rules)
    for name in ("one", "two", "three"):
        cluster.start(want(name, session_key=name))
    assert cluster.start(want("again", session_key="two")).id == "b"


def test_a_wide_request_goes_where_all_of_it_fits() -> None:
    for policy in PlacementPolicy:
        backends = [a_backend(f"b{number:02}", 2) for number in range(30)]
        cluster = Cluster(*backends, a_backend("wide", 6), policy=policy)
        assert cluster.choose(want(width=5)).station.id == "wide"


def test_only_what_is_allowed_is_chosen() -> None:
    cluster = Cluster(*(a_backend(f"b{number:02}") for number in range(30)))
    choice = cluster.placement.choose(want(), 0.0, allowed=lambda station: station.id == "b17")
    assert choice is not None
    assert choice.station.id == "b17"
    assert cluster.placement.choose(want(), 0.0, allowed=lambda station: False) is None


def test_few_are_looked_at_however_many_there_are() -> None:
    cluster = Cluster(*(a_backend(f"b{number:03}") for number in range(300)))
    for number in range(300):
        cluster.start(want(str(number), prompt=4096, hashes=(1, 2, number + 10)))
    choice = cluster.choose(want("x", prompt=4096, hashes=(1, 2, 3)))
    assert len(choice.considered) <= 12


def test_the_same_seed_makes_the_same_choices() -> None:
    def run() -> list[str]:
        cluster = Cluster(*(a_backend(f"b{number}") for number in range(30)), rules=PlacingRules())
        return [cluster.start(want(str(number), prompt=600, hashes=(number % 5,))).id for number in range(100)]

    assert run() == run()


@settings(deadline=None, max_examples=60)
@given(
    policy=st.sampled_from(list(PlacementPolicy)),
    fleet=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=16),
    asked=st.lists(st.tuples(st.integers(1, 3), st.sets(st.integers(0, 15), max_size=3)), max_size=20),
    is_sticky=st.booleans(),
    seed=st.integers(0, 3),
)
def test_no_policy_chooses_what_is_excluded_closed_or_full_and_none_overlooks_what_is_free(
    policy: PlacementPolicy,
    fleet: list[tuple[int, bool, bool]],
    asked: list[tuple[int, set[int]]],
    is_sticky: bool,
    seed: int,
) -> None:
    backends = [a_backend(f"b{number}", slots, enabled=on) for number, (slots, on, _) in enumerate(fleet)]
    cluster = Cluster(*backends, policy=policy, is_sticky=is_sticky, rules=PlacingRules(explored=0.3))
    for number, (_, _, is_closed) in enumerate(fleet):
        if is_closed:
            cluster.stations.set_closed(cluster.station(f"b{number}"), "rests")
    for number, (width, excluded) in enumerate(asked):
        request = want(
            str(number),
            width=width,
            excluded=frozenset(BackendId(f"b{other}") for other in excluded),
            session_key=f"s{number % 3}",
            hashes=(seed, number % 4),
            prompt=1200,
        )
        could = {
            station.id
            for station in cluster.stations
            if station.closed is None
            and station.facts.enabled
            and station.id not in request.excluded
            and station.used + width <= station.facts.slots
        }
        choice = cluster.placement.choose(request, 0.0)
        if choice is None:
            assert not could
            continue
        assert choice.station.id in could
        cluster.stations.take(choice.station, "m", width, 0, 0.0)
        cluster.placement.note_grant(choice.station, request, choice, 0.0)
        assert choice.station.used <= choice.station.facts.slots
        cluster.placement.note_first_token(choice.station, request, 0.0, 0.0)
