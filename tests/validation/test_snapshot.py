"""The validation of a snapshot: failures are sentences, and no data raises an exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import contract, resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.validation.snapshot import check_snapshot

SOURCE = "schemas:expectations/source_snapshot.v1.json"
PRODUCTS = "schemas:expectations/products_snapshot.v1.json"


def _raw(spark: Any, ids: list[str | None], title: str | None = "t") -> Any:
    schema = "product_id string, title string, parse_error string, merchant_attributes map<string, array<string>>"
    return spark.createDataFrame([(i, title, None, {}) for i in ids], schema)


def _check(frame: Any, suite: str = SOURCE, min_rows: int = 1) -> Any:
    return check_snapshot(frame, resources.locate(suite), {"min_rows": min_rows})


def test_a_good_snapshot_passes_with_a_small_document(spark: Any) -> None:
    report = _check(_raw(spark, [str(n) for n in range(50)]), min_rows=50)
    assert report.success
    assert report.failures == []
    assert len(report.document["results"]) == 8
    assert len(json.dumps(report.document)) < 20_000


def test_each_failure_is_a_sentence_with_what_was_observed_and_expected(spark: Any) -> None:
    report = _check(_raw(spark, ["1"] * 10 + [None] * 10, title=None).drop("merchant_attributes"), min_rows=100)
    assert not report.success
    assert set(report.failures) == {
        "the snapshot: expected at least 100 rows (source.min_volume_ratio of the last import); observed 20",
        "column 'merchant_attributes' is missing; the columns are ['parse_error', 'product_id', 'title']",
        "product_id: expected at least 90% of the rows have a product id; observed 10 of 20 rows (50.0%) that fail",
        "product_id: expected distinct ids are at least 0.9 of all ids; observed 0.1",
        "title: expected at least 90% of the rows have a title; observed 20 of 20 rows (100.0%) that fail",
    }


def test_no_rows_at_all_fail(spark: Any) -> None:
    report = _check(_raw(spark, ["1"]).limit(0))
    assert any("at least 1 rows" in failure and failure.endswith("observed 0") for failure in report.failures)


def test_missing_columns_are_one_failure_each(spark: Any) -> None:
    report = _check(spark.range(3))
    missing = [f.split("'")[1] for f in report.failures if f.startswith("column")]
    assert sorted(missing) == ["merchant_attributes", "parse_error", "product_id", "title"]


def test_the_catalogs_products_pass_their_suite_and_pictures_are_not_read(spark: Any) -> None:
    row = {"product_id": "1", "title": "t", "opt_out": False, "content_hash": "h", "images": [(b"x" * 9, None, "v")]}
    schema = contract.spark_schema("products")
    frame = spark.createDataFrame([tuple(row.get(name) for name in schema.names)], schema)
    assert _check(frame, PRODUCTS).failures == []
    assert _check(frame.drop("images"), PRODUCTS).success
    twice = _check(frame.union(frame), PRODUCTS)
    assert twice.failures == ["product_id: expected every product id once (share of distinct ids 1.0); observed 0.5"]


@pytest.mark.parametrize(("severity", "refused"), [(None, True), ("critical", True), ("warning", False)])
def test_a_warning_is_recorded_but_does_not_refuse(
    severity: str | None, refused: bool, spark: Any, tmp_path: Path
) -> None:
    path = tmp_path / "suite.json"
    expectation = {"type": "expect_column_values_to_be_null", "kwargs": {"column": "title"}}
    expectation |= {"severity": severity} if severity else {}
    path.write_text(json.dumps({"name": "s", "expectations": [expectation]}))
    report = check_snapshot(_raw(spark, ["1"]), path, {})
    assert report.success is not refused
    assert bool(report.failures) is refused
    assert not report.document["results"][0]["success"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not a usable suite"),
        ('{"name": "s", "expectations": [{"type": "expect_magic", "kwargs": {}}]}', "not a usable suite"),
        ('{"name": "s", "expectations": [{"kwargs": {"column": {"$PARAMETER": "x"}}}]}', "parameter 'x' is not given"),
    ],
)
def test_an_unusable_suite_is_a_config_error(text: str, complaint: str, spark: Any, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        check_snapshot(_raw(spark, ["1"]), tmp_path / "suite.json", {})
