"""What earlier layouts wrote (tests/frozen), and catalogs and stores that were moved: read, migrated or refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from catalog_enrichment import cli, contract
from catalog_enrichment.catalog import label_uses
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError, DataContractError, ModelContractError
from catalog_enrichment.operations import explain, rollback
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.trained_model import TrainedModel

from . import sample_catalog
from .sample_catalog import SampleCatalog, listing, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FROZEN = Path(__file__).parent / "frozen"
FIRST, SECOND = FROZEN / "v0.1.0-2026-11-21", FROZEN / "v0.1.0-2026-11-23"
OLDER = {"products": 1, "predictions": 2, "runs": 2}
"""Tables of the second sample and the contracts that it was written by, where today's is newer or another was older."""


def test_nothing_names_the_machine_it_was_made_on() -> None:
    local = re.compile(rb"/(home|root|tmp|work|Users)/")
    files = [file for folder in (FIRST, SECOND) for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert [file for file in files if local.search(file.read_bytes())] == []


def test_a_model_of_the_first_format_is_refused_with_what_to_do() -> None:
    from catalog_enrichment.models import artifact

    artifact.verify(FIRST / "model")
    with pytest.raises(ModelContractError, match=r"has format 1 and .* reads 2 .*[Tt]rain") as refused:
        artifact.load(FIRST / "model")
    assert "train a new one" in str(refused.value)


def test_a_policy_of_version_1_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"policy of version 1. Copy policy:promotion.v2.toml"):
        promotion_gate.load_policy(FIRST / "promotion.v1.toml")


@pytest.mark.slow
def test_a_policy_of_version_1_ends_a_promotion_with_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = sample_catalog.build(tmp_path / "sample")
    sample_catalog.register(sample, tmp_path)
    policy = f"mlflow.promotion_policy={FIRST / 'promotion.v1.toml'}"
    assert cli.promote_model(["--config", str(sample.file), "--set", policy]) == 2
    assert "policy of version 1" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]
    assert (
        cli.promote_model(["--config", str(sample.file), "--set", "mlflow.promotion_policy=policy:promotion.v1.toml"])
        == 2
    )
    assert "promotion.v2.toml" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]


def test_the_second_sample_was_written_by_older_contracts() -> None:
    for name, version in OLDER.items():
        stored = DeltaTable(SECOND / "catalog" / name).schema().to_arrow().names
        older = json.loads((FROZEN.parents[1] / "schemas" / "tables" / f"{name}.v{version}.json").read_text())
        assert stored == [field["name"] for field in older["fields"]]
    assert set(contract.columns("runs")) > set(DeltaTable(SECOND / "catalog" / "runs").schema().to_arrow().names)


def test_every_table_is_read_with_the_columns_of_todays_contract() -> None:
    catalog = LakeCatalog(SECOND / "catalog")
    counts = json.loads((SECOND / "rows.json").read_text())
    assert {"label_uses", "adopted"} < set(counts)
    for name, count in counts.items():
        batches = list(catalog.scan(name))
        assert sum(batch.num_rows for batch in batches) == count > 0, name
        assert all(batch.schema.names == contract.columns(name) for batch in batches), name
    for name in sorted(set(contract.TABLES) - set(counts)):
        assert list(catalog.scan(name)) == [], "a table that did not exist then is empty"


def test_certificates_config_and_dictionary_of_that_time_are_read() -> None:
    from catalog_enrichment.models import artifact

    certificates = [Certificate.from_dict(content) for content in artifact.read_certificates(SECOND / "model")]
    assert len(certificates) == 4
    config = load_config(SECOND / "config.toml")
    assert config.precision.provisional_cap == 8
    assert load_dictionary(config).enabled == ["color", "material"]


def test_a_table_of_a_newer_release_is_refused_and_not_changed(tmp_path: Path) -> None:
    catalog, fold = LakeCatalog(tmp_path / "catalog"), label_uses.Fold("color", ["p1"], 0)
    label_uses.use_labels(catalog, fold, "first")
    delta = DeltaTable(tmp_path / "catalog" / "label_uses")
    delta.alter.add_columns([Field("of_tomorrow", PrimitiveType("string"))])
    with pytest.raises(
        DataContractError, match=r"label_uses\.v1: it has .*of_tomorrow.* a newer release wrote this one"
    ):
        label_uses.use_labels(catalog, fold, "second")
    assert DeltaTable(tmp_path / "catalog" / "label_uses").to_pyarrow_table().num_rows == 1


@pytest.fixture
def upgraded(tmp_path: Path, spark: SparkSession) -> SampleCatalog:
    """A copy of the second sample with its model version in a registry of today."""
    from catalog_enrichment.models import artifact

    folder = tmp_path / "shop"
    shutil.copytree(SECOND, folder)
    sample = SampleCatalog(folder, load_config(folder / "config.toml"), spark)
    certificates = [Certificate.from_dict(content) for content in artifact.read_certificates(folder / "model")]
    trained = TrainedModel(
        artifact=folder / "model", certificates=certificates, metrics={}, params={}, tables={}, curves={}, history=[],
        warnings=[], held_out=[], lineage={"label_set_hash": "labels", "labelled": 1}, seconds={},
    )  # fmt: skip
    [version] = json.loads((SECOND / "registry.json").read_text())
    assert sample.registry.register(trained).version == version["version"]
    sample.registry.promote(version["version"], expected_current=None)
    assert sample.model().artifact_hash == version["tags"]["artifact_hash"]
    return sample


def stored_columns(sample: SampleCatalog, name: str) -> list[str]:
    names: list[str] = DeltaTable(sample.folder / "catalog" / name).schema().to_arrow().names
    return names


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_older_catalog_goes_on_with_its_model_and_is_migrated(upgraded: SampleCatalog) -> None:
    """I5: what was decided is not decided again. The first import moves the pictures out of the products table."""
    before, events = values(upgraded), len(table(upgraded, "attribute_values"))
    runs_before = len(table(upgraded, "runs"))
    assert sample_catalog.enrich(upgraded)["status"] == "nothing_to_do"
    assert (values(upgraded), len(table(upgraded, "attribute_values"))) == (before, events)

    feed = upgraded.folder / "feed" / "products.parquet"
    rows = pq.read_table(feed).to_pylist()
    for row in rows:
        if row["product_id"] == "p002":
            row.update(title="Blue wool shawl", updated_at="2026-03-01T00:00:00+00:00")
    pq.write_table(type(pq.read_table(feed)).from_pylist(rows, pq.read_schema(feed)), feed)
    imported = upgraded.import_products()
    assert (imported["new"], imported["quarantined"]) == (0, {"empty_title": 1})
    assert (
        contract.columns("products") == DeltaTable(upgraded.folder / "catalog" / "products").schema().to_arrow().names
    )
    assert all(picture["bytes"] is None for row in table(upgraded, "products") for picture in row["images"] or ())
    assert list((upgraded.folder / "catalog" / "pictures").rglob("*")), "the pictures are in their store now"
    enriched = sample_catalog.enrich(upgraded)
    assert enriched["predicted"] >= 1
    assert enriched["model_version"] == "1"
    assert len(table(upgraded, "runs")) == runs_before + 2
    assert sorted(stored_columns(upgraded, "runs")) == sorted(contract.columns("runs")), "new columns come last"

    (first, *_) = [row for row in table(upgraded, "runs") if row["kind"] == "enrich"]
    rollback.rollback_run(upgraded.context().catalog, first["run_id"])
    assert values(upgraded, "model") != {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_moved_catalog_and_store_go_on(tmp_path: Path, spark: SparkSession) -> None:
    """The root of the config with catalog, MLflow store, artifacts and dictionary; the feed stays where it was."""
    sample = sample_catalog.build(tmp_path / "first", spark)
    feed = tmp_path / "feed"
    shutil.move(sample.folder / "feed", feed)
    text = sample.file.read_text().replace("feed/products.jsonl", f"{feed}/products.jsonl")
    sample.file.write_text(re.sub(r"allowed_folders = .*", f'allowed_folders = ["{feed}"]', text))
    (sample.folder / "feed").mkdir()

    def feed_with(*more: dict[str, Any]) -> None:
        lines = [json.dumps(row) for row in (*(listing(number) for number in range(8)), *more)]
        (feed / "products.jsonl").write_text("\n".join(lines) + "\n")

    sample = sample.with_settings()
    feed_with()
    sample.import_products()
    sample_catalog.register(sample, tmp_path, seed=1)
    sample.registry.promote("1", expected_current=None)
    first = sample_catalog.enrich(sample)
    seen = values(sample)

    shutil.move(sample.folder, tmp_path / "second")
    moved = SampleCatalog(tmp_path / "second", load_config(tmp_path / "second" / "config.toml"), spark)
    assert values(moved) == seen
    assert sample_catalog.enrich(moved)["status"] == "nothing_to_do"
    feed_with(listing(9))
    assert moved.import_products()["new"] == 1
    assert sample_catalog.enrich(moved)["predicted"] == 1
    (product, attribute) = next(iter(values(moved, "model")))
    assert explain.explain_value(moved.context(), product, attribute)["certificate_numbers"]
    rollback.rollback_run(moved.context().catalog, first["run_id"])
    assert len(values(moved, "model")) < len(seen)
    sample_catalog.register(moved, tmp_path, seed=2)
    assert moved.registry.resolve(version="2").artifact.is_relative_to(tmp_path / "second")
    assert not (tmp_path / "first").exists()
