"""Imports of Delta tables that read only what changed: position, deletions, reasons to read all rows (I4, I5, I7)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import changes, delta_log
from catalog_enrichment.ingest.changes import LastImport

from ..sample_catalog import killed_at
from .shop import Shop

Row = dict[str, Any]
SOURCE: Row = {
    "format": "delta",
    "path": "table",
    "read_changes": True,
    "mapping": {"attributes": {"color": "color"}, "updated_at": "at"},
}


class DeltaShop(Shop):
    @property
    def path(self) -> str:
        return str(self.folder / "table")

    def table(self) -> DeltaTable:
        return DeltaTable(self.path)

    def write(self, *ids: str, title: str = "shirt", feed: bool = True, **options: Any) -> None:
        """Append rows of these products."""
        time = datetime(2026, 1, 1, tzinfo=UTC)
        rows = {"product_id": ids, "title": [title] * len(ids), "color": ["gray"] * len(ids), "at": [time] * len(ids)}
        configuration = {delta_log.FEED: "true"} if feed else None
        write_deltalake(self.path, pa.table(rows), mode="append", configuration=configuration, **options)

    def window(self) -> Row:
        """`runs.window` of the newest import that succeeded."""
        rows = [row for row in self.rows("runs") if row["status"] == "succeeded"]
        return dict(json.loads(max(rows, key=lambda row: row["finished_at"])["window"]))


@pytest.fixture
def shop(spark: Any, tmp_path: Path) -> DeltaShop:
    return DeltaShop(spark, tmp_path, SOURCE)


def counts(summary: Row) -> Row:
    names = ("status", "read", "products", "new", "changed", "unchanged", "deletions", "deleted")
    return {name: summary[name] for name in names if summary.get(name)}


def test_only_the_feeds_rows_are_read_and_what_it_deletes_is_removed_i7(shop: DeltaShop) -> None:
    shop.write(*(f"p{n}" for n in range(30)))
    first = shop.imported()
    assert (first["read"], first["read_because"]) == ("all", "no import before")
    shop.table().update(updates={"title": "'other'"}, predicate="product_id = 'p1'")
    shop.table().delete("product_id = 'p2'")
    shop.write("new")
    second = shop.imported()
    assert counts(second) == {
        **{"status": "succeeded", "read": "changes", "products": 3, "new": 1, "changed": 1},
        **{"deletions": 1, "deleted": 1},
    }
    assert second["read_because"] == "the change data feed of versions 1 to 3: 3 rows"
    products = shop.products()
    assert set(products) == {f"p{n}" for n in range(30) if n != 2} | {"new"}
    assert (products["p1"]["title"], products["p3"]["title"]) == ("other", "shirt")
    assert (shop.window()["position"]["version"], shop.window()["compared"]["rows"]) == (3, 30)

    again = shop.imported()
    assert (again["status"], again["run_id"], len(shop.rows("runs"))) == ("nothing_to_do", None, 2)
    shop.table().optimize.compact()
    compacted = shop.imported()
    assert (compacted["status"], compacted["read_because"]) == ("nothing_to_do", "no row changed in version 4")
    assert shop.window()["position"]["version"] == 4
    # the newest import has no numbers of attributes: it read no row
    unchanged = shop.imported()
    assert (unchanged["status"], unchanged["run_id"], unchanged["merchant_values"]) == ("nothing_to_do", None, {})


def test_new_files_are_read_without_a_feed_and_a_killed_import_reads_them_again_i4_i5(
    shop: DeltaShop,
) -> None:
    shop.write("a", "b", feed=False)
    shop.imported()
    shop.write("c", feed=False)
    with killed_at(Catalog, "replace_products"):
        shop.imported()
    assert (set(shop.products()), shop.window()["position"]["version"]) == ({"a", "b"}, 0)
    done = shop.imported()
    assert counts(done) == {"status": "succeeded", "read": "changes", "products": 1, "new": 1}
    assert done["read_because"] == "1 new files of version 1 (without a change data feed)"
    assert set(shop.products()) == {"a", "b", "c"}


@pytest.mark.slow
def test_bad_rows_among_a_few_changed_ones_do_not_refuse_the_import_i7(shop: DeltaShop) -> None:
    shop.write("a", "b", feed=False)  # with a feed a deleted row is no missing one
    shop.imported(min_volume_ratio=1.0)
    shop.write("c", title="", feed=False)
    done = shop.imported(min_volume_ratio=1.0)
    assert (done["read"], done["products"], done["quarantined"]) == ("changes", 1, {"empty_title": 1})
    # the next comparison of all rows is compared with the last one, not with one row
    shop.table().delete("product_id <> 'a'")
    with pytest.raises(DataContractError, match="at least 2 rows"):
        shop.imported(min_volume_ratio=1.0, full=True)


@pytest.mark.slow
def test_all_rows_are_read_where_the_changes_cannot_be_told_and_the_reason_is_said(shop: DeltaShop) -> None:
    shop.write("a", "b")
    shop.imported()
    other = {"empty_texts": ["none"]}
    shop.write("c")
    done = shop.imported(**other)
    assert (counts(done)["read"], done["new"], done["unchanged"]) == ("all", 1, 2)
    assert done["read_because"] == "the config, the dictionary or the rules are others than at the last import"
    shop.write("d")
    assert shop.imported(**other)["read"] == "changes"
    asked = shop.imported(**other, full=True)
    assert (counts(asked)["read"], asked["read_because"], asked["unchanged"]) == ("all", "--full", 4)
    # all rows of this version have been compared
    assert shop.imported(**other, full=True)["run_id"] is None
    shop.write("e", "f")
    log = shop.folder / "table" / "_delta_log"
    shop.table().create_checkpoint()
    shop.write("g")
    (log / f"{3:020d}.json").unlink()
    lost = shop.imported(**other)
    assert (lost["read"], lost["read_because"]) == ("all", "its log does not have version 3 any more")
    assert set(shop.products()) == set("abcdefg")


def test_what_the_feed_deletes_is_removed_also_where_all_rows_are_read_i7(shop: DeltaShop) -> None:
    shop.write(*"abcdef")
    shop.imported()
    shop.table().delete("product_id in ('a', 'b', 'c', 'd')")
    shop.write("g")
    done = shop.imported(full=True)
    assert counts(done) == {
        **{"status": "succeeded", "read": "all", "products": 7, "new": 1, "unchanged": 2},
        **{"deletions": 4, "deleted": 4},
    }
    assert done["read_because"] == "--full, and 4 rows that the change data feed deletes"
    # the next comparison of all rows is with those that the table has
    assert (set(shop.products()), shop.window()["compared"]["rows"]) == (set("efg"), 3)


@pytest.mark.slow
def test_absent_products_count_only_where_all_rows_are_read(shop: DeltaShop) -> None:
    complete = {"complete": True, "absent_imports": 1}
    shop.write("a", "b", feed=False)
    shop.write("c", feed=False)
    shop.imported(**complete)
    shop.table().delete("product_id = 'a'")  # writes the file of b again
    done = shop.imported(**complete)
    assert (set(shop.products()), done["read"], done["unchanged"]) == ({"a", "b", "c"}, "changes", 1)
    full = shop.imported(**complete, full=True)
    assert (set(shop.products()), full["read"], full["gone"]) == ({"b", "c"}, "all", 1)


@pytest.mark.slow
def test_each_of_two_sources_in_a_catalog_has_its_own_position(shop: DeltaShop) -> None:
    other = shop.folder / "other"
    time = datetime(2026, 1, 1, tzinfo=UTC)
    rows = {"product_id": ["x", "y"], "title": ["hat"] * 2, "color": ["red"] * 2, "at": [time] * 2}
    write_deltalake(other, pa.table(rows))
    shop.write(*"abc")
    shop.imported()
    assert shop.imported(path="other")["read"] == "all"
    shop.write("d")
    done = shop.imported()
    assert counts(done) == {"status": "succeeded", "read": "changes", "products": 1, "new": 1}
    assert (shop.window()["compared"]["rows"], set(shop.products())) == (3, set("abcdxy"))
    unchanged = shop.imported(path="other")
    assert (unchanged["read_because"], unchanged["run_id"]) == ("no new version", None)
    # the same source with other settings: the products are as the newest import of it left them
    assert shop.imported(empty_texts=["none"])["read"] == "all"
    shop.imported(path="other")
    assert shop.imported()["read_because"].startswith("the config, the dictionary or the rules are others")


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("jsonl", "csv")), "parquet"]
)
def test_only_new_and_changed_files_of_a_folder_are_read(spark: Any, tmp_path: Path, kind: str) -> None:
    shop = Shop(spark, tmp_path, {"format": kind, "path": "feed", "append_only": True})
    (tmp_path / "feed").mkdir()

    def write(name: str, *ids: str, title: str = "shirt") -> None:
        file = tmp_path / "feed" / f"{name}.{kind}"
        rows = [{"product_id": each, "title": title} for each in ids]
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        elif kind == "jsonl":
            file.write_text("\n".join(map(json.dumps, rows)))
        else:
            file.write_text("\n".join(["product_id,title", *(f"{each},{title}" for each in ids)]))

    write("one", "a", "b")
    write("two", "c", "d")
    first = shop.imported()
    assert (first["read"], first["new"]) == ("all", 4)
    assert shop.imported()["run_id"] is None
    write("one", "a", "b", title="a longer title")  # replaced under the same name
    write("three", "e")
    done = shop.imported()
    assert counts(done) == {"status": "succeeded", "read": "changes", "products": 3, "new": 1, "changed": 2}
    assert done["read_because"] == "2 new or changed of 3 files"
    assert {name: row["title"] for name, row in shop.products().items()} == {
        **dict.fromkeys("ab", "a longer title"),
        **dict.fromkeys("cde", "shirt"),
    }


def test_when_all_rows_are_due() -> None:
    now = datetime(2026, 2, 8, tzinfo=UTC)

    def last(days: float) -> LastImport:
        at = (now - timedelta(days=days)).isoformat()
        window = {"read": "changes", "position": {}, "compared": {"at": at, "rows": 5, "products": 4, "values": {}}}
        return LastImport(row={"window": json.dumps(window), "table_versions": {"products": 3}})

    config = SourceConfig(format="delta", path="table", read_changes=True)
    assert not changes.is_due(config, last(6.9), now)
    assert changes.is_due(config, last(7), now)
    assert (last(1).compared["rows"], last(1).read_all, last(1).products_version) == (5, False, 3)
