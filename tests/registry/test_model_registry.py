"""The registry on MLflow with sqlite: connect, register, resolve."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from catalog_enrichment.config.proposer import NOTHING_SEEN, ProposerConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, GateRefused, ModelContractError, RegistryError, TemporaryFailure
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training.job import write_page

from .tiny_version import MODEL, config_in

# --- connect


def test_an_unreachable_server_fails_quickly_and_clearly(tmp_path: Path) -> None:
    with socket.socket() as listener:  # accepts connections and never answers
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        uri = f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TemporaryFailure, match="no MLflow server answers") as caught:
            Registry(config_in(tmp_path, tracking_uri=uri, timeout_seconds=1)).connect()
    assert time.monotonic() - start < 5
    assert "secret" not in str(caught.value)


def test_a_refused_connection_may_work_later(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TemporaryFailure, match=str(port)):
        Registry(config_in(tmp_path, tracking_uri=f"http://127.0.0.1:{port}")).resolve()


def test_reading_does_not_create_a_missing_store(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="run train_model first"):
        Registry(config_in(tmp_path)).resolve()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("place", "says"), [("mlflow.db", "not an sqlite database"), ("mlflow.db/mlflow.db", "cannot be used")]
)
def test_a_file_that_is_no_database_is_refused_as_store_and_as_folder(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "mlflow.db").write_text("hello, I am a text file")
    with pytest.raises(RegistryError, match=says):
        Registry(config_in(tmp_path, tracking_uri=f"sqlite:///{place}")).connect(create=True)


def test_a_locked_store_may_work_later(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as holder:
        holder.execute("CREATE TABLE held (number INTEGER)")
        holder.commit()
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemporaryFailure, match="locked by another process"):
            Registry(config_in(tmp_path, timeout_seconds=1)).connect(create=True)


def test_a_missing_model_alias_or_version_is_an_error_that_lists_the_existing(
    two_versions: Registry, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match="versions 1, 2 and aliases none"):
        two_versions.resolve()
    with pytest.raises(RegistryError, match="version 7"):
        two_versions.resolve(version="7")
    with pytest.raises(RegistryError, match=f"the registry has {MODEL}"):
        Registry(config_in(tmp_path, model_name="other")).resolve()


# --- register and resolve


def test_a_registered_model_resolves_to_the_same_files_and_loads_elsewhere(
    registry: Registry, trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I3, I8: a version resolves to one verified folder, and MLflow's own loader can load it."""
    import mlflow
    import pandas as pd

    from catalog_enrichment.models import artifact, version_files

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # as `mlflow run` sets it, maybe for another store
    version = registry.register(trained)

    lines: list[str] = []
    config = config_in(tmp_path)
    page = write_page(trained, version, config, registry, Stages(lines.append))
    assert lines == [f"page of the training: {page}"]
    assert f"{MODEL} version {version.version}" in Path(page or "").read_text()

    model = registry.resolve(alias="candidate")
    assert (model.version, model.artifact_hash) == (version.version, version_files.artifact_hash(trained.artifact))
    assert model.weights_hash == artifact.weights_hash(trained.artifact)
    assert model.heads["color"].labels == ("Blue", "Red")
    assert list(model.certificates) == trained.certificates

    client = registry.connect()
    run = client.get_run(version.run_id)
    assert run.data.metrics["color/certified_recall"] == 0.4
    assert run.data.params["recipe"] == "tiny"
    assert run.data.params["training.checkpoints"] == "s3a://***@bucket/x"
    assert run.inputs.dataset_inputs[0].dataset.digest == "labels-1"
    logged = {file.path for folder in ("", "tables") for file in client.list_artifacts(version.run_id, folder)}
    expected = {"curves.json", "tables/certified.json", "certificates.json", "lineage.json", "training-1.html"}
    assert expected <= logged

    frame = pd.DataFrame({"title": ["a red shirt"], "description": [None], "image": [None]})
    scored = mlflow.pyfunc.load_model(version.uri).predict(frame)
    [best] = scored["color"][0]
    assert best["value"] in {"Blue", "Red"}
    assert 0 < best["score"] < 1
    assert (best["decision"], best["reason"]) == ("abstain", "no_certificate")  # of products without a picture

    client.delete_model_version_tag(MODEL, version.version, "artifact_hash")
    with pytest.raises(ModelContractError, match="the registered files had None"):
        registry.resolve(alias="candidate")


def test_an_artifact_without_all_certificates_is_not_registered(
    registry: Registry, trained: TrainedModel, uncertified: Path, tmp_path: Path
) -> None:
    """I2: refused without certificates, and without that of a modality path; nothing is logged."""
    from catalog_enrichment.models import version_files

    with pytest.raises(ModelContractError, match="not certified"):
        registry.register(replace(trained, artifact=uncertified))
    half = tmp_path / "half"
    shutil.copytree(trained.artifact, half)
    version_files.write_certificates(half, [trained.certificates[0].to_dict()])
    with pytest.raises(ModelContractError, match="color \\(text_only\\)"):
        registry.register(replace(trained, artifact=half))
    with pytest.raises(RegistryError, match="no models yet"):
        registry.resolve(alias="candidate")


@pytest.mark.parametrize("path", ["../../outside", "/outside"])
def test_a_version_whose_files_lead_out_of_its_folder_is_an_error(
    path: str, registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(trained)
    stored = registry.resolve(alias="candidate").artifact
    (file,) = (parent / "MLmodel" for parent in stored.parents if (parent / "MLmodel").is_file())
    content = yaml.safe_load(file.read_text())
    content["flavors"]["python_function"]["artifacts"]["model"]["path"] = path
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(RegistryError, match=r"cannot be fetched from .* is not in the subpath"):
        registry.resolve(alias="candidate")


@pytest.mark.parametrize("allowed", [None, "models:/others/3", "models:/models/colours", "models:/x@colours"])
def test_a_models_code_is_loaded_only_where_the_config_allows_it(allowed: str | None, tmp_path: Path) -> None:
    """Another model, and names that are alike, allow nothing. Nothing is asked for before: there is no store."""
    config = config_in(tmp_path)
    if allowed:
        section = ProposerConfig(kind="table", name="a", version="1", trained_on=NOTHING_SEEN)
        object.__setattr__(section, "model", allowed)
        object.__setattr__(section, "allow_code", True)
        config = replace(config, proposer=section)
    with pytest.raises(ConfigError, match=r"models:/colours/3, whose author's code would run.*allow_code = true"):
        Registry(config).store.fetch_model("models:/colours/3")


def test_an_allowed_model_that_is_not_there_is_an_error_that_lists_the_existing(registry: Registry) -> None:
    section = ProposerConfig(kind="pyfunc", model="models:/colours@newest", allow_code=True, trained_on=NOTHING_SEEN)
    store = Registry(replace(registry.config, proposer=section)).store
    for fetch in (lambda: store.fetch_model("models:/colours/3"), lambda: store.pinned("models:/colours@newest")):
        with pytest.raises(RegistryError, match=r"of model 'colours': the registry has"):
            fetch()


def test_changed_files_are_refused(registry: Registry, trained: TrainedModel) -> None:
    from catalog_enrichment.models import version_files

    registry.register(trained)
    stored = registry.resolve(alias="candidate").artifact
    (stored / "text" / "tokenizer" / "extra.json").write_text("{}")
    with pytest.raises(ModelContractError, match=r"extra\.json is not in SHA256SUMS"):
        registry.resolve(alias="candidate")
    version_files.write_certificates(stored, version_files.read_certificates(stored))  # with checksums of all files
    with pytest.raises(ModelContractError, match="They were changed"):
        registry.resolve(alias="candidate")


def test_expired_certificates_stop_a_run_or_warn(registry: Registry, trained: TrainedModel) -> None:
    model = registry.resolve(version=registry.register(trained).version)
    words = Dictionary(
        {name: Attribute(name=name, cardinality=Cardinality.ONE, values=()) for name in ("color", "size")}
    )
    [color] = [c for c in model.certificates if c.threshold is not None]
    size = replace(color, attribute="size", expires_at=color.expires_at + timedelta(days=1))
    both = replace(model, certificates=(*model.certificates, size))
    last_day, a_day_later = color.expires_at - timedelta(seconds=1), color.expires_at + timedelta(days=1)
    assert registry.check_validity(both, words, last_day) == []
    [warning] = registry.check_validity(both, words, color.expires_at)
    assert f"color expired on {color.expires_at:%Y-%m-%d}" in warning
    with pytest.raises(GateRefused, match="have expired"):
        registry.check_validity(both, words, a_day_later)
    assert registry.check_validity(replace(model, certificates=()), words, a_day_later) == []
    text_only = replace(color, modality=Modality.TEXT_ONLY, expires_at=a_day_later)
    half = replace(model, certificates=(color, text_only))
    [warning] = registry.check_validity(half, words, color.expires_at)
    assert f"color expired on {color.expires_at:%Y-%m-%d} (both)" in warning
