"""Today's code reads what 0.1.0 wrote (tests/frozen/README.md says what that is)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import Context
from catalog_enrichment.operations import explain, rollback
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.records import Modality
from catalog_enrichment.registry.gate_evidence import Evidence

from .object_sample import rows
from .sample_catalog import SampleCatalog

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FROZEN = Path(__file__).parent / "frozen" / "v0.1.0"
ROWS: dict[str, int] = json.loads((FROZEN / "rows.json").read_text())
PATHS = {(name, path) for name in ("color", "material") for path in Modality}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(FROZEN, tmp_path / "sample")
    return tmp_path / "sample"


def context_of(folder: Path, spark: SparkSession) -> Context:
    return SampleCatalog(folder, load_config(folder / "config.toml"), spark).context()


def current_values(catalog: Catalog) -> dict[tuple[str, str], tuple[Any, ...]]:
    """(product, attribute) -> what its reader sees."""
    return {
        (row["product_id"], row["attribute"]): (row["source"], row["values"], row["run_id"], row["certificate_id"])
        for row in rows(catalog, "current_values")
    }


def test_nothing_names_the_machine_it_was_made_on() -> None:
    local = re.compile(rb"/(home|root|tmp|work|Users)/")
    assert [file for file in FROZEN.rglob("*") if file.is_file() and local.search(file.read_bytes())] == []


@pytest.mark.parametrize("table", ROWS)
def test_a_table_is_read_with_the_columns_of_its_contract(table: str, spark: SparkSession) -> None:
    catalog = Catalog(FROZEN / "catalog", spark)
    by_spark = catalog.read(table)
    assert by_spark.columns == contract.columns(table)
    assert by_spark.count() == len(rows(catalog, table)) == ROWS[table]


def test_the_artifact_gives_the_scores_that_were_written() -> None:
    """I5: a score is the same within 1e-4, whatever release computes it."""
    from catalog_enrichment.inputs import images
    from catalog_enrichment.inputs.product_batch import ProductBatch
    from catalog_enrichment.models import artifact, version_files
    from catalog_enrichment.models.predictor import Predictor

    artifact.verify(FROZEN / "model")
    version = json.loads((FROZEN / "registry.json").read_text())[0]
    assert version_files.artifact_hash(FROZEN / "model") == version["tags"]["artifact_hash"]
    assert artifact.weights_hash(FROZEN / "model") == version["tags"]["weights_hash"]
    catalog, limits = Catalog(FROZEN / "catalog"), load_config(FROZEN / "config.toml").pictures()
    predictor = Predictor.load(FROZEN / "model")
    products = {row["product_id"]: row for row in rows(catalog, "products")}
    written = [
        row
        for row in rows(catalog, "predictions")
        if row["model_version"] == "2" and row["modality"] == "both" and row["attribute"] == "color" and row["value"]
    ]
    stored = [row for row in written if products[row["product_id"]]["images"][0]["uri"] is None]
    assert len(stored) >= 2, "pictures that came as bytes are in the sample"
    for row in stored:
        product = products[row["product_id"]]
        picture = images.first_usable(product["images"], predictor.square, limits).pixels
        batch = ProductBatch([product["title"]], [product["description"]], [picture])
        scores = predictor.predict(batch).probabilities["color"][0]
        label = predictor.heads["color"].labels.index(row["value"])
        assert scores[label] == pytest.approx(row["score"], abs=1e-4)


def test_certificates_and_evidence_are_read_and_named_by_what_was_written() -> None:
    """I6: the certificate that a written value names is found in the model version."""
    from catalog_enrichment.models import version_files

    certificates = [Certificate.from_dict(content) for content in version_files.read_certificates(FROZEN / "model")]
    assert {(known.attribute, known.modality) for known in certificates} == PATHS
    named = {
        row["certificate_id"]
        for row in rows(Catalog(FROZEN / "catalog"), "attribute_values")
        if row["model_version"] == "2" and row["op"] == "assert"
    }
    assert named
    assert named <= {known.certificate_id for known in certificates}
    for version in json.loads((FROZEN / "registry.json").read_text()):
        evidence = Evidence.from_tags(version["version"], version["tags"])
        assert evidence is not None
        assert set(evidence.paths) == PATHS
        assert evidence.certified == {("color", Modality.BOTH), ("material", Modality.BOTH)}


def test_current_values_are_derived_again_to_the_same(folder: Path, spark: SparkSession) -> None:
    catalog = Catalog(folder / "catalog", spark)
    before = current_values(catalog)
    shutil.rmtree(folder / "catalog" / "current_values")
    assert catalog.refresh_current_values("again")
    assert current_values(catalog) == before
    assert {source for source, *_ in before.values()} == {"merchant", "model"}


def test_a_value_is_explained_and_its_run_rolled_back_and_back_again(folder: Path, spark: SparkSession) -> None:
    """I6 on the catalog of 0.1.0."""
    context = context_of(folder, spark)
    before = current_values(context.catalog)
    product_id, attribute = next(key for key, value in before.items() if value[0] == "model")
    explained = explain.explain_value(context, product_id, attribute)
    assert explained["current"]["values"] == before[product_id, attribute][1]

    run_id = before[product_id, attribute][2]
    undone = rollback.rollback_run(context.catalog, run_id)
    assert current_values(context.catalog) != before
    assert runs.find(context.catalog, run_id) is not None
    rollback.rollback_run(context.catalog, undone["run_id"])
    assert {key: value[:2] for key, value in current_values(context.catalog).items()} == {
        key: value[:2] for key, value in before.items()
    }
