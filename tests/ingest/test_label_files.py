"""Labels files: every row of the source stays once, and files that do not belong together are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.config import strict
from catalog_enrichment.config.source import LabelsConfig, MappingConfig, SourceConfig
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.feeds import fingerprint, read_source

MAPPING = MappingConfig(product_id="id", title="name", attributes={"color": "color"})


def _source(folder: Path, labels: str, key: str = "id", kind: str = "csv") -> SourceConfig:
    (folder / "feed.csv").write_text("id,name\n1,a\n2,b\n3,c\n")
    if labels:
        (folder / f"labels.{kind}").write_text(labels)
    labels_config = LabelsConfig(format=kind, path=f"labels.{kind}", key=key)
    return SourceConfig(format="csv", path="feed.csv", labels=labels_config, mapping=MAPPING)


def _colors(spark: Any, source: SourceConfig, folder: Path) -> dict[str, list[str] | None]:
    rows = read_source(spark, source, folder).collect()
    return {row.product_id: row.merchant_attributes.get("color") for row in rows}


def test_labels_are_joined_by_key_and_a_product_without_a_label_stays(spark: Any, tmp_path: Path) -> None:
    source = _source(tmp_path, "color,id\nRed,3\nBlue,1\nGrey,9\nGreen,\n")
    assert _colors(spark, source, tmp_path) == {"1": ["Blue"], "2": None, "3": ["Red"]}
    before = fingerprint(spark, source, tmp_path)
    (tmp_path / "labels.csv").write_text("color,id\nRed,2\n")
    assert fingerprint(spark, source, tmp_path) != before


def test_labels_can_be_arrays_in_a_file_of_another_format(spark: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 3], "color": [["Red", "Blue"], []]}), tmp_path / "labels.parquet")
    source = _source(tmp_path, "", kind="parquet")
    assert _colors(spark, source, tmp_path) == {"1": ["Red", "Blue"], "2": None, "3": None}


def test_a_product_with_a_corrupt_label_row_gets_a_parse_error(spark: Any, tmp_path: Path) -> None:
    rows = read_source(spark, _source(tmp_path, "id,color\n1,Red\n2,Blue,more\n3,Grey\n"), tmp_path).collect()
    assert {row.product_id: row.parse_error is None for row in rows} == {"1": True, "2": False, "3": True}


def test_a_corrupt_label_row_does_not_shift_the_labels_joined_by_order(spark: Any, tmp_path: Path) -> None:
    source = _source(tmp_path, "color,sure\nRed,1\nBlue\nGrey,0\n", key="")
    rows = {row.product_id: row for row in read_source(spark, source, tmp_path).collect()}
    assert rows["3"].merchant_attributes == {"color": ["Grey"]}
    assert [rows[name].parse_error is None for name in "123"] == [True, False, True]


@pytest.mark.parametrize(
    ("labels", "key", "complaint"),
    [
        ("id,color\n1,Red\n1,Blue\n", "id", "more than one row for id '1'"),
        ("id,color\n8,Red\n", "id", "no label for any row"),
        ("color\nRed\n", "id", r"labels.csv has no column 'id'.*\['color'\]"),
        ("id,color\n1,Red\n", "sku", "the source has no column 'sku'"),
        ("color\nRed\n\nBlue\n", "", "3 rows and .* has 2"),
        ("id,shade\n1,Red\n", "id", r"'color'.*does not exist.*\['id', 'name', 'shade'\]"),
        ("", "id", "source.labels.path: nothing at"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    labels: str, key: str, complaint: str, spark: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataContractError, match=complaint):
        read_source(spark, _source(tmp_path, labels, key), tmp_path)


def test_labels_in_a_folder_cannot_be_joined_by_order(spark: Any, tmp_path: Path) -> None:
    source = _source(tmp_path, "", key="")
    (tmp_path / "labels.csv").mkdir()
    (tmp_path / "labels.csv/part.csv").write_text("color\nRed\nRed\nRed\n")
    with pytest.raises(DataContractError, match="folder: its rows have no order"):
        read_source(spark, source, tmp_path)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"format": "jsonl", "labels": {"format": "csv", "path": "y"}}, "labels.key is needed: jsonl"),
        ({"format": "csv", "labels": {"format": "parquet", "path": "y"}}, "labels.key is needed: parquet"),
        ({"format": "csv", "labels": {"format": "id_lists", "path": "y"}}, "labels.key is needed: id_lists"),
        ({"format": "jsonl", "columns": ["a"]}, "source.columns is allowed for csv"),
        ({"format": "csv", "columns": ["a", "a"]}, "must be different"),
        ({"format": "csv", "mapping": {"attributes_when_values": ["train"]}}, "attributes_when must name a column"),
        ({"format": "csv", "min_volume_ratio": 2.0}, r"min_volume_ratio must lie in \[0, 1\]"),
    ],
)
def test_options_that_contradict_each_other_are_config_errors(source: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        strict.build(SourceConfig, {"path": "x", **source}, where="test")
