"""Thousands of hostile rows in one import: none is lost, none is counted twice, and each is found again (I7)."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .. import hostile_rows, sample_catalog
from ..sample_catalog import SampleCatalog, table

ROWS = 2_000
SUITE = {
    "name": "any_rows",
    "expectations": [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}, "severity": "critical"}
    ],
}


@pytest.fixture
def sample(spark: Any, tmp_path: Path) -> SampleCatalog:
    sample = sample_catalog.build(tmp_path / "sample", spark)
    (sample.folder / "suite.json").write_text(json.dumps(SUITE))
    return sample.with_settings("source.snapshot_suite=suite.json")


def accounted(sample: SampleCatalog, summary: dict[str, Any], rows: int) -> Counter[str]:
    """Mark -> how often it is among the products and in quarantine, after the counts were checked."""
    products, quarantine = table(sample, "products"), table(sample, "quarantine")
    assert summary["new"] + summary["changed"] + summary["unchanged"] == len(products)
    assert sum(summary["quarantined"].values()) == len(quarantine)
    assert len(products) + len(quarantine) == rows == summary["products"]
    assert len({row["product_id"] for row in products}) == len(products) > 0.3 * rows
    # every value that is stored can be read, by Python too
    assert all(row["updated_at"] is None or 1 < row["updated_at"].year < 9999 for row in products)
    found = Counter(row["shop_id"] for row in products)
    for row in quarantine:
        mark = re.search(r'"shop_id":"(mark-\d+)"', row["payload"])  # the payload is cut, and no JSON then
        found[mark[1] if mark else row["payload"].strip()] += 1
    return found


def test_every_json_line_is_accounted_for_i7(sample: SampleCatalog) -> None:
    rows = hostile_rows.sample(ROWS, seed=1)
    (sample.folder / "feed" / "products.jsonl").write_bytes(
        b"\xef\xbb\xbf" + "\n\n \t\n".join(row.line for row in rows).encode("utf-8", "replace")
    )
    summary = sample.import_products()
    found = accounted(sample, summary, ROWS)
    broken = Counter(row.line[:2000].strip() for row in rows if row.record is None)
    assert found == Counter(row.mark for row in rows if row.record is not None) + broken


def test_every_parquet_row_is_accounted_for_i7(sample: SampleCatalog) -> None:
    """Texts that are no valid UTF-8 included. A quarantined row is found by its number, too."""
    rows = [row for row in hostile_rows.sample(ROWS, seed=2) if row.record is not None]
    names = [*("shop", "product_id", "title", "description", "category", "image", "updated_at", "opt_out")]
    names += ["color", "material"]
    columns = {name: [text_of(row.record[name]) for row in rows if row.record is not None] for name in names}
    texts = {name: pa.array(values, pa.binary()).view(pa.string()) for name, values in columns.items()}
    foreign = {key: pa.array([1] * len(rows)) for key in hostile_rows.KEYS}
    pq.write_table(pa.table(texts | foreign), sample.folder / "feed" / "products.parquet")
    settings = ("source.format=parquet", "source.path=feed/products.parquet", "source.snapshot_suite=suite.json")
    sample = sample.with_settings(*settings)
    found = accounted(sample, sample.import_products(), len(rows))
    assert found == Counter(row.mark for row in rows)
    for refused in table(sample, "quarantine"):
        assert rows[refused["row_number"]].mark in refused["payload"]


def text_of(value: Any) -> bytes | None:
    """As a program would write it that does not check its texts."""
    text = value if isinstance(value, str) or value is None else json.dumps(value)
    return None if text is None else text.encode("utf-8", "surrogatepass")
