"""What the training job tells a training: products, labels that merchants took over from this system, earlier uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from catalog_enrichment.catalog import label_uses
from catalog_enrichment.catalog.adopted import COLUMN
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.references import EarlyGate
from catalog_enrichment.training import job
from catalog_enrichment.training.certification import EarlierCandidates

from .. import sample_catalog
from ..catalog.catalog_rows import START, product


class StoppedError(Exception):
    """The test has seen what it wanted."""


def test_training_reads_which_values_are_adopted_and_which_labels_were_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRECISION, certificate 6 and 7."""
    sample = sample_catalog.build(tmp_path / "sample")
    catalog = LakeCatalog(sample.config.path("catalog"))
    catalog.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])]), product("b")], "import")
    adopted = {"product_id": "a", "attribute": "color", "value": "Red", "run_id": "enrich-1", "adopted_at": START}
    catalog.append_rows("adopted", [adopted], "import")
    label_uses.use_labels(catalog, label_uses.Fold("color", ["a", "z"], 0), "old")
    read: list[dict[str, Any]] = []

    def train(products: Any, dictionary: Any, config: Any, workdir: Any, earlier: EarlierCandidates, *_: Any) -> None:
        read.extend(row for batch in products for row in batch.to_pylist())
        assert earlier.uses == label_uses.earlier_uses(catalog)
        assert earlier.next_use("color", ["a"], "new") == 2
        use = earlier.use_labels("color", ["a"], "new", 1)
        assert earlier.refusal("color", []) == "color is worse"
        assert earlier.lost({}) == "{} lack a value"
        assert (use.number, use.epoch) == (2, 1)  # 1 of the products was used before
        raise StoppedError

    monkeypatch.setattr("catalog_enrichment.training.train.train", train)
    gate = EarlyGate(cast(Any, None), None, {})
    monkeypatch.setattr(EarlyGate, "worse", lambda _self, attribute, _decisions: f"{attribute} is worse")
    monkeypatch.setattr(EarlyGate, "lost", lambda _self, labels: f"{labels} lack a value")
    monkeypatch.setattr(Registry, "early_gate", lambda _: gate)
    with pytest.raises(StoppedError):
        job.train_model(sample.config)
    assert {row["product_id"]: row[COLUMN] for row in read} == {"a": ["color"], "b": []}
    assert label_uses.earlier_uses(catalog).epoch == 1
