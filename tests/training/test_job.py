"""The training job passes on products, labels that merchants took over from this system, and earlier uses."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from catalog_enrichment.catalog import label_uses
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.self_derived import COLUMN
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.registry.mlflow_run import LABELLED
from catalog_enrichment.registry.model_registry import ModelVersion, Registry
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.training import job
from catalog_enrichment.training.certification import EarlierCandidates
from catalog_enrichment.training.product_labels import labels_of, record

from .. import sample_catalog
from ..catalog.catalog_rows import START, product
from ..registry.tiny_version import config_in
from ..report.training_samples import trained


class StoppedError(Exception):
    """The test has seen what it wanted."""


def test_training_reads_which_values_are_self_derived_and_which_labels_were_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRECISION, certificate 6 and 7."""
    sample = sample_catalog.build(tmp_path / "sample")
    catalog = Catalog(sample.config.path("catalog"))
    catalog.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])]), product("b")], "import")
    self_derived = {"product_id": "a", "attribute": "color", "value": "Red", "run_id": "enrich-1", "found_at": START}
    catalog.append_rows("self_derived", [self_derived], "import")
    label_uses.use_labels(catalog, label_uses.Fold("color", ["a", "z"], 0), "old")
    read: list[dict[str, Any]] = []

    def train(products: Any, dictionary: Any, config: Any, workdir: Any, earlier: EarlierCandidates, *_: Any) -> None:
        read.extend(row for batch in products for row in batch.to_pylist())
        assert earlier.uses == label_uses.earlier_uses(catalog)
        assert earlier.next_use("color", ["a"], "new", 0) == 2
        use = earlier.use_labels("color", ["a"], "new", 1)
        assert earlier.refusal("color", []) == "color is worse"
        assert earlier.lost({}) == "{} lack a value"
        assert (use.number, use.certification_round) == (2, 1)  # 1 of the products was used before
        raise StoppedError

    monkeypatch.setattr("catalog_enrichment.training.train.train", train)
    gate = SimpleNamespace(worse=lambda name, _: f"{name} is worse", lost=lambda labels: f"{labels} lack a value")
    monkeypatch.setattr(Promotion, "early_gate", lambda _: gate)
    with pytest.raises(StoppedError):
        job.train_model(sample.config)
    assert {row["product_id"]: row[COLUMN] for row in read} == {"a": ["color"], "b": []}
    assert label_uses.earlier_uses(catalog).certification_round == 1


def test_a_page_that_cannot_be_written_or_stored_is_a_warning_because_the_version_is_registered(tmp_path: Path) -> None:
    lines: list[str] = []
    config, version = config_in(tmp_path), ModelVersion("tiny", "3", "abc", "models:/tiny/3")
    page = job.write_page(trained(), version, config, Registry(config), Stages(lines.append))
    assert page == str(tmp_path / "reports" / "training-3.html")
    assert "run train_model first" in lines[0]  # there is no MLflow store
    assert lines[0].startswith("warning: the version is registered, but its page")
    assert lines[1:] == [f"page of the training: {page}"]

    shutil.rmtree(tmp_path / "reports")
    (tmp_path / "reports").write_text("a file where the folder should be")
    lines.clear()
    assert job.write_page(trained(), version, config, Registry(config), Stages(lines.append)) is None
    assert [line.partition(",")[0] for line in lines] == ["warning: the version is registered"]


def test_a_mistake_in_what_a_registered_version_is_shown_by_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that ends with an error is repeated, and uses certification labels once more."""

    def mistake(*_: object) -> None:
        raise KeyError("a mistake in the template")

    monkeypatch.setattr("catalog_enrichment.report.training_page.write_training_page", mistake)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "training-3.html").write_text("of another registry's version 3")
    lines: list[str] = []
    config, version = config_in(tmp_path), ModelVersion("tiny", "3", "abc", "models:/tiny/3")
    assert job.write_page(trained(), version, config, Registry(config), Stages(lines.append)) is None
    assert "Traceback" in lines[0]
    assert "a mistake in the template" in lines[1]


def test_a_training_for_schedules_is_done_if_enough_labelled_products_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sample_catalog.build(tmp_path / "sample")
    catalog = Catalog(sample.config.path("catalog"))
    given = {f"p{number}": product(f"p{number}", merchant_attributes=[("color", ["Red"])]) for number in range(6)}
    catalog.append_rows("products", [*given.values(), product("none")], "import")

    def train(*_: object) -> None:
        raise StoppedError

    monkeypatch.setattr("catalog_enrichment.training.train.train", train)
    with pytest.raises(StoppedError):  # there is no earlier training
        job.train_model(sample.config, if_new=100)
    words = load_dictionary(sample.config)
    read = [(row["product_id"], labels_of(row, words.enabled, words)) for row in list(given.values())[:4]]
    version = sample.registry.find(version=sample_catalog.register(sample, tmp_path / "model"))
    pq.write_table(record(*zip(*read, strict=True)), tmp_path / LABELLED)
    sample.registry.store.log_file(version.run_id, tmp_path / LABELLED)
    client = sample.registry.connect()
    experiments = [client.get_run(version.run_id).info.experiment_id]
    runs = len(client.search_runs(experiments))

    summary = job.train_model(sample.config, if_new=3)
    assert summary == {"status": "nothing_to_do", "needed": 3, "since_version": "1", "labelled": 6, "new": 2}
    assert len(client.search_runs(experiments)) == runs
    assert catalog.version("label_uses") < 0
    for enough in (2, 0, None):
        with pytest.raises(StoppedError):
            job.train_model(sample.config, if_new=enough)
    monkeypatch.setattr(job, "_RENEWED_BEFORE", timedelta(days=91))  # certificates are valid for 90
    with pytest.raises(StoppedError):
        job.train_model(sample.config, if_new=3)
