"""Metrics: plain numbers, and the text of a scrape."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay.metrics import MOST_CHILDREN, OTHERS, Metrics


def scrape(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) → value."""
    return {
        (line.name, tuple(sorted(line.labels.items()))): line.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for line in family.samples
    }


def test_a_counter_counts_per_label_and_is_named_total() -> None:
    metrics = Metrics()
    requests = metrics.counter("forebay_requests", "Requests.", ("outcome",))
    requests.child("ok").value += 2
    requests.child("ok").value += 1
    requests.child("refused").value += 1
    told = scrape(metrics)
    assert told[("forebay_requests_total", (("outcome", "ok"),))] == 3
    assert told[("forebay_requests_total", (("outcome", "refused"),))] == 1


def test_a_child_is_one_and_the_same_however_often_it_is_asked_for() -> None:
    counter = Metrics().counter("forebay_x", "X.", ("a", "b"))
    assert counter.child("1", "2") is counter.child("1", "2")
    assert counter.child("1", "2") is not counter.child("2", "1")


def test_a_histogram_tells_how_many_lie_at_or_below_each_bound() -> None:
    metrics = Metrics()
    waits = metrics.histogram("forebay_wait_seconds", "Wait.", ("pool",), (0.1, 1, 10)).child("default")
    for value in (0.05, 0.1, 0.5, 1, 100):
        waits.observe(value)
    told = scrape(metrics)
    pool = ("pool", "default")
    by_bound = {
        dict(labels)["le"]: value for (name, labels), value in told.items() if name == "forebay_wait_seconds_bucket"
    }
    assert by_bound == {"0.1": 2, "1.0": 4, "10.0": 4, "+Inf": 5}
    assert told[("forebay_wait_seconds_count", (pool,))] == 5
    assert told[("forebay_wait_seconds_sum", (pool,))] == pytest.approx(101.65)


def test_a_gauge_is_read_when_it_is_scraped() -> None:
    metrics = Metrics()
    queues = {"default": 1.0}
    metrics.gauge("forebay_queue", "Waiting.", ("pool",), lambda: [((pool,), n) for pool, n in queues.items()])
    assert scrape(metrics) == {("forebay_queue", (("pool", "default"),)): 1}
    queues["other"] = 5
    assert scrape(metrics)[("forebay_queue", (("pool", "other"),))] == 5


def test_metrics_without_labels_and_labels_with_odd_characters_survive_the_text() -> None:
    metrics = Metrics()
    metrics.counter("forebay_plain", "Plain.").child().value = 7
    metrics.counter("forebay_odd", "Odd.", ("why",)).child('a "quoted"\nline\\').value = 1
    told = scrape(metrics)
    assert told[("forebay_plain_total", ())] == 7
    assert told[("forebay_odd_total", (("why", 'a "quoted"\nline\\'),))] == 1


def test_two_services_in_one_process_do_not_mix_their_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.counter("forebay_x", "X.").child().value = 1
    other.counter("forebay_x", "X.").child().value = 2
    assert scrape(one) == {("forebay_x_total", ()): 1}
    assert scrape(other) == {("forebay_x_total", ()): 2}


def test_a_number_counted_elsewhere_is_told_as_a_counter() -> None:
    metrics = Metrics()
    metrics.counter_reading("forebay_grants", "Grants.", ("pool",), lambda: [(("default",), 3)])
    told = metrics.exposition().decode()
    assert "# TYPE forebay_grants_total counter" in told
    assert 'forebay_grants_total{pool="default"} 3.0' in told


def test_however_many_names_are_made_up_the_series_stay_bounded_and_nothing_is_lost() -> None:
    metrics = Metrics()
    counter = metrics.counter("forebay_storm", "Storm.", ("model", "kind"))
    waits = metrics.histogram("forebay_storm_seconds", "Storm.", ("model",), (1,))
    for number in range(5 * MOST_CHILDREN):
        counter.child(f"model-{number}", "prompt").value += 1
        waits.child(f"model-{number}").observe(0.5)
    told = scrape(metrics)
    totals = {labels: value for (name, labels), value in told.items() if name == "forebay_storm_total"}
    assert len(totals) == MOST_CHILDREN + 1
    assert totals[(("kind", OTHERS), ("model", OTHERS))] == 4 * MOST_CHILDREN
    assert sum(totals.values()) == 5 * MOST_CHILDREN
    counts = [value for (name, _), value in told.items() if name == "forebay_storm_seconds_count"]
    assert len(counts) == MOST_CHILDREN + 1
    assert sum(counts) == 5 * MOST_CHILDREN
