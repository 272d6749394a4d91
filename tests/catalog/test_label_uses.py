"""Uses of certification labels (PRECISION, certificate 6). Needs no Spark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog_enrichment.catalog import label_uses
from catalog_enrichment.catalog.label_uses import Fold, earlier_uses
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import GateRefused, TemporaryFailure
from catalog_enrichment.records import GOLD_ROUND, EarlierUses, LabelUse

from ..lost_lock import WHY, lost_lock

FOLD = ["p1", "p2", "p3"]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog")


def use_labels(
    catalog: Catalog, attribute: str, product_ids: list[str], candidate: str, certification_round: int = 0
) -> LabelUse:
    return label_uses.use_labels(catalog, Fold(attribute, product_ids, certification_round), candidate)


def rows(catalog: Catalog) -> list[tuple[str, str, str]]:
    found = [row for batch in catalog.scan("label_uses") for row in batch.to_pylist()]
    return sorted((row["attribute"], row["product_id"], row["candidate"]) for row in found)


def test_each_new_candidate_on_the_same_labels_gets_the_next_number_and_keeps_it(catalog: Catalog) -> None:
    assert [use_labels(catalog, "color", FOLD, name).number for name in "abc"] == [1, 2, 3]
    version = catalog.version("label_uses")
    again = Catalog(catalog.storage.folder)
    assert [use_labels(again, "color", FOLD, name).number for name in "abc"] == [1, 2, 3]
    assert catalog.version("label_uses") == version
    assert use_labels(catalog, "material", FOLD, "d").number == 1, "attributes are counted apart"


def test_the_next_number_is_the_largest_of_any_product(catalog: Catalog) -> None:
    assert label_uses.next_number(catalog, Fold("color", [], 0), "a") == 1
    for product, name in (("p1", "a"), ("p2", "b"), ("p2", "c")):
        use_labels(catalog, "color", [product], name)
    version = catalog.version("label_uses")
    assert [label_uses.next_number(catalog, Fold("color", [product], 0), "d") for product in ("p1", "p2", "p3")] == [
        2, 3, 1,
    ]  # fmt: skip
    found = [label_uses.next_number(catalog, Fold("color", FOLD, 0), name) for name in ("d", "d", "c")]
    assert found == [3, 3, 2]
    assert catalog.version("label_uses") == version
    assert use_labels(catalog, "color", FOLD, "d").number == 3


def test_a_use_that_was_recorded_twice_counts_from_its_first_time(catalog: Catalog) -> None:
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    for name, at in zip("aba", times, strict=True):
        row = {"attribute": "color", "product_id": "p1", "certification_round": 0, "candidate": name, "used_at": at}
        catalog.append_rows("label_uses", [row], at.isoformat())
    assert use_labels(catalog, "color", ["p1"], "b").number == 2
    assert use_labels(catalog, "color", ["p1"], "a").number == 1


def test_the_count_does_not_restart_when_products_join_or_leave_the_fold(catalog: Catalog) -> None:
    use_labels(catalog, "color", FOLD, "a")
    use_labels(catalog, "color", ["p3", "p4"], "b")
    assert use_labels(catalog, "color", ["p4", "p5", "p6"], "c").number == 2
    assert use_labels(catalog, "color", ["p1", "p3", "p9"], "d").number == 3
    assert use_labels(catalog, "color", ["p9"], "e").number == 2


def test_a_candidate_that_meets_a_new_product_is_later_there_than_those_before_it(catalog: Catalog) -> None:
    use_labels(catalog, "color", ["p1"], "a")
    use_labels(catalog, "color", ["p1", "p2"], "b")
    assert use_labels(catalog, "color", ["p1"], "a").number == 1
    assert use_labels(catalog, "color", ["p1", "p2"], "a").number == 2


def test_one_row_is_written_per_product_and_candidate(catalog: Catalog) -> None:
    use_labels(catalog, "color", ["p1", "p2", "p1"], "a")
    use_labels(catalog, "color", ["p1", "p3"], "a")
    assert use_labels(catalog, "color", [], "a").number == 1
    assert rows(catalog) == [("color", product, "a") for product in ("p1", "p2", "p3")]


def test_a_use_that_a_fast_clock_dated_ahead_still_counts(catalog: Catalog) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    row = {"attribute": "color", "product_id": "p1", "certification_round": 0, "candidate": "a", "used_at": ahead}
    catalog.append_rows("label_uses", [row], "run-1")
    assert [use_labels(catalog, "color", FOLD, name).number for name in "bc"] == [2, 3]


def test_candidates_that_certify_at_the_same_time_get_different_numbers(catalog: Catalog) -> None:
    def use(name: str) -> int:
        return use_labels(Catalog(catalog.storage.folder), "color", FOLD, name).number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(use, "abcd")) == [1, 2, 3, 4]


def test_a_training_that_cannot_record_its_uses_does_not_certify(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_uses, "LOCK_SECONDS", 0)
    with catalog.locked("label_uses", 0), pytest.raises(GateRefused, match="label_uses"):
        use_labels(Catalog(catalog.storage.folder), "color", FOLD, "a")


def test_a_training_that_slept_past_its_lock_records_no_use(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "locked", lost_lock)
    with pytest.raises(TemporaryFailure, match=WHY):
        use_labels(catalog, "color", FOLD, "a")
    assert rows(catalog) == []


def test_what_the_next_training_learns_of_the_uses_before_it(catalog: Catalog) -> None:
    use_labels(catalog, "color", ["p1", "p2"], "a")
    use_labels(catalog, "color", ["p2", "p3"], "b")
    use_labels(catalog, "color", ["p2", "p3"], "b")  # the same candidate again
    use_labels(catalog, "material", ["p4"], "b")
    first = {"p1": 0, "p2": 0, "p3": 0, "p4": 0}
    assert earlier_uses(catalog) == EarlierUses(
        certification_round=0, uses={"color": 2, "material": 1}, first_round=first
    )


def test_uses_are_counted_in_the_newest_round_and_first_uses_in_all(catalog: Catalog) -> None:
    for name in "abc":
        use_labels(catalog, "color", ["p1"], name)
    use = use_labels(catalog, "color", ["p5", "p6"], "d", certification_round=1)
    assert (use.number, use.certification_round) == (1, 1)
    use_labels(catalog, "color", ["p1"], "e")  # a training that began in certification round 0
    found = earlier_uses(catalog)
    assert (found.certification_round, found.uses) == (1, {"color": 1})
    assert found.first_round == {"p1": 0, "p5": 1, "p6": 1}
    assert [found.certified_before(certification_round) for certification_round in (0, 1)] == [frozenset(), {"p1"}]
    assert found.certified_before(2) == {"p1", "p5", "p6"}


def test_a_product_that_certified_in_two_rounds_certified_in_the_first_of_them(catalog: Catalog) -> None:
    """Otherwise it could be drawn as a product that never certified when certification round 1 is read again."""
    for certification_round, name in enumerate("abc"):
        use_labels(catalog, "color", ["p1"], name, certification_round=certification_round)
    found = earlier_uses(catalog)
    assert (found.certification_round, found.first_round) == (2, {"p1": 0})
    assert found.certified_before(1) == {"p1"}


def test_a_product_that_certified_in_an_earlier_round_counts_with_all_its_uses(catalog: Catalog) -> None:
    """Folds overlap only where two trainings ran at once; then delta is shared all the same."""
    use_labels(catalog, "color", ["p1"], "a")
    assert use_labels(catalog, "color", ["p1", "p2"], "b", certification_round=1).number == 2


def test_uses_of_a_gold_sample_and_of_merchants_labels_are_counted_apart(catalog: Catalog) -> None:
    for candidate in ("a", "b"):
        label_uses.use_labels(catalog, Fold("color", ["p1"], GOLD_ROUND), candidate)
    assert label_uses.next_number(catalog, Fold("color", ["p1"], GOLD_ROUND), "c") == 3
    assert label_uses.next_number(catalog, Fold("color", ["p1"], 0), "c") == 1
    assert label_uses.earlier_uses(catalog) == EarlierUses()
    label_uses.use_labels(catalog, Fold("color", ["p1"], 0), "c")
    found = label_uses.earlier_uses(catalog)
    assert (found.certification_round, dict(found.uses), dict(found.first_round)) == (0, {"color": 1}, {"p1": 0})
    assert label_uses.next_number(catalog, Fold("color", ["p1"], GOLD_ROUND), "c") == 3
