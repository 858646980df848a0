"""Reading pages in the Prometheus text format."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from forebay.prometheus_text import Scanner, labels_of


def test_samples_of_the_wanted_families_are_found_wherever_they_stand() -> None:
    page = b'a 1\n# HELP b_total a 9\nb_total{x="1"} 2 1700000000\r\na_b 3\na{}\t+4.5e1\na 7'
    found = [(sample.name, sample.labels, sample.value) for sample in Scanner(["a", "b_total"]).scan(page)]
    assert found == [("a", b"", 1.0), ("b_total", b'x="1"', 2.0), ("a", b"", 45.0), ("a", b"", 7.0)]


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["one", "two", "_3"]), st.text(max_size=12), min_size=1), st.floats(0, 1e9))
def test_what_the_official_library_writes_is_read_as_it_was_meant(labels: dict[str, str], value: float) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("some:gauge", "Of \n all { sorts.", list(labels), registry=registry)
    gauge.labels(**labels).set(value)
    (sample,) = Scanner(["some:gauge"]).scan(generate_latest(registry))
    assert sample.value == value
    assert labels_of(sample) == labels
