"""A registry on MLflow with sqlite, and a tiny model version. The store is initialised once and copied per test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import TrainedModel

from .tiny_version import CERTIFIED, MODEL, certificate, config_in


@pytest.fixture(scope="session")
def uncertified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a model version without certificates."""
    from catalog_enrichment.inputs.text import TextTokenizer
    from catalog_enrichment.models import artifact
    from catalog_enrichment.models.network import Head, build_network
    from catalog_enrichment.models.spec import BertSize, FitSpec, ImageSpec, ModelSpec, Recipe, TextSpec

    bert = BertSize(hidden=16, layers=1, heads=2, intermediate=16, vocab_size=200)
    spec = ModelSpec(text=TextSpec(bert=bert, max_length=16), image=ImageSpec(name="lcnet_035", size=32))
    tokenizer = TextTokenizer.train(["a red shirt", "a blue shirt"], 200)
    heads = {"color": Head(Cardinality.ONE, ("Blue", "Red"))}
    folder = tmp_path_factory.mktemp("artifact") / "version"
    recipe = Recipe(name="tiny", model=spec, fit=FitSpec(epochs=1))
    artifact.save(folder, build_network(spec, heads, {"text": tokenizer}), {"text": tokenizer}, recipe, {"color": 1.0})
    return folder


@pytest.fixture(scope="session")
def trained(uncertified: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    from catalog_enrichment.models import artifact, version_files

    folder = tmp_path_factory.mktemp("certified") / "version"
    shutil.copytree(uncertified, folder)
    weights = artifact.weights_hash(folder)
    certificates = [certificate(Modality.BOTH, weights, 0.9), certificate(Modality.TEXT_ONLY, weights, None)]
    version_files.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
    return TrainedModel(
        artifact=folder,
        certificates=certificates,
        metrics=dict(CERTIFIED),
        params={"recipe": "tiny", "epochs": 1, "training.checkpoints": "s3a://key:hunter2@bucket/x"},
        tables={"certified": [{"attribute": "color"}]},
        curves={},
        history=[{"epoch": 1.0, "train_loss": 0.5}],
        warnings=[],
        held_out=[],
        lineage={"label_set_hash": "labels-1"},
        seconds={},
    )


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and no runs; MLflow takes seven seconds to make one."""
    folder = tmp_path_factory.mktemp("store")
    Registry(config_in(folder)).connect(create=True)
    return folder / "mlflow.db"


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> Registry:
    """A registry with no model in it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Registry(config_in(tmp_path))


@pytest.fixture
def two_versions(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with versions 1 and 2, no champion and no files, for tests of the aliases alone."""
    client = registry.connect()
    client.create_registered_model(MODEL)
    for _ in range(2):
        client.create_model_version(MODEL, source=str(tmp_path))
    return registry
