"""What the fleet's pages make of what admin tells: pure, and each with its time given."""

from __future__ import annotations

import pytest

from forebay.backend_states import Condition
from forebay.wire.v1 import (
    admin_pb2,
    alerts_pb2,
    discovery_pb2,
    fleet_pb2,
    history_pb2,
    library_pb2,
    lifecycle_pb2,
    prices_pb2,
    registry_pb2,
    scheduler_pb2,
    status_pb2,
    usage_queries_pb2,
)
from forebay_admin.fleet.picture import picture
from forebay_admin.web.fleet.alerts_view import alert_row, alerts_view, subject_href
from forebay_admin.web.fleet.backends_view import (
    Filter,
    Lately,
    backend_view,
    backends_view,
    found_rows,
    lately_by_backend,
    read_filter,
    wanted_of,
)
from forebay_admin.web.fleet.energy_view import Rates, energy_view, read_rates
from forebay_admin.web.fleet.models_view import (
    Cell,
    job_rows,
    places_of,
    price_rows,
    residency,
    rules_view,
)
from forebay_admin.web.fleet.nodes_view import discovery_of, node_card, node_view, nodes_view, window_rows
from forebay_admin.web.fleet.overview_view import last_hour, nodes_in_all, overview
from forebay_admin.web.fleet.states import CAUSES, MEANINGS, cause_in_words, machine, tone
from forebay_admin.web.forms import Form, WrongField
from forebay_registry.engines.outcome import Outcome
from forebay_registry.health.states import Cause
from tests.admin.fake_alerts import HOT
from tests.admin.web.fleet_house import GIB, a_backend, a_gpu, a_node

NOW = 1_800_000_000.0
US = 1_000_000


# --- the whole --------------------------------------------------------------------------------------------------------


def status(**fields: object) -> status_pb2.ShowStatusResponse:
    told = {"state": status_pb2.OVERALL_STATE_OK, "summary": "All is well.", "at_us": round(NOW * US), **fields}
    return status_pb2.ShowStatusResponse(**told)  # type: ignore[arg-type]


def test_what_could_not_be_asked_is_unknown_and_not_nothing() -> None:
    view = overview(status(), picture(None, None, None, None), None, NOW)
    assert view.nodes is None
    assert view.states is None
    assert view.picture.running is None
    assert (view.state, view.tone, view.measured_at) == ("ok", "good", NOW)


def test_a_silent_nodes_last_words_are_in_no_sum() -> None:
    nodes = [a_node("box", now=NOW), a_node("old", heard_ago_s=900, now=NOW), a_node("new", heard_ago_s=None)]
    told = nodes_in_all(nodes, NOW)
    assert (told.nodes, told.heard, told.gpus) == (3, 1, 4)
    assert (told.memory_used, told.memory_total) == (48 * GIB, 96 * GIB)
    assert (told.busy_percent, told.power_w) == (73.0, 900.0)


def test_many_parts_that_are_well_are_counted_and_those_that_are_not_are_named() -> None:
    parts = [
        status_pb2.StatusPart(kind="backend", name=f"b{i}", state=status_pb2.PART_STATE_OK, word="healthy")
        for i in range(8)
    ]
    parts.append(status_pb2.StatusPart(kind="backend", name="ill", state=status_pb2.PART_STATE_DOWN, word="offline"))
    (kind,) = overview(status(parts=parts), picture(None, None, None, None), None, NOW).parts
    assert kind.and_well == "8 of 9: 8 healthy"
    assert [(row.name, row.tone) for row in kind.rows] == [("ill", "bad")]


def test_the_gravest_alerts_are_shown_and_the_others_counted() -> None:
    view = overview(status(alerts=[HOT] * 11), picture(None, None, None, None), None, NOW)
    assert (len(view.alerts), view.more_alerts) == (8, 3)


def test_the_last_hour_has_means_of_those_that_were_answered() -> None:
    sums = usage_queries_pb2.UsageSums(requests=4, answered=2, ttft_ms=3000, queue_ms=800, prompt_tokens=10, failed=1)
    lines = [
        usage_queries_pb2.UsageLine(user_id="us-1", user_name="ada", sums=sums),
        usage_queries_pb2.UsageLine(user_id="us-2", sums=sums),
        usage_queries_pb2.UsageLine(rest=True, sums=sums),
    ]
    told = last_hour(usage_queries_pb2.QueryUsageResponse(lines=lines, total=sums, to_us=round(NOW * US)))
    assert (told.ttft_s, told.wait_s, told.failed) == (1.5, 0.2, 1)
    assert [user.name for user in told.users] == ["ada", "us-2"]
    empty = last_hour(usage_queries_pb2.QueryUsageResponse())
    assert (empty.ttft_s, empty.wait_s) == (None, None)


# --- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "href"),
    [
        ("backend/big", "/console/backends/big"),
        ("node/box", "/console/nodes/box"),
        ("gpu/box/0", "/console/nodes/box"),
        ("disk/box//var/lib", "/console/nodes/box"),
        ("pool/a b", "/console/backends?pool=a%20b"),
        ("backend/../x", "/console/backends/..%2Fx"),
        ("registry", ""),
        ("comet/halley", ""),
    ],
)
def test_an_alert_leads_to_the_page_of_what_it_is_about(subject: str, href: str) -> None:
    assert subject_href(subject) == href


def test_an_alert_presses_until_somebody_knows_of_it_or_it_is_over() -> None:
    assert alert_row(HOT).is_pressing
    known = alerts_pb2.Alert(id="a", acked_at_us=1, acked_by="ada")
    over = alerts_pb2.Alert(id="b", closed_at_us=5_000_000, closed_because="It is cool.")
    assert not alert_row(known).is_pressing
    assert (alert_row(over).is_open, alert_row(over).closed_at) == (False, 5.0)


def test_a_webhook_that_fails_says_since_when() -> None:
    hook = alerts_pb2.WebhookState(name="pager", failing_since_us=7_000_000, last_error="refused")
    (row,) = alerts_view(alerts_pb2.ListAlertsResponse(webhooks=[hook])).webhooks
    assert (row.failing_since, row.delivered_at, row.last_error) == (7.0, None, "refused")


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_a_node_is_stale_after_what_its_own_agent_promised() -> None:
    fresh = node_card(a_node(heard_ago_s=10, now=NOW), [], NOW)
    assert (fresh.state, fresh.tone, fresh.is_stale) == ("reporting", "good", False)
    late = node_card(a_node(heard_ago_s=20, now=NOW), [], NOW)
    assert (late.state, late.tone, late.is_stale) == ("silent", "bad", True)
    never = node_card(a_node(heard_ago_s=None), [], NOW)
    assert (never.state, never.is_stale, never.cpu_percent, never.gpus) == ("never heard", False, None, ())


def test_a_node_in_trouble_says_so_and_one_without_an_agent_is_only_described() -> None:
    node = a_node(now=NOW)
    node.problems.append("Its clock is wrong.")
    assert node_card(node, [], NOW).state == "in trouble"
    assert node_card(registry_pb2.Node(name="paper", without_agent=True), [], NOW).state == "described"


def test_the_models_of_a_gpu_are_those_in_memory_of_the_backends_on_it() -> None:
    backends = [a_backend("vllm"), a_backend("other", gpu_indices=[1], models=[registry_pb2.BackendModel(name="m2")])]
    card = node_card(a_node(now=NOW), backends, NOW)
    assert [gpu.models for gpu in card.gpus] == [("llama3.1",), ("m2",)]
    assert [backend.name for backend in card.backends] == ["other", "vllm"]


def test_a_hot_gpu_and_what_is_wrong_with_one_are_told() -> None:
    hot = a_gpu(
        0, temperature_c=92, nvlinks=4, nvlinks_active=3, repair_pending=True, clock_reasons=["hw_thermal_slowdown"]
    )
    node = a_node(now=NOW)
    del node.last_sample.gpus[:]
    node.last_sample.gpus.append(hot)
    (gpu,) = node_card(node, [], NOW).gpus
    assert (gpu.heat_tone, gpu.held_by) == ("bad", ("hw thermal slowdown",))
    assert gpu.troubles == ("Its memory wants a reset.", "1 of its NVLinks are down.")
    assert (gpu.fan_percent, gpu.bandwidth_percent) == (None, None), "what is not told is not zero"


def test_nodes_come_by_name_and_a_fleet_without_any_is_empty() -> None:
    view = nodes_view([a_node("b", now=NOW), a_node("a", now=NOW)], None, NOW)
    assert ([card.name for card in view.nodes], view.heard, view.gpus) == (["a", "b"], 2, 4)
    assert nodes_view([], [], NOW).nodes == ()


def test_a_host_tells_what_it_tells_and_nothing_more() -> None:
    facts = dict(node_view(a_node(now=NOW), [], NOW).host)
    assert facts["Power of the server"] == "900 W"
    assert "Swap" not in facts
    assert node_view(a_node(heard_ago_s=None), [], NOW).host == ()


def test_windows_to_come_stand_before_those_that_are_over() -> None:
    def window(id: str, begins: float, ends: float, drain: int = 0) -> lifecycle_pb2.MaintenanceWindow:
        return lifecycle_pb2.MaintenanceWindow(
            id=id,
            scope=lifecycle_pb2.LIFECYCLE_SCOPE_NODE,
            name="box",
            begins_at_us=round(begins * US),
            ends_at_us=round(ends * US),
            drain_before_s=drain,
        )

    windows = [
        window("over", NOW - 90, NOW - 60),
        window("next", NOW + 500, NOW + 900, 600),
        window("now", NOW - 5, NOW + 5),
    ]
    rows = window_rows(windows, NOW)
    assert [(row.id, row.state) for row in rows] == [("now", "open"), ("next", "draining"), ("over", "over")]
    assert window_rows(windows, NOW, {"node": "another"}) == ()


def test_discovery_nobody_told_of_is_not_known_and_of_another_node_as_usual() -> None:
    site = discovery_pb2.NodeDiscovery(node="box", policy=discovery_pb2.DISCOVERY_POLICY_AUTO, pool="lab")
    told = discovery_pb2.ListFoundBackendsResponse(nodes=[site])
    assert discovery_of("box", None) is None
    found, other = discovery_of("box", told), discovery_of("other", told)
    assert found is not None
    assert other is not None
    assert (found.policy, found.pool, other.policy) == ("auto", "lab", "")


def test_energy_costs_what_the_reader_says_that_a_kwh_does() -> None:
    by_node = history_pb2.ShowEnergyResponse(
        sums=[
            history_pb2.EnergySum(name="box", gpu_wh=1000, server_wh=2500),
            history_pb2.EnergySum(name="other", gpu_wh=1),
        ]
    )
    by_gpu = history_pb2.ShowEnergyResponse(
        sums=[history_pb2.EnergySum(name="box/1", gpu_wh=600), history_pb2.EnergySum(name="boxer/0", gpu_wh=9)]
    )
    rows = energy_view("box", by_node, by_gpu, Rates(0.3, 400.0)).rows
    assert [row.name for row in rows] == ["box", "box/1"]
    assert (rows[0].server_kwh, rows[0].cost, rows[0].co2_kg) == (2.5, 0.75, 1.0)
    assert rows[1].server_kwh is None
    assert rows[1].cost == pytest.approx(0.18)
    assert energy_view("box", by_node, by_gpu, Rates()).rows[0].cost is None


def test_what_a_kwh_costs_is_a_number_or_said_to_be_none() -> None:
    assert read_rates(Form()) == Rates(None, None)
    assert read_rates(Form([("kwh", "0.3"), ("co2", "0")])) == Rates(0.3, 0.0)
    with pytest.raises(WrongField):
        read_rates(Form([("kwh", "dear")]))


# --- backends ---------------------------------------------------------------------------------------------------------


def queue(**held: object) -> admin_pb2.ViewQueueResponse:
    slots = scheduler_pb2.HeldSlots(backend_id="be-vllm", cap=8, **held)  # type: ignore[arg-type]
    return admin_pb2.ViewQueueResponse(queue=scheduler_pb2.ShowQueueResponse(held=[slots]))


AS_IT_COMES = Filter()


def view_of(
    backends: list[registry_pb2.Backend], asked: Filter = AS_IT_COMES, lately: dict[str, Lately] | None = None
) -> list[str]:
    return [row.name for row in backends_view(backends, None, queue(held=3), lately, None, asked).rows]


BACKENDS = [
    a_backend("vllm"),
    a_backend("slow", health=registry_pb2.BACKEND_HEALTH_DEGRADED, pool="night", models=[]),
    a_backend("dead", health=registry_pb2.BACKEND_HEALTH_OFFLINE),
    a_backend("off", enabled=False),
]


def test_backends_are_filtered_by_text_pool_and_state_together() -> None:
    assert view_of(BACKENDS, Filter(pool="night")) == ["slow"]
    assert view_of(BACKENDS, Filter(state="disabled")) == ["off"]
    assert view_of(BACKENDS, Filter(text="DEAD.example")) == ["dead"]
    assert view_of(BACKENDS, Filter(text="qwen3")) == ["dead", "off", "vllm"]
    assert view_of(BACKENDS, Filter(text="qwen3", state="healthy")) == ["vllm"]


def test_backends_are_sorted_by_what_is_asked_and_by_name_within_it() -> None:
    assert view_of(BACKENDS) == ["dead", "off", "slow", "vllm"]
    assert view_of(BACKENDS, Filter(sort="state")) == ["dead", "slow", "off", "vllm"], "the gravest first"
    assert view_of(BACKENDS, Filter(sort="held", is_descending=True))[0] == "vllm"
    lately = {"be-slow": Lately(10, 5, 2.0, 3.0), "be-vllm": Lately(10, 0, 0.5, 1.0)}
    assert view_of(BACKENDS, Filter(sort="errors", is_descending=True), lately=lately)[0] == "slow"
    assert view_of(BACKENDS, Filter(sort="ttft", is_descending=True), lately=lately)[:2] == ["slow", "vllm"]


def test_an_address_says_how_the_table_is_and_what_makes_no_sense_is_left_out() -> None:
    asked = read_filter({"q": " x ", "pool": "night", "sort": "held", "desc": "1"})
    assert asked == Filter("x", "night", "", "held", is_descending=True)
    assert asked.href("held") == "/console/backends?q=x&pool=night&sort=held"
    assert asked.href("name") == "/console/backends?q=x&pool=night"
    assert (asked.sorted_by("held"), asked.sorted_by("name")) == ("descending", "")
    assert read_filter({"sort": "evil", "desc": "maybe"}) == Filter()
    assert Filter().href("state") == "/console/backends?sort=state"


def test_what_the_scheduler_and_the_ledger_know_stands_beside_what_the_registry_knows() -> None:
    told = queue(held=3, closed_because="It failed too often.")
    view = backend_view(a_backend(), [a_node(now=NOW)], told, Lately(100, 7, 0.4, 2.0), None, NOW)
    assert (view.row.now.held, view.row.now.cap, view.row.node) == (3, 8, "box")
    assert view.row.lately is not None
    assert view.row.lately.error_rate == 0.07
    assert "The scheduler sends it nothing now: It failed too often." in view.why


def test_why_a_backend_is_ill_is_said_with_what_can_be_done() -> None:
    ill = a_backend(
        health=registry_pb2.BACKEND_HEALTH_UNHEALTHY,
        health_reason="No connection could be made.",
        health_cause="refused",
    )
    view = backend_view(ill, None, None, None, None, NOW)
    assert view.why[0] == "No connection could be made."
    assert "firewall" in view.why[-1]
    assert backend_view(a_backend(), None, None, None, None, NOW).why == ()


def test_a_load_that_is_too_old_is_unknown_and_said_to_be_old() -> None:
    old = a_backend(load=registry_pb2.EngineLoad(stale=True, measured_at_us=round((NOW - 90) * US)))
    view = backend_view(old, None, None, None, None, NOW)
    assert (view.row.now.running, view.row.is_load_stale, view.row.load_at) == (None, True, NOW - 90)
    assert any("not told for a while" in one for one in view.why)


def test_a_drain_by_its_own_name_can_be_undone_there_and_its_nodes_cannot() -> None:
    def view(scope: lifecycle_pb2.LifecycleScope.ValueType, name: str) -> bool:
        drain = lifecycle_pb2.DrainOrder(scope=scope, name=name, since_us=1)
        health = lifecycle_pb2.ShowHealthResponse(drains=[drain])
        return backend_view(a_backend(draining=True), None, None, None, health, NOW).is_drained_by_order

    assert view(lifecycle_pb2.LIFECYCLE_SCOPE_BACKEND, "vllm")
    assert not view(lifecycle_pb2.LIFECYCLE_SCOPE_NODE, "box")


def test_the_drawing_has_every_state_once_and_marks_where_it_is() -> None:
    drawn = machine("degraded")
    assert {box.state for box in drawn.boxes} == set(Condition)
    assert [box.state for box in drawn.boxes if box.is_here] == ["degraded"]
    assert len({(box.x, box.y) for box in drawn.boxes}) == len(Condition)
    assert all(0 <= box.x <= drawn.width and 0 <= box.y <= drawn.height for box in drawn.boxes)
    assert "It is degraded." in drawn.said
    assert not any(box.is_here for box in machine("disabled").boxes)


def test_every_state_has_a_meaning_and_every_cause_of_the_registry_a_sentence() -> None:
    assert set(Condition) <= set(MEANINGS)
    assert {*Cause, *Outcome} - {Outcome.SUCCESS} <= set(CAUSES)
    assert cause_in_words("brand_new") == "brand new"
    assert tone("unheard of") == ""


def test_the_form_of_a_backend_has_what_is_wanted_and_nothing_where_it_is_as_usual() -> None:
    spec = fleet_pb2.BackendSpec(name="vllm", url="http://x", slots=4, weight=1.5, labels={"b": "2", "a": "1"})
    told = fleet_pb2.ExportFleetResponse(fleet=fleet_pb2.FleetSpec(backends=[spec]), declared=["backends.vllm"])
    wanted = wanted_of("vllm", told)
    assert wanted is not None
    assert wanted.is_declared
    assert (wanted.fields["slots"], wanted.fields["weight"], wanted.fields["kv_tokens"]) == ("4", "1.5", "")
    assert wanted.fields["labels"] == "a=1\nb=2"
    assert wanted_of("other", told) is None


def test_an_engine_that_waits_can_be_adopted_and_one_that_is_gone_cannot() -> None:
    suggested = discovery_pb2.FOUND_STANDING_SUGGESTED
    found = [
        discovery_pb2.FoundBackend(name="b", url="http://x", standing=suggested),
        discovery_pb2.FoundBackend(name="a", url="http://x", standing=suggested, gone_at_us=1),
        discovery_pb2.FoundBackend(
            name="c", standing=discovery_pb2.FOUND_STANDING_NOT_POSSIBLE, why_not="Loopback only."
        ),
    ]
    rows = found_rows(discovery_pb2.ListFoundBackendsResponse(found=found))
    assert [(row.name, row.can_be_adopted) for row in rows] == [("b", True), ("a", False), ("c", False)]


def test_usage_by_backend_is_kept_by_its_id() -> None:
    line = usage_queries_pb2.UsageLine(backend_id="be-1", sums=usage_queries_pb2.UsageSums(requests=4, failed=1))
    told = lately_by_backend(usage_queries_pb2.QueryUsageResponse(lines=[line, usage_queries_pb2.UsageLine()]))
    assert told == {"be-1": Lately(4, 1, None, 0.0)}
    assert told["be-1"].error_rate == 0.25
    assert Lately(0, 0, None, None).error_rate is None


# --- models -----------------------------------------------------------------------------------------------------------


def cell(view: object, model: str, column: int = 0) -> Cell:
    row = next(row for row in view.rows if row.name == model)  # type: ignore[attr-defined]
    found: Cell = row.cells[column]
    return found


def test_a_model_is_resident_on_disk_loading_or_missing_and_the_cell_shows_the_gravest_news() -> None:
    backends = [
        a_backend("vllm"),
        a_backend("ollama", gpu_indices=[1], models=[], missing_models=["must-have"]),
    ]
    jobs = [
        library_pb2.ModelJob(
            action=library_pb2.MODEL_ACTION_PULL,
            model="new:latest",
            targets=[library_pb2.ModelJobTarget(backend="ollama", state=library_pb2.MODEL_JOB_STATE_RUNNING)],
        )
    ]
    pins = [library_pb2.ModelPin(backend="vllm", model="llama3.1")]
    view = residency([], backends, [a_node(now=NOW)], jobs, pins, None, None)
    assert [column.name for column in view.columns] == ["box"]
    assert (cell(view, "llama3.1").state, cell(view, "llama3.1").is_pinned) == ("resident", True)
    assert cell(view, "org/qwen3:8b").state == "on disk"
    assert (cell(view, "must-have").state, cell(view, "must-have").tone) == ("missing", "bad")
    assert cell(view, "new").state == "loading"
    assert cell(view, "llama3.1").said == "vllm: resident, pinned"


def test_a_backend_on_no_node_is_a_column_of_its_own_and_an_engine_may_not_tell() -> None:
    cloud = a_backend("cloud", node_id="", models=[registry_pb2.BackendModel(name="gpt")])
    view = residency([], [a_backend(), cloud], [a_node(now=NOW)], None, None, None, None)
    assert [(column.name, column.is_backend) for column in view.columns] == [("box", False), ("cloud", True)]
    assert cell(view, "gpt", 0).state == ""
    assert cell(view, "gpt", 1).state == "there"


def test_models_are_searched_by_their_other_names_too() -> None:
    rules = admin_pb2.ListModelRulesResponse(aliases=[admin_pb2.ModelAlias(alias="gpt-4o", model="llama3.1")])
    view = residency([], [a_backend()], None, None, None, rules, None, "GPT")
    assert [row.name for row in view.rows] == ["llama3.1"]
    assert view.in_all == 2


def test_what_a_pool_requires_is_marked_where_it_is() -> None:
    pool = admin_pb2.Pool(
        terms=admin_pb2.PoolPolicy(pool="default"), described=fleet_pb2.PoolSpec(required_models=["llama3.1"])
    )
    (place,) = places_of("llama3.1", [a_backend()], None, None, [pool])
    assert (place.state, place.is_required, place.backend_state) == ("resident", True, "healthy")


def test_jobs_under_way_come_first_with_how_much_is_done() -> None:
    running, failed = library_pb2.MODEL_JOB_STATE_RUNNING, library_pb2.MODEL_JOB_STATE_FAILED
    targets = [
        library_pb2.ModelJobTarget(backend="a", state=running, completed_bytes=3, total_bytes=10),
        library_pb2.ModelJobTarget(backend="b", state=running, completed_bytes=4, total_bytes=10),
    ]
    over = library_pb2.ModelJob(
        id="2",
        state=failed,
        created_at_us=9,
        targets=[library_pb2.ModelJobTarget(backend="a", state=failed, error="The disk is full.")],
    )
    first, second = job_rows([over, library_pb2.ModelJob(id="1", state=running, created_at_us=5, targets=targets)])
    assert (first.id, first.done, first.total, first.is_over) == ("1", 7, 20, False)
    assert (second.targets[0].said, second.targets[0].is_failed, second.total) == ("The disk is full.", True, None)


def test_a_price_is_in_force_to_come_or_over_and_says_all_that_it_charges() -> None:
    terms = prices_pb2.PriceTerms(
        prompt_micros=150_000,
        completion_micros=600_000,
        request_micros=1_000,
        hardware=prices_pb2.HardwarePrice(gpus=2, gpu_hour_micros=1_800_000),
    )
    versions = [
        prices_pb2.PriceVersion(id="1", model="m", terms=terms, in_force=True),
        prices_pb2.PriceVersion(id="2", model="m", starts_at_us=round((NOW + 60) * US), terms=terms),
        prices_pb2.PriceVersion(id="3", model="m", starts_at_us=round((NOW - 60) * US)),
    ]
    rows = price_rows(versions, NOW)
    assert [(row.state, row.can_be_cancelled) for row in rows] == [
        ("in force", False),
        ("to come", True),
        ("over", False),
    ]
    assert (rows[0].prompt, rows[0].cached, rows[0].completion) == ("0.15", "0.15", "0.60")
    assert rows[0].others == ("0.001 a request", "1.80 a GPU-hour (2 GPUs shared by 1)")
    assert (rows[2].prompt, rows[2].others) == ("no price", ())


def test_a_rule_says_whose_it_is_so_that_it_can_be_removed() -> None:
    told = admin_pb2.ListModelRulesResponse(
        rules=[
            admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(everyone=True), max_output_tokens=4096),
            admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(key_id="abc"), pinned={"seed": "1"}),
        ],
        fallbacks=[admin_pb2.ModelFallback(model="m", others=["n"], after_ms=500)],
    )
    view = rules_view(told)
    assert [(row.scope, row.of) for row in view.rules] == [("everyone", ""), ("key", "abc")]
    assert view.rules[1].effects == ("pinned seed=1",)
    assert view.fallbacks[0].after_s == 0.5
