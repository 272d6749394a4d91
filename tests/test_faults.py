"""`make faults` measures what it says: differences of catalogs are counted, and a killed process has died."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from catalog_enrichment.catalog.lake import Catalog

from .benchmarks import fault_publish
from .benchmarks.fault_outcomes import Outcome, delta
from .benchmarks.fault_states import contents, difference


def test_rows_that_are_missing_or_twice_are_counted(tmp_path: Path) -> None:
    lake, twice = Catalog(tmp_path / "lake"), Catalog(tmp_path / "twice")
    for catalog in (lake, twice):
        fault_publish.publish(catalog, 1)
    assert difference(contents(twice.storage), contents(lake.storage)).equal

    event = next(lake.scan("attribute_values")).to_pylist()[0]
    twice.append_rows("attribute_values", [event], "again")
    assert difference(contents(twice.storage), contents(lake.storage)).duplicated == 1
    assert difference(contents(lake.storage), contents(twice.storage)).lost == 1
    changed = {"attribute_values": Counter(["a", "b"]), "products": Counter(["c"])}
    found = difference(changed, {"attribute_values": Counter(["a", "a"]), "products": Counter(["c"])})
    assert (found.lost, found.duplicated, found.equal) == (1, 1, False)


def test_of_a_killed_publish_readers_see_all_or_nothing_and_it_can_be_resumed_i4(tmp_path: Path) -> None:
    outcomes = fault_publish.kills(tmp_path, times=6, seed=3)  # the fifth cleans up
    assert [outcome.notes for outcome in outcomes] == [[], []], "each was killed"
    assert delta(outcomes) == {
        "kills": 0, "reruns_equal": 0, "publish_kills": 6, "publish_equal": 6, "hostile_rows": 0,
        "lost": 0, "duplicated": 0, "unexplained": 0,
    }  # fmt: skip


def test_a_part_of_a_run_is_seen(tmp_path: Path) -> None:
    lake, whole = Catalog(tmp_path / "lake"), Catalog(tmp_path / "whole")
    fault_publish.publish(whole, 1)
    before = contents(lake.storage)
    assert fault_publish.part_of_a_run(lake, before, contents(whole.storage), "run-001") is None
    events = next(whole.scan("attribute_values")).to_pylist()
    lake.append_rows("attribute_values", events[:1], "run-001")
    assert "a part of attribute_values" in str(
        fault_publish.part_of_a_run(lake, before, contents(whole.storage), "run-001")
    )


def test_a_job_that_ends_as_a_bug_is_unexplained() -> None:
    outcome = Outcome("fault", "job", times=2, equal=1, lost=3)
    for code in (0, 4, 1):
        outcome.ended(code)
    assert (outcome.exit_codes, outcome.unexplained) == ({0: 1, 4: 1, 1: 1}, 1)
    assert delta([outcome, outcome])["lost"] == 6
