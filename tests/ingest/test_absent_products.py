"""Products that a source deletes, or no longer has: removed, with a limit, and new when they come back (I5, I7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import DataContractError, GateRefused

from ..catalog.catalog_rows import event
from ..sample_catalog import killed_at
from .shop import Shop

Row = dict[str, Any]
SOURCE: Row = {
    "format": "jsonl",
    "path": "feed.jsonl",
    "complete": True,
    "absent_imports": 2,
    "snapshot_suite": "suite.json",
    "min_volume_ratio": 0.0,
    "min_attribute_ratio": 0.0,
    "mapping": {"attributes": {"color": "color"}, "updated_at": "at", "deleted": "off"},
}


SUITE: Row = {
    "name": "few rows",
    "expectations": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": {"$PARAMETER": "min_rows"}},
         "meta": {"expected": "at least {min_rows} rows"}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "title", "mostly": 0.6}},
        {"type": "expect_column_proportion_of_unique_values_to_be_between",
         "kwargs": {"column": "product_id", "min_value": 0.6}},
    ],
}  # fmt: skip
"""As the shipped suite, for feeds of a few rows."""


class SnapshotShop(Shop):
    snapshots = 0

    def take(self, *rows: Row, **source: Any) -> Row:
        """Import a new snapshot with these rows."""
        self.snapshots += 1
        lines = [json.dumps(row) for row in rows]
        (self.folder / "feed.jsonl").write_text("\n".join([*lines, " " * self.snapshots]))
        return self.imported(**source)

    def missed(self) -> dict[str, int]:
        return {name: row["missed_imports"] for name, row in sorted(self.products().items())}


@pytest.fixture
def shop(spark: Any, tmp_path: Path) -> SnapshotShop:
    (tmp_path / "suite.json").write_text(json.dumps(SUITE))
    return SnapshotShop(spark, tmp_path, SOURCE)


def row(name: str, **other: Any) -> Row:
    return {"product_id": name, "title": f"shirt {name}", "color": "gray", "at": "2026-01-01", "off": False} | other


def deletion(name: str, **other: Any) -> Row:
    return row(name, title=None, color=None, at=None, off="yes") | other


def counts(summary: Row) -> Row:
    names = ("new", "changed", "unchanged", "deletions", "deleted", "missed", "gone", "returned", "retracted")
    return {name: summary[name] for name in names if summary.get(name)}


@pytest.mark.slow
def test_a_product_that_snapshots_do_not_have_is_marked_then_removed_and_one_that_is_back_counts_anew(
    shop: SnapshotShop,
) -> None:
    shop.take(*map(row, "abcd"))
    before = shop.products()
    assert counts(shop.take(row("a"), row("c"), row("d", title=None), row("d"))) == {"unchanged": 3, "missed": 1}
    assert shop.missed() == {"a": 0, "b": 1, "c": 0, "d": 0}
    assert shop.products()["b"] == before["b"] | {"missed_imports": 1}, "neither imported_by nor updated_at change"
    assert not shop.catalog.current_values_stale()
    assert counts(shop.take(row("a"), row("b"))) == {"unchanged": 2, "missed": 2, "returned": 1}
    assert shop.products()["b"] == before["b"]
    summary = shop.take(row("a"), row("b", title="other"), row("d", title=None))
    assert counts(summary) == {"unchanged": 1, "changed": 1, "gone": 1, "returned": 1}
    assert summary["products"] == 3, "a row in quarantine is present"
    assert shop.missed() == {"a": 0, "b": 0, "d": 0}
    assert {value["product_id"] for value in shop.rows("current_values")} == {"a", "b", "d"}
    assert "1 removed, which were in none of the last 2 snapshots" in shop.said[-1]


@pytest.mark.slow
def test_a_snapshot_counts_once_and_a_source_that_is_not_complete_never(shop: SnapshotShop) -> None:
    shop.take(*map(row, "ab"))
    shop.take(row("a"))
    again = shop.imported()
    assert (again["status"], counts(again)) == ("nothing_to_do", {"unchanged": 1})
    # read again, because of another setting: the same snapshot
    assert counts(shop.imported(max_gone_ratio=0.5)) == {"unchanged": 1}
    assert shop.missed() == {"a": 0, "b": 1}
    assert counts(shop.take(row("a"), complete=False)) == {"unchanged": 1}
    assert counts(shop.take(row("a"), complete=False)) == {"unchanged": 1}
    assert shop.missed() == {"a": 0, "b": 1}


@pytest.mark.slow
def test_many_products_are_not_removed_at_once_and_the_message_says_how_to(shop: SnapshotShop) -> None:
    names = [f"p{number:02d}" for number in range(12)]
    shop.take(*map(row, names))
    with pytest.raises(DataContractError, match="expected at least 6 rows"):
        shop.take(row("p00"), min_volume_ratio=0.5, absent_imports=1)
    shop.take(row("p00"))
    before = shop.versions()
    message = r"11 of 12 stored products \(for example p01, p02, p03\).*last 2 snapshots.*at most 10 .*max_gone_ratio=1"
    with pytest.raises(GateRefused, match=message):
        shop.take(row("p00"))
    with pytest.raises(GateRefused, match="at most 0 may be removed"):
        shop.take(*map(row, names[:-1]), max_gone_ratio=0.0)
    assert shop.versions() == before
    assert [attempt["status"] for attempt in shop.rows("runs")].count("refused") == 2
    assert counts(shop.take(row("p00"), row("p01"), max_gone_ratio=1.0)) == {"unchanged": 2, "gone": 10, "returned": 1}
    assert set(shop.products()) == {"p00", "p01"}


def test_a_row_that_deletes_a_product_needs_its_id_alone_and_rows_add_up_i7(shop: SnapshotShop) -> None:
    shop.take(*map(row, "abc"), complete=False)
    feed = [
        deletion("a"),
        deletion("b", at="no time", title={"any": "thing"}, color=["x"] * 2000),
        deletion("nosuch"),
        deletion("nosuch"),
        deletion(" "),
        row("d", off="perhaps"),
        # of several rows of a product the newest counts; of the same time, that of the product
        row("c", at="2026-03-01", title="other"),
        deletion("c", at="2026-02-01"),
        row("e"),
        deletion("e", at="2026-01-01"),
    ]
    feed[1]["title"] = "{}"
    summary = shop.take(*feed, complete=False)
    assert counts(summary) == {"new": 1, "changed": 1, "deletions": 3, "deleted": 2}
    assert summary["quarantined"] == {"duplicate_id": 3, "missing_id": 1, "unparseable_row": 1}
    assert summary["products"] == len(feed) == 2 + 3 + 5
    assert set(shop.products()) == {"c", "e"}
    assert {value["product_id"] for value in shop.rows("current_values")} == {"c", "e"}
    again = shop.imported(complete=False)
    assert (again["status"], counts(again)) == ("nothing_to_do", {"unchanged": 2, "deletions": 3})
    # only deletions: no row is a product
    assert counts(shop.take(deletion("c"), deletion("e", at="2026-05-01"), complete=False)) == {
        "deletions": 2, "deleted": 2,
    }  # fmt: skip
    assert shop.products() == {}


def _assert_values(catalog: Catalog, *events: Row) -> None:
    catalog.append_rows("attribute_values", list(events), "enrich-1")
    catalog.refresh_current_values("enrich-1")


def _values_of(shop: SnapshotShop, attribute: str) -> dict[str, list[str]]:
    seen = shop.rows("current_values")
    return {value["product_id"]: value["values"] for value in seen if value["attribute"] == attribute}


def test_a_product_that_comes_back_is_new_also_after_a_kill_between_the_commits(shop: SnapshotShop) -> None:
    """I5: products are removed first, then their values are retracted; a rerun completes it."""
    shop.take(*map(row, "abc"), complete=False)
    size = {"attribute": "size", "run_id": "enrich-1"}
    _assert_values(
        shop.catalog,
        event(1, product_id="a", **size),
        event(2, product_id="a", **size | {"attribute": "brand", "value": "X", "source": "human"}),
        event(3, product_id="b", **size),
        event(4, product_id="c", **size),
        # inactive: were its retraction undone, it would be seen again
        event(5, product_id="a", **size | {"value": "L"}),
        event(6, product_id="a", **size | {"value": "L", "op": "retract", "refers_to": "event-5"}),
    )
    assert _values_of(shop, "size") == {"a": ["Red"], "b": ["Red"], "c": ["Red"]}
    with killed_at(Catalog, "append", unless_label="quarantine"):
        shop.take(deletion("a"), row("b"), complete=False)
    assert "a" not in shop.products()
    summary = shop.imported(complete=False)
    assert counts(summary) == {"unchanged": 1, "deletions": 1, "deleted": 1, "retracted": 3}
    retracted = [e for e in shop.rows("attribute_values") if e["reason"] == "product_gone"]
    assert {e["refers_to"] for e in retracted} == {"event-1", "event-2", "event-5"}
    assert {(e["run_id"], e["op"]) for e in retracted} == {(summary["run_id"], "retract")}
    assert _values_of(shop, "size") == {"b": ["Red"], "c": ["Red"]}
    assert counts(shop.take(row("a"), row("b"), complete=False)) == {"new": 1, "unchanged": 1}
    assert _values_of(shop, "size") == {"b": ["Red"], "c": ["Red"]}
    assert _values_of(shop, "brand") == {}
    active = ledger.active_rows(shop.rows("attribute_values"))
    assert {e["event_id"] for e in active} == {"event-3", "event-4"}


@pytest.mark.slow
def test_values_that_a_killed_import_left_active_are_retracted_when_the_product_comes_back(shop: SnapshotShop) -> None:
    shop.take(*map(row, "ab"), complete=False)
    _assert_values(shop.catalog, event(1, product_id="a", attribute="size", run_id="enrich-1"))
    with killed_at(Catalog, "append", unless_label="quarantine"):
        shop.take(deletion("a"), row("b"), complete=False)
    shop.catalog.checkpoints.drop(shop.catalog.tables.commits("products", 0)[-1].run_id or "")
    assert counts(shop.take(row("a"), row("b"), complete=False)) == {"new": 1, "unchanged": 1, "retracted": 1}
    assert _values_of(shop, "size") == {}
