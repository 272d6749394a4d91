"""The training job reads the products without the labels that merchants took over from this system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.adopted import COLUMN
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.training import job

from .. import sample_catalog
from ..catalog.catalog_rows import START, product


class StoppedError(Exception):
    """The test has seen what it wanted."""


def test_training_reads_which_values_are_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PRECISION, certificate 7."""
    sample = sample_catalog.build(tmp_path / "sample")
    catalog = LakeCatalog(sample.config.path("catalog"))
    catalog.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])]), product("b")], "import")
    adopted = {"product_id": "a", "attribute": "color", "value": "Red", "run_id": "enrich-1", "adopted_at": START}
    catalog.append_rows("adopted", [adopted], "import")
    read: list[dict[str, Any]] = []

    def train(products: Any, *_: Any) -> None:
        read.extend(row for batch in products for row in batch.to_pylist())
        raise StoppedError

    monkeypatch.setattr("catalog_enrichment.training.train.train", train)
    with pytest.raises(StoppedError):
        job.train_model(sample.config)
    assert {row["product_id"]: row[COLUMN] for row in read} == {"a": ["color"], "b": []}
