"""What readers see, in one file: which values, with what they are joined, and what is refused before anything runs."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import export
from catalog_enrichment.operations.export import ExportRequest
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import START, product, run_row
from ..sample_catalog import SampleCatalog, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DICTIONARY = Dictionary(
    {name: Attribute(name=name, cardinality=Cardinality.MANY, values=("Red",)) for name in ("color", "material")}
)


def seen(product_id: str, attribute: str, *values: str, **given: Any) -> dict[str, Any]:
    return {"product_id": product_id, "attribute": attribute, "values": list(values), "source": "merchant", **given}


def event(
    product_id: str, attribute: str, value: str, run_id: str, score: float | None, **given: Any
) -> dict[str, Any]:
    key = f"{run_id} {product_id} {attribute} {value} {given.get('op')}"
    row = {"event_id": key, "op": "assert", "product_id": product_id, "attribute": attribute, "value": value}
    return row | {"source": "model", "run_id": run_id, "score": score, "asserted_at": START, **given}


BY_MODEL = {"source": "model", "model_version": "7", "certificate_id": "c", "asserted_at": START}
PRODUCTS = [
    product("a", shop_id="s1", category="Apparel/Tops"),
    product("b", shop_id="s2", category="Apparel"),
    product("c", shop_id=None, category=None),
]
SEEN = [
    seen("c", "color", "Red", source="human", run_id="set-1", asserted_at=START + timedelta(minutes=1)),
    seen("b", "material", "Wool", run_id="enrich-2", **BY_MODEL),
    seen("a", "material", "Wool", "Cotton", run_id="enrich-1", **BY_MODEL),
    seen("a", "color", "Red", "=Blue"),
    seen("gone", "color", "Red"),
]
EVENTS = [
    event("a", "material", "Cotton", "enrich-1", 0.91),
    event("a", "material", "Wool", "enrich-1", 0.92),
    event("a", "material", "Wool", "enrich-0", 0.5),
    event("a", "color", "Red", "enrich-0", 0.6),
    event("b", "material", "Wool", "enrich-2", 0.93),
    event("b", "material", "Wool", "enrich-2", 0.1, op="retract"),
    event("c", "color", "Red", "set-1", None, source="human"),
]
RUNS = [
    run_row("enrich-0"),
    run_row("enrich-2", parent_run_id="backfill-1", finished_at=START + timedelta(hours=2)),
    run_row("backfill-1", kind="backfill", finished_at=START + timedelta(hours=3)),
    run_row("rollback-1", kind="rollback", parent_run_id="enrich-0", finished_at=START + timedelta(hours=4)),
    run_row("import-1", kind="import", finished_at=START + timedelta(hours=5)),
    run_row("enrich-1", finished_at=START + timedelta(hours=1)),
]


def fill(lake: LakeCatalog) -> LakeCatalog:
    lake.append_rows("products", PRODUCTS, "test")
    lake.append_rows("current_values", SEEN, "test")
    lake.append_rows("runs", RUNS, "test")
    for run_id in ("enrich-0", "enrich-1", "enrich-2", "set-1", "rollback-1"):
        lake.append_rows("attribute_values", [one for one in EVENTS if one["run_id"] == run_id], run_id)
    return lake


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> LakeCatalog:
    """Without Spark; not to change."""
    return fill(LakeCatalog(tmp_path_factory.mktemp("export") / "catalog"))


def request(target: Path = Path("/nosuch/values.csv"), **given: Any) -> ExportRequest:
    return ExportRequest(target=target, **{"kind": "csv"} | given)


def test_every_value_is_a_row_with_its_product_and_score(
    catalog: LakeCatalog, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PARTITION_ROWS", 3)
    assert export.values_seen(LakeCatalog(catalog.path, spark), request()).rdd.getNumPartitions() == 3
    said: list[str] = []
    target = tmp_path / "values.csv"
    done = export.export_values(LakeCatalog(catalog.path, spark), request(target), said.append)
    assert (done["status"], done["file"], done["format"]) == ("succeeded", str(target), "csv")
    assert (done["values"], done["sources"]) == (7, {"human": 1, "merchant": 3, "model": 3})
    assert said[-1] == f"wrote 7 values (human 1, merchant 3, model 3) to {target}"
    with target.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    since, later = "2026-03-29T01:30:00.123456Z", "2026-03-29T01:31:00.123456Z"
    assert rows == [
        ["a", "s1", "Apparel/Tops", "color", "'=Blue", "merchant", "", "", "", "", ""],
        ["a", "s1", "Apparel/Tops", "color", "Red", "merchant", "", "", "", "", ""],
        ["a", "s1", "Apparel/Tops", "material", "Cotton", "model", "0.91", "7", "c", "enrich-1", since],
        ["a", "s1", "Apparel/Tops", "material", "Wool", "model", "0.92", "7", "c", "enrich-1", since],
        ["b", "s2", "Apparel", "material", "Wool", "model", "0.93", "7", "c", "enrich-2", since],
        ["c", "", "", "color", "Red", "human", "", "", "", "set-1", later],
        ["gone", "", "", "color", "Red", "merchant", "", "", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("only", "products"),
    [
        ({"attributes": ("color",), "shops": ("s1",)}, "aa"),
        ({"categories": ("Apparel",), "sources": ("human", "model")}, "aab"),
        ({"categories": ("Apparel/Tops", "")}, ["a", "a", "a", "a", "c", "gone"]),
        ({"run_ids": ("backfill-1", "set-1")}, "bc"),
    ],
    ids=str,
)
def test_restrictions_hold_together(
    catalog: LakeCatalog, spark: SparkSession, only: dict[str, Any], products: str | list[str]
) -> None:
    rows = export.values_seen(LakeCatalog(catalog.path, spark), request(**only)).collect()
    assert [row["product_id"] for row in rows] == list(products)


def test_a_category_or_shop_that_no_product_has_is_refused(
    catalog: LakeCatalog, spark: SparkSession, tmp_path: Path
) -> None:
    lake, target = LakeCatalog(catalog.path, spark), tmp_path / "values.csv"
    with pytest.raises(ConfigError, match=r"--category: no product is in .*'Aparel'.*Did you mean 'Apparel'"):
        export.export_values(lake, request(target, categories=("Apparel", "Aparel")))
    with pytest.raises(ConfigError, match=r"--shop: no product is of \['S1'\]"):
        export.export_values(lake, request(target, shops=("s1", "S1")))
    assert not target.exists()


def test_what_is_wrong_without_spark(catalog: LakeCatalog, tmp_path: Path) -> None:
    export.check(catalog, DICTIONARY, request(tmp_path / "a.csv", attributes=("color",), run_ids=("backfill-1",)))
    with pytest.raises(ConfigError, match=r"no attribute \['size'\] in the dictionary; it has \['color', 'material'\]"):
        export.check(catalog, DICTIONARY, request(tmp_path / "b" / "b.csv", attributes=("color", "size")))
    newest = r"'import-1' wrote no values. The newest that did: \['rollback-1', 'enrich-2', 'enrich-1', 'enrich-0'\]"
    with pytest.raises(ConfigError, match=newest):
        export.check(catalog, DICTIONARY, request(tmp_path / "b" / "b.csv", run_ids=("enrich-1", "import-1")))
    assert not (tmp_path / "b").exists()
    with pytest.raises(ConfigError, match="in the catalog's own folder"):
        export.check(catalog, DICTIONARY, request(catalog.path / "current_values" / "b.csv"))
    (tmp_path / "c.csv").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        export.check(catalog, DICTIONARY, request(tmp_path / "c.csv"))
    export.check(catalog, DICTIONARY, request(tmp_path / "c.csv", overwrite=True))


def test_the_job_exports_what_readers_see(
    first_run: tuple[SampleCatalog, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, run = first_run
    target = tmp_path / "values.jsonl"
    arguments = ["--config", str(sample.file), "--out", str(target)]
    assert cli.export_values(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    current = table(sample, "current_values")
    assert summary["values"] == len(rows) == sum(len(row["values"]) for row in current)
    assert [(row["product_id"], row["attribute"], row["value"]) for row in rows] == sorted(
        (row["product_id"], row["attribute"], value) for row in current for value in row["values"]
    )
    scores = {(one["product_id"], one["attribute"], one["value"]): one["score"]
              for one in table(sample, "attribute_values")}  # fmt: skip
    by_model = [row for row in rows if row["source"] == "model"]
    assert {row["run_id"] for row in by_model} == {run["run_id"]}
    assert all(row["score"] == scores[row["product_id"], row["attribute"], row["value"]] for row in by_model)
    assert {row["shop_id"] for row in rows} == {"shop-0", "shop-1"}
    assert cli.export_values(arguments) == 2
    assert "--overwrite" in json.loads(capsys.readouterr().out)["message"]
    assert cli.export_values([*arguments, "--overwrite", "--run", run["run_id"], "--attribute", "color"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sources"].keys() == {"model"}
