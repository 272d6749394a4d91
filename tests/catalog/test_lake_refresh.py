"""What readers see is derived anew when the products or the ledger have changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import LakeCatalog

from .catalog_rows import START, frame, prediction, product, stamp
from .test_lake import Interrupted, ids

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> LakeCatalog:
    return LakeCatalog(tmp_path / "lake", spark)


def test_current_values_are_refreshed_when_their_sources_moved(lake: LakeCatalog, spark: SparkSession) -> None:
    def seen() -> dict[str, list[str]]:
        return {row["product_id"]: row["values"] for row in lake.read("current_values").collect()}

    assert lake.current_values_stale()
    lake.append("products", frame(spark, "products", [product("a"), product("b")]), "import-1")
    assert lake.refresh_current_values("import-1")
    assert not lake.refresh_current_values("import-1")
    assert seen() == {}

    decided = frame(spark, "predictions", [prediction("a", "color", "Red"), prediction("b", "color", "Blue")])
    lake.append("attribute_values", ledger.assertions(decided, stamp("run-1", 1)), "run-1")
    assert seen() == {}  # killed here, the ledger is committed and the view is not ...
    assert lake.current_values_stale()
    assert lake.refresh_current_values("run-2")  # ... and the next job heals it
    assert seen() == {"a": ["Red"], "b": ["Blue"]}
    assert not lake.current_values_stale()

    lake.replace("products", frame(spark, "products", [product("a")]), "import-2")
    assert lake.refresh_current_values("run-1")
    assert seen() == {"a": ["Red"]}


def test_a_refresh_reads_the_versions_that_it_records(lake: LakeCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others commit after it looked at the sources is left to the next refresh."""
    for name, color in (("a", "Red"), ("b", "Blue")):
        lake.append_rows("products", [product(name, merchant_attributes={"color": [color]})], f"import-{name}")
    for number in (1, 2):
        event = {
            "event_id": str(number),
            "product_id": "a",
            "attribute": f"size-{number}",
            "value": "M",
            "op": "assert",
        }
        known = {"source": "model", "run_id": f"run-{number}", "asserted_at": START}
        lake.append_rows("attribute_values", [event | known], f"run-{number}")
    with monkeypatch.context() as patch:
        patch.setattr(lake, "_source_versions", lambda: {"products": 1, "attribute_values": 1})
        assert lake.refresh_current_values("run-1")
    seen = {(row["product_id"], row["attribute"]) for row in lake.read("current_values").collect()}
    assert seen == {("a", "color"), ("a", "size-1")}
    assert lake.current_values_stale()


def test_a_refresh_derives_the_changed_products_only_if_the_run_alone_changed_the_sources(
    lake: LakeCatalog, spark: SparkSession
) -> None:
    """A wrong list of changed products shows which of them were derived."""

    def commit(run: str, *rows: dict[str, Any]) -> None:
        decided = frame(spark, "predictions", [prediction(*row) for row in rows])
        lake.append("attribute_values", ledger.assertions(decided, stamp(run, int(run[-1]))), run)

    def seen() -> dict[str, list[str]]:
        return {row["product_id"]: row["values"] for row in lake.read("current_values").collect()}

    only_a = frame(spark, "products", [product("a")])
    lake.append("products", frame(spark, "products", [product("a"), product("b")]), "import-0")
    commit("run-1", ("a", "color", "Red"), ("b", "color", "Red"))
    assert lake.refresh_current_values("run-1", only_a)  # there was nothing before: all are derived
    assert seen() == {"a": ["Red"], "b": ["Red"]}

    commit("run-2", ("a", "color", "Blue"), ("b", "color", "Blue"))
    assert lake.refresh_current_values("run-2", only_a)
    assert seen() == {"a": ["Blue"], "b": ["Red"]}

    commit("run-3", ("a", "color", "Green"))
    assert lake.refresh_current_values("run-2", only_a)  # another run's commit
    assert seen() == {"a": ["Green"], "b": ["Blue"]}

    commit("run-4", ("b", "color", "Green"))
    commit("run-5", ("a", "color", "Red"))
    assert lake.refresh_current_values("run-5", only_a)  # its own, and one before it
    assert seen() == {"a": ["Red"], "b": ["Green"]}


def test_a_refresh_from_older_sources_does_not_overwrite_a_newer_one(lake: LakeCatalog, spark: SparkSession) -> None:
    lake.append_rows("products", [product("a", merchant_attributes={"color": ["Red"]})], "import-1")
    interruptions = iter([1])

    def import_and_refresh() -> None:
        for _ in interruptions:
            lake.append_rows("products", [product("b", merchant_attributes={"color": ["Blue"]})], "import-2")
            lake.refresh_current_values("import-2")

    slow = Interrupted(lake.path, spark, import_and_refresh)

    assert not slow.refresh_current_values("import-1")  # the other one's is as new as it gets
    assert ids(lake.read("current_values")) == ["a", "b"]
    assert not lake.current_values_stale()
