"""Nothing of a deleted product is left in the catalog, the picture store and the review store."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.audit.review_records import RequestKind
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.maintenance import FileSet
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.operations.delete_products import delete_products, read_ids
from catalog_enrichment.operations.rollback import rollback_run

from ..audit import review_samples
from ..catalog.catalog_rows import START, event, prediction
from ..ingest.shop import Shop
from ..sample_catalog import jpeg, killed_at

Row = dict[str, Any]
SECRET = "secretwords"
SOURCE: Row = {
    "format": "parquet",
    "path": "feed.parquet",
    "mapping": {"image_bytes": "picture", "attributes": {"color": "color"}},
}


class DeletingShop(Shop):
    def take(self, **titles: str) -> Row:
        """Import products with these titles; "a" has a picture of its own and the picture of "b"."""
        own, shared = jpeg((200, 0, 0)), jpeg((0, 200, 0))
        rows = [
            {"product_id": name, "title": title, "color": "gray", "picture": own if title == SECRET else shared}
            for name, title in titles.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows), self.folder / "feed.parquet")
        return self.imported(min_volume_ratio=0.0, snapshot_suite="suite.json")

    def delete(self, *ids: str, **options: Any) -> Row:
        config, self.said = self.config(), []
        context = Context(config, self.spark, self.catalog, load_dictionary(config), self.said.append)
        with self.catalog.writing():
            return delete_products(context, ids, **options)

    def everything(self) -> str:
        """The rows in all parquet files of the catalog, of every version, and the bytes of the review store."""
        files = [file for file in (self.folder / "catalog").rglob("*.parquet") if "_delta_log" not in str(file)]
        parts = [str(pq.read_table(file).to_pylist()) for file in files]
        logs = [file.read_text() for file in (self.folder / "catalog").rglob("*.json")]
        reviews = [file.read_bytes().decode("latin-1") for file in self.folder.glob("review.sqlite*")]
        return "".join([*parts, *logs, *reviews])

    def pictures(self) -> int:
        return len(list(StoredPictures(self.folder / "catalog" / "pictures").files()))


@pytest.fixture
def shop(spark: Any, tmp_path: Path) -> DeletingShop:
    (tmp_path / "suite.json").write_text('{"name": "none", "expectations": []}')
    return DeletingShop(spark, tmp_path, SOURCE)


def _fill(shop: DeletingShop) -> None:
    shop.take(a=SECRET, b="other")
    catalog = shop.catalog
    size = {"attribute": "size", "run_id": "enrich-1"}
    quotes = {"a": SECRET, "b": "of the other"}
    events = [event(n, product_id=name, evidence=quotes[name], **size) for n, name in enumerate("ab", start=1)]
    catalog.append_rows("attribute_values", events, "enrich-1")
    catalog.append_rows("predictions", [prediction(name, "size", "Red") for name in "ab"], "enrich-1")
    refused = {"reason": "empty_title", "stage": "import", "run_id": "import-0", "quarantined_at": START}
    payloads = {"a": SECRET, "b": "other"}
    rows = [refused | {"product_id": name, "payload": payload} for name, payload in payloads.items()]
    catalog.append_rows("quarantine", rows, "import-0")
    own = {"product_id": "a", "attribute": "color", "value": "Grey", "run_id": "enrich-1", "found_at": START}
    catalog.append_rows("self_derived", [own], "import-0")
    catalog.refresh_current_values("enrich-1")
    catalog.checkpoints.get_or_compute("enrich-killed", "rows", catalog.read("products"))
    sample, items = review_samples.sample(), [review_samples.item(n, product_id=f"{'ab'[n]}") for n in range(2)]
    texts = dict.fromkeys(("title", "description", "evidence"), SECRET)
    items[0] = review_samples.item(0, product_id="a", **texts, images=((SECRET, "1"),))
    with ReviewStore(shop.folder / "review.sqlite") as store:
        store.add_sample(sample, items)
        store.add_verdict(review_samples.verdict(items[0], "Mia"))
        store.add_request(review_samples.asked(RequestKind.SET, ("a", "size"), "Red", reason=SECRET))


def test_nothing_of_a_deleted_product_is_left_also_after_a_kill(shop: DeletingShop) -> None:
    _fill(shop)
    assert SECRET in shop.everything()
    before = {row["product_id"]: row for row in shop.rows("attribute_values")}
    asked = shop.delete("a", "nosuch", dry_run=True)
    expected = {"products": 1, "predictions": 1, "quarantine": 1, "self_derived": 1, "values": 1, "evidence": 1}
    expected["review"] = 2
    assert {name: asked[name] for name in ("ids", "unknown", *expected)} == {"ids": 2, "unknown": 1, **expected}
    assert set(shop.products()) == {"a", "b"}
    with killed_at(StoredPictures, "files"):  # the tables are done, the files not
        shop.delete("a", "nosuch")
    done = shop.delete("nosuch", "a")
    assert done["status"] == "succeeded"
    assert SECRET not in shop.everything()
    assert (set(shop.products()), shop.pictures()) == ({"b"}, 1)
    for table in ("predictions", "quarantine", "current_values"):
        assert {row["product_id"] for row in shop.rows(table)} == {"b"}
    [retraction] = [row for row in shop.rows("attribute_values") if row["reason"] == "product_gone"]
    assert (retraction["product_id"], retraction["run_id"], retraction["refers_to"]) == ("a", done["run_id"], "event-1")
    asserts = {row["product_id"]: row for row in shop.rows("attribute_values") if row["op"] == "assert"}
    assert {name: row["evidence"] for name, row in asserts.items()} == {"a": None, "b": "of the other"}
    assert asserts["a"] | {"evidence": SECRET} == before["a"]
    assert not shop.catalog.current_values_stale()
    with ReviewStore(shop.folder / "review.sqlite") as store:
        assert [item.title for item in store.items("s1")] == ["(deleted product)", "Shirt number 1"]
        assert [len(verdicts) for verdicts in store.verdicts("s1").values()] == [1]
    [run] = [row for row in shop.rows("runs") if row["kind"] == "delete"]
    assert json.loads(run["window"]).keys() == {"ids", "products"}
    assert '"a"' not in run["window"]
    assert not list((shop.folder / "catalog").glob("_staging/*"))
    again = shop.delete("a", "nosuch")
    assert shop.said[-1].startswith("nothing to do: no more is stored about these 2 product ids")
    assert (again["status"], again["unknown"]) == ("nothing_to_do", 1)
    with pytest.raises(ConfigError, match="to bring a product back, import a source"):
        rollback_run(shop.catalog, done["run_id"])


@pytest.mark.slow
def test_a_product_that_came_back_is_deleted_again_by_another_run(shop: DeletingShop) -> None:
    shop.take(a=SECRET, b="other")
    with killed_at(FileSet, "delete"):
        shop.delete("a")
    shop.take(a=SECRET, b="other")
    first = shop.delete("a")
    shop.take(a=SECRET, b="other")
    assert set(shop.products()) == {"a", "b"}
    second = shop.delete("a")
    assert len({first["run_id"], second["run_id"]}) == 2
    assert set(shop.products()) == {"b"}
    assert SECRET not in shop.everything()


def test_ids_are_read_from_arguments_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids.txt").write_text("\ufeffb\n\n a \r\nb,c\n", encoding="utf-8")
    assert read_ids(["x", "a"], str(tmp_path / "ids.txt")) == ["a", "b", "b,c", "x"]
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    assert read_ids([], "-") == ["q"]
    with pytest.raises(ConfigError, match="no product to delete"):
        read_ids([" "], None)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_ids([], str(tmp_path / "nosuch"))
