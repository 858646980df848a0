"""What becomes of what was found."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.backend import BackendId, Desired, EngineKind, NodeId
from forebay_registry.discovery.decide import ACTOR, Fleet, Judged, Silence, Standing, Steps, judge, plan, still
from forebay_registry.discovery.offers import MOST_ENGINES, FoundBy, Offer

NODES = {"gpu-1": NodeId("no-1")}
FORGET = {"agent": 3600.0, "kubernetes": 60.0}
OFFER = Offer(
    FoundBy.AGENT,
    "gpu-1-vllm-8000",
    "http://10.0.0.5:8000",
    kind=EngineKind.VLLM,
    node="gpu-1",
    port=8000,
    gpu_indices=(0,),
    is_auto=True,
)
OWN = Desired(
    BackendId("be-1"),
    "gpu-1-vllm-8000",
    "http://10.0.0.5:8000",
    EngineKind.VLLM,
    "default",
    0,
    NodeId("no-1"),
    ACTOR,
    0.0,
    gpu_indices=(0,),
    found_by="agent",
)
ADA = replace(OWN, changed_by="ada", found_by="")


def fleet(*backends: Desired, remembered: tuple[str, ...] = ()) -> Fleet:
    return Fleet(backends, NODES, dict.fromkeys(remembered, "agent"))


def standing(offer: Offer, there: Fleet) -> Standing:
    (one,) = judge([offer], there)
    return one.standing


def steps(offers: list[Offer], there: Fleet, silence: Silence | None = None, now: float = 1000.0) -> Steps:
    return plan(judge(offers, there), there, silence or Silence({}), now, FORGET)


def test_a_new_engine_is_suggested_or_added_as_it_is_allowed() -> None:
    assert standing(OFFER, fleet()) is Standing.SUGGESTED
    assert steps([OFFER], fleet()).add == (OFFER,)
    assert not steps([replace(OFFER, is_auto=False)], fleet())
    assert standing(replace(OFFER, url="", why_not="x"), fleet()) is Standing.NOT_POSSIBLE


def test_an_engine_that_is_a_backend_by_whatever_address_is_not_added_again() -> None:
    for url in ("http://10.0.0.5:8000", "http://gpu-1.lan:8000"):
        there = fleet(replace(ADA, name="mine", url=url, node_id=None))
        one = replace(OFFER, also_at=("http://gpu-1.lan:8000",))
        assert standing(one, there) is Standing.DECLARED
        assert not steps([one], there)
    by_node_and_port = fleet(replace(ADA, url="http://other-name:8000"))
    assert standing(OFFER, by_node_and_port) is Standing.DECLARED
    assert standing(replace(OFFER, url="", why_not="loopback"), by_node_and_port) is Standing.DECLARED


def test_one_that_an_operator_removed_does_not_come_back() -> None:
    there = fleet(remembered=(OFFER.url,))
    assert standing(OFFER, there) is Standing.TURNED_AWAY
    assert not steps([OFFER], there)


def test_an_operators_word_is_never_changed_nor_taken_back() -> None:
    touched = replace(OWN, changed_by="ada", pool="lab", gpu_indices=(7,))
    there = fleet(touched, remembered=(OWN.url,))
    assert standing(OFFER, there) is Standing.DECLARED
    silence = Silence({touched.id: 0.0})
    assert not steps([OFFER], there, silence, 1e9)
    assert not steps([], there, silence, 1e9)


def test_what_was_added_by_itself_follows_its_engine_and_keeps_its_gpus_while_models_are_unloaded() -> None:
    there = fleet(OWN, remembered=(OWN.url,))
    assert not steps([OFFER], there)
    (changed,) = steps([replace(OFFER, gpu_indices=(1,), pool="lab")], there).change
    assert (changed[1].gpu_indices, changed[1].pool, changed[1].name) == ((0, 1), "lab", OWN.name)
    assert not steps([replace(OFFER, gpu_indices=())], there)
    (moved,) = steps([replace(OFFER, url="http://10.0.0.9:8000")], there).change
    assert moved[1].url == "http://10.0.0.9:8000"
    assert not steps([replace(OFFER, url="", why_not="loopback now")], there).remove


def test_an_engine_that_is_another_one_each_time_is_changed_now_and_then() -> None:
    there, other = fleet(OWN, remembered=(OWN.url,)), replace(OFFER, kind=EngineKind.SGLANG)
    assert not steps([other], there, now=OWN.changed_at + 9.0)
    assert steps([other], there, now=OWN.changed_at + 10.0).change
    assert steps([other], there, now=OWN.changed_at - 3600.0).change, "a clock that was set back holds nothing up"


def test_a_name_that_is_taken_gets_a_number() -> None:
    there = fleet(replace(ADA, url="http://elsewhere:1", node_id=None))
    assert [one.name for one in steps([OFFER], there).add] == ["gpu-1-vllm-8000-2"]


def test_the_same_engine_found_by_two_is_one() -> None:
    pod = replace(OFFER, found_by=FoundBy.KUBERNETES, name="vllm-pod")
    assert len(judge([OFFER, pod], fleet())) == 1
    assert len(steps([OFFER, pod], fleet()).add) == 1


def test_two_pods_of_one_node_that_listen_on_the_same_port_are_two_engines() -> None:
    one, other = (
        replace(OFFER, found_by=FoundBy.KUBERNETES, name=name, url=f"http://10.1.0.{n}:8000", gpu_indices=())
        for n, name in ((1, "vllm-b"), (2, "vllm-a"))
    )
    assert len(steps([one, other], fleet()).add) == 2
    first = replace(OWN, name="vllm-b", url=one.url, gpu_indices=(), found_by="kubernetes")
    later = steps([one, other], fleet(first, remembered=(one.url,)))
    assert [added.url for added in later.add] == [other.url]
    assert later.change == ()
    there = fleet(replace(first, changed_by="ada", found_by=""))
    assert [added.url for added in steps([other], there).add] == [other.url]
    assert standing(OFFER, fleet(first)) is Standing.SUGGESTED, "nor is the host's own engine the pod's"


def test_one_node_adds_only_so_many_engines_by_itself_whatever_its_agent_says() -> None:
    there = fleet(
        *(
            replace(OWN, id=BackendId(f"be-{n}"), name=f"e-{n}", url=f"http://10.0.0.5:{n}", changed_by=who)
            for n, who in enumerate([ACTOR] * (MOST_ENGINES - 1) + ["ada"], start=1)
        )
    )
    offers = [replace(OFFER, name=f"o-{n}", url=f"http://10.0.0.5:{n}", port=n) for n in (20_001, 20_002)]
    elsewhere = replace(OFFER, name="pod", url="http://10.1.0.1:8000", node="", found_by=FoundBy.KUBERNETES)
    assert [one.name for one in steps([*offers, elsewhere], there).add] == ["o-20001", "pod"]


def test_a_time_in_which_a_node_said_nothing_does_not_count() -> None:
    there, heard = fleet(OWN, remembered=(OWN.url,)), [NodeId("no-1")]
    gone = still([], there, Silence({}), 100.0, heard_nodes=heard, cluster_known=False)
    off = still([], there, gone, 110.0, heard_nodes=[], cluster_known=False)
    for now in (5000.0, 9000.0):
        off = still([], there, off, now, heard_nodes=[], cluster_known=False)
        assert not steps([], there, off, now)
    back = still([], there, off, 9010.0, heard_nodes=heard, cluster_known=False)
    assert not steps([], there, back, 9010.0), "it starts; its engine does so after its agent"
    assert steps([], there, back, 9010.0 + 3600.0).remove == (OWN,)


def test_one_that_a_newer_version_found_in_another_way_is_left_alone() -> None:
    there = fleet(replace(OWN, found_by="consul"))
    assert not steps([], there, Silence({OWN.id: 0.0}), 1e9).remove


def test_a_host_that_is_no_node_of_ours_is_none() -> None:
    pod = replace(OFFER, found_by=FoundBy.KUBERNETES, node="worker-7", gpu_indices=())
    (added,) = steps([pod], fleet()).add
    assert added.node == ""
    same = replace(OWN, name=pod.name, node_id=None, gpu_indices=(), found_by="kubernetes")
    assert not steps([pod], fleet(same, remembered=(same.url,)))


def test_what_nobody_finds_any_more_goes_after_its_time_and_only_if_somebody_looked() -> None:
    there = fleet(OWN, remembered=(OWN.url,))
    heard = [NodeId("no-1")]
    silence = still([], there, Silence({}), 100.0, heard_nodes=heard, cluster_known=False)
    assert silence.since == {OWN.id: 100.0}
    assert not steps([], there, silence, 100.0 + 3599)
    assert steps([], there, silence, 100.0 + 3600).remove == (OWN,)
    unheard = still([], there, Silence({}), 100.0, heard_nodes=[], cluster_known=True)
    assert unheard.since == {}, "a node that is silent says nothing of its engines"
    back = still(judge([OFFER], there), there, silence, 200.0, heard_nodes=heard, cluster_known=False)
    assert back.since == {}


def test_a_cluster_that_is_away_loses_no_backend() -> None:
    pod = replace(OWN, found_by="kubernetes", node_id=None)
    there = fleet(pod, remembered=(pod.url,))
    assert still([], there, Silence({}), 1.0, heard_nodes=[], cluster_known=False).since == {}
    gone = still([], there, Silence({}), 1.0, heard_nodes=[], cluster_known=True)
    assert steps([], there, gone, 61.0).remove == (pod,)


def test_what_a_crash_left_unremembered_is_remembered() -> None:
    assert steps([OFFER], fleet(OWN)).remember == ((OWN.url, "agent"),)


_offers = st.builds(
    lambda host, port, auto, by: replace(
        OFFER, name=f"e-{port}", url=f"http://{host}:{port}", port=port, is_auto=auto, found_by=by
    ),
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(FoundBy),
)


@settings(max_examples=30)
@given(st.lists(_offers, max_size=6), st.lists(st.sampled_from(["ada", ACTOR]), min_size=2, max_size=2))
def test_whatever_is_found_addresses_and_names_stay_unique_and_operators_backends_untouched(
    offers: list[Offer], who: list[str]
) -> None:
    backends = [
        replace(OWN, id=BackendId(f"be-{n}"), name=f"e-{n}", url=f"http://a:{n}", changed_by=by, found_by="agent")
        for n, by in enumerate(who, start=1)
    ]
    told = steps(offers, fleet(*backends))
    names = [*(b.name for b in backends), *(one.name for one in told.add)]
    urls = [*(b.url for b in backends), *(one.url for one in told.add)]
    assert len(set(names)) == len(names)
    assert len(set(urls)) == len(urls)
    assert all(held.changed_by == ACTOR for held, _ in told.change)


def test_judged_carry_the_backend_that_they_are() -> None:
    assert judge([OFFER], fleet(OWN)) == (Judged(OFFER, Standing.ADDED, OWN.name),)
