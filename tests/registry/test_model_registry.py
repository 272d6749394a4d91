"""The registry on MLflow with sqlite: connect, register, resolve, promote through the gate."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, GateRefused, ModelContractError, RegistryError, TemporaryFailure
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.registry.model_registry import PromotionRequest, Registry
from catalog_enrichment.registry.promotion import describe
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training.job import write_page

from .tiny_version import MODEL, certificate, config_in

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


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("hello, I am a text file")
    with pytest.raises(RegistryError, match="not an sqlite database"):
        Registry(config_in(tmp_path)).connect(create=True)


def test_a_locked_store_may_work_later(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as holder:
        holder.execute("CREATE TABLE held (number INTEGER)")
        holder.commit()
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemporaryFailure, match="locked by another process"):
            Registry(config_in(tmp_path, timeout_seconds=1)).connect(create=True)


def test_a_store_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be used"):
        Registry(config_in(tmp_path, tracking_uri="sqlite:///file/mlflow.db")).connect(create=True)


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
    import matplotlib.figure
    import mlflow
    import pandas as pd

    from catalog_enrichment.models import artifact

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # as `mlflow run` sets it, maybe for another store
    version = registry.register(trained, {"curve": matplotlib.figure.Figure()})

    assert registry.certified_without_label_uses() == []

    lines: list[str] = []
    config = config_in(tmp_path)
    page = write_page(trained, version, config, registry, Stages(lines.append))
    assert lines == [f"page of the training: {page}"]
    assert f"{MODEL} version {version.version}" in Path(page or "").read_text()

    model = registry.resolve(alias="candidate")
    assert (model.version, model.artifact_hash) == (version.version, artifact.artifact_hash(trained.artifact))
    assert model.weights_hash == artifact.weights_hash(trained.artifact)
    assert model.heads["color"].labels == ("Blue", "Red")
    assert list(model.certificates) == trained.certificates

    client = registry.connect()
    run = client.get_run(version.run_id)
    assert run.data.metrics["color/certified_recall"] == 0.4
    assert run.data.params["recipe"] == "tiny"
    assert run.data.params["training.shared_path"] == "s3a://***@bucket/x"
    assert run.inputs.dataset_inputs[0].dataset.digest == "labels-1"
    logged = {file.path for folder in ("", "plots", "tables") for file in client.list_artifacts(version.run_id, folder)}
    expected = {"plots/curve.png", "tables/certified.json", "certificates.json", "lineage.json", "training-1.html"}
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


def test_versions_of_releases_without_the_table_of_label_uses_are_known(two_versions: Registry) -> None:
    client = two_versions.connect()
    assert two_versions.certified_without_label_uses() == []
    client.set_model_version_tag(MODEL, "1", "weights_hash", "weights-1")
    for version, tags in (("1", {"label_set.abc": "certified"}), ("2", {"weights_hash": "weights-2"})):
        for key, value in tags.items():
            client.set_model_version_tag(MODEL, version, key, value)
    assert two_versions.certified_without_label_uses() == ["weights-1"]


def test_an_artifact_without_all_certificates_is_not_registered(
    registry: Registry, trained: TrainedModel, uncertified: Path, tmp_path: Path
) -> None:
    """I2: refused without certificates, and without the one of a modality path; nothing is logged."""
    from catalog_enrichment.models import artifact

    with pytest.raises(ModelContractError, match="not certified"):
        registry.register(replace(trained, artifact=uncertified))
    half = tmp_path / "half"
    shutil.copytree(trained.artifact, half)
    artifact.write_certificates(half, [trained.certificates[0].to_dict()])
    with pytest.raises(ModelContractError, match="color \\(text_only\\)"):
        registry.register(replace(trained, artifact=half))
    with pytest.raises(RegistryError, match="no models yet"):
        registry.resolve(alias="candidate")


def test_changed_files_are_refused(registry: Registry, trained: TrainedModel) -> None:
    registry.register(trained)
    stored = registry.resolve(alias="candidate").artifact
    (stored / "text" / "tokenizer" / "extra.json").write_text("{}")
    with pytest.raises(ModelContractError, match="They were changed"):
        registry.resolve(alias="candidate")


def test_labels_that_do_not_fit_the_dictionary_are_listed(registry: Registry, trained: TrainedModel) -> None:
    registry.register(trained)
    model = registry.resolve(alias="candidate")
    color = Attribute(name="color", cardinality=Cardinality.ONE, values=("Blue", "Red", "Green"))
    registry.check_labels(model, Dictionary({"color": color}))
    with pytest.raises(ModelContractError, match=r"\['Red'\]"):
        registry.check_labels(model, Dictionary({"color": replace(color, values=("Blue",))}))
    with pytest.raises(ModelContractError, match="the dictionary many"):
        registry.check_labels(model, Dictionary({"color": replace(color, cardinality=Cardinality.MANY)}))
    with pytest.raises(ModelContractError, match="not in the dictionary"):
        registry.check_labels(model, Dictionary({"size": replace(color, name="size")}))


# --- promotion


def decisions(n: int, right: int, modality: Modality | None = Modality.BOTH) -> list[HeldOutDecision]:
    """Of n products, each its own group, the first ``right`` are written rightly."""
    return [
        HeldOutDecision(f"p{product}", product, "color", ("Red",), ("Red",) if product < right else (), modality)
        for product in range(n)
    ]


def test_expired_certificates_stop_a_run_and_one_of_several_warns(registry: Registry, trained: TrainedModel) -> None:
    model = registry.resolve(version=registry.register(trained, {}).version)
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
    one_path = replace(model, certificates=(color, text_only))
    [warning] = registry.check_validity(one_path, words, color.expires_at)
    assert f"color expired on {color.expires_at:%Y-%m-%d} (both)" in warning


def test_promotion_through_the_gate_and_back(registry: Registry, trained: TrainedModel) -> None:
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    assert registry.promote_through_gate(PromotionRequest(dry_run=True))["passed"]
    assert registry.champion() is None
    assert registry.promote_through_gate(PromotionRequest())["status"] == "promoted"
    assert registry.resolve().version == "1"
    assert registry.promote_through_gate(PromotionRequest())["status"] == "unchanged"

    registry.register(replace(trained, held_out=decisions(1000, 350)))
    with pytest.raises(
        GateRefused, match=r"color \(products with text and picture\): certified recall is more than"
    ) as refused:
        registry.promote_through_gate(PromotionRequest(override="we like it"))
    assert refused.value.summary["verdict"] == "refused"
    assert registry.champion() == "1"

    registry.register(replace(trained, held_out=decisions(1000, 410)))
    promoted = registry.promote_through_gate(PromotionRequest(override="not needed"))
    assert (promoted["champion_before"], promoted["verdict"], promoted["override"]) == ("1", "passed", None)
    assert registry.go_back()["model_version"] == "1"
    assert registry.promote_through_gate(PromotionRequest(version="3", expected_current="1"))["model_version"] == "3"
    assert [(event["version"], event["action"], event["champion_before"]) for event in registry.history()] == [
        ("1", "promoted", None),
        ("3", "promoted", "1"),
        ("1", "went_back", "3"),
        ("3", "promoted", "1"),
    ]
    [compared] = registry.history()[1]["comparisons"]
    assert (compared["version"], compared["units"], compared["difference"]) == ("1", 1000, 0.01)


def test_an_inconclusive_gate_needs_an_override_which_is_recorded(registry: Registry, trained: TrainedModel) -> None:
    registry.register(replace(trained, held_out=decisions(172, 80)))
    registry.promote_through_gate(PromotionRequest())
    registry.register(replace(trained, held_out=decisions(172, 75)))
    with pytest.raises(GateRefused, match="--override REASON") as refused:
        registry.promote_through_gate(PromotionRequest())
    summary = refused.value.summary
    assert (summary["verdict"], summary["passed"], summary["override"]) == ("inconclusive", False, None)
    assert summary["comparisons"][0]["units_needed"] > 172
    assert registry.champion() == "1"
    with pytest.raises(ConfigError, match="needs a reason"):
        PromotionRequest(override=" ")
    assert registry.promote_through_gate(PromotionRequest(override="the old one is slow"))["status"] == "promoted"
    event = registry.history()[-1]
    assert (event["version"], event["verdict"], event["override"]) == ("2", "inconclusive", "the old one is slow")
    assert event["by"]
    assert "override: the old one is slow" in describe(event)


def test_the_candidate_is_also_compared_with_the_best_champion_ever(registry: Registry, trained: TrainedModel) -> None:
    """Small steps downwards, each within the margin, add up."""
    registry.register(replace(trained, held_out=decisions(1000, 500)))
    registry.promote_through_gate(PromotionRequest())
    registry.register(replace(trained, held_out=decisions(1000, 450)))
    registry.promote("2", "1")
    registry.register(replace(trained, held_out=decisions(1000, 451)))
    with pytest.raises(GateRefused, match=r"that of version 1: 0\.451 against 0\.500"):
        registry.promote_through_gate(PromotionRequest())
    registry.promote("1", "2")
    registry.go_back()  # version 1 is withdrawn, so nothing has to be as good as it was
    assert registry.champion() == "2"
    assert [row["version"] for row in registry.promote_through_gate(PromotionRequest())["comparisons"]] == ["2"]


def test_a_model_can_be_compared_with_the_champions_before_it_is_registered(
    registry: Registry, trained: TrainedModel
) -> None:
    """By the gate's rule: worse by more than the margin of .02, with confidence."""
    empty = registry.early_gate()
    assert (empty.worse("color", decisions(1000, 0)), empty.lost({})) == ("", "")  # the registry is empty
    registry.register(replace(trained, held_out=decisions(1000, 500)))
    registered = registry.early_gate()
    assert (registered.worse("color", decisions(1000, 0)), registered.lost({})) == ("", "")  # there is no champion
    registry.promote("1", None)
    check = registry.early_gate().worse
    worse = check("color", decisions(1000, 451))
    assert worse.startswith(
        "At the choosing fold's threshold: color (products with text and picture): certified recall is more than "
        "recall_margin = 0.02 below that of version 1: "
    )
    assert "0.451 against 0.500 on 1000 test products" in worse
    assert check("color", decisions(1000, 475)) == ""  # inconclusive
    assert check("material", decisions(1000, 451)) == ""  # the champion is not certified for it
    assert check("color", decisions(0, 0)) == ""
    assert check("color", decisions(1000, 451, Modality.TEXT_ONLY)) == ""  # nor for products without a picture
    registry.register(replace(trained, held_out=decisions(1000, 450)))
    registry.promote("2", "1")
    assert "below that of version 1" in registry.early_gate().worse("color", decisions(1000, 451))


def test_a_champion_that_recorded_nothing_on_its_test_fold_cannot_be_compared(
    registry: Registry, trained: TrainedModel
) -> None:
    """Versions of release 0.1.0."""
    client = registry.connect(create=True)
    first = registry.register(trained)
    client.set_model_version_tag(MODEL, "1", "promoted_at", "2026-01-01T00:00:00+00:00")
    client.set_registered_model_alias(MODEL, "champion", "1")
    for file in Path(client.get_run(first.run_id).info.artifact_uri.removeprefix("file://")).glob("test_decisions*"):
        file.unlink()
    assert registry.early_gate().worse("color", decisions(1000, 0)) == ""
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    with pytest.raises(GateRefused, match="version 1 recorded nothing"):
        registry.promote_through_gate(PromotionRequest())


def test_labels_that_the_champion_has_and_the_candidate_lacks_are_refused(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    from catalog_enrichment.models import artifact

    registry.register(replace(trained, held_out=decisions(1000, 400)))
    registry.promote_through_gate(PromotionRequest())
    folder = tmp_path / "fewer"
    shutil.copytree(trained.artifact, folder)
    model = json.loads((folder / "model.json").read_text())
    model["heads"]["color"]["labels"] = ["Blue"]
    artifact.write_model_file(folder, model)
    registry.register(replace(trained, artifact=folder, held_out=decisions(1000, 400)))
    with pytest.raises(GateRefused, match=r"cannot write \['Red'\]"):
        registry.promote_through_gate(PromotionRequest())


def test_what_a_model_cannot_write_is_known_before_its_certification_labels_are_used(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    registry.promote("1", None)
    gate = registry.early_gate()
    assert gate.lost({"color": ("Red", "Blue", "Green"), "size": ("S",)}) == ""
    assert gate.lost({"color": ("Red",)}) == "color: the candidate cannot write ['Blue'], the champion can"
    lost = "not certified for color (products with text and picture), which champion version 1 is certified for"
    assert gate.lost({"size": ("S",)}) == lost
    allowed = replace(gate, policy=replace(gate.policy, allow_lost_values=True, allow_lost_attributes=True))
    assert (allowed.lost({"color": ("Red",)}), allowed.lost({})) == ("", "")


def without_picture(trained: TrainedModel, folder: Path, right: int) -> TrainedModel:
    """A version that is certified on both paths; of 1,000 products without a picture it writes ``right`` rightly."""
    from catalog_enrichment.models import artifact

    shutil.copytree(trained.artifact, folder)
    weights = artifact.weights_hash(folder)
    artifact.write_certificates(folder, [certificate(path, weights, 0.9).to_dict() for path in Modality])
    pictures = [replace(row, product_id=f"with {row.product_id}") for row in decisions(1000, 400)]
    return replace(trained, artifact=folder, held_out=[*pictures, *decisions(1000, right, Modality.TEXT_ONLY)])


def test_the_path_without_a_picture_is_compared_by_itself(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(without_picture(trained, tmp_path / "1", 500))
    promoted = registry.promote_through_gate(PromotionRequest())
    assert "color (products without a usable picture)" in promoted["reasons"][0]
    check = registry.early_gate().worse
    assert "0.450 against 0.500 on 1000 test products" in check("color", decisions(1000, 450, Modality.TEXT_ONLY))
    registry.register(without_picture(trained, tmp_path / "2", 450))
    with pytest.raises(GateRefused, match=r"color \(products without a usable picture\): certified recall") as refused:
        registry.promote_through_gate(PromotionRequest())
    compared = [(row["modality"], row["units"], row["difference"]) for row in refused.value.summary["comparisons"]]
    assert compared == [("both", 1000, 0.0), ("text_only", 1000, -0.05)]
    registry.register(replace(trained, held_out=decisions(1000, 400)))
    with pytest.raises(GateRefused, match=r"not certified for color \(products without a usable picture\)"):
        registry.promote_through_gate(PromotionRequest())


def test_a_certificate_that_promises_less_than_the_config_is_refused(
    registry: Registry, trained: TrainedModel, tmp_path: Path
) -> None:
    registry.register(trained)
    stricter = replace(config_in(tmp_path), precision=PrecisionConfig(target=0.97))
    with pytest.raises(
        GateRefused, match=r"a precision of 0\.95 with delta 0\.05; the config asks for precision\.target = 0\.97"
    ):
        Registry(stricter).promote_through_gate(PromotionRequest())
    assert registry.promote_through_gate(PromotionRequest())["passed"]
