"""I8: a model version is self-contained, loads without a network and without unpickling anybody's objects."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.models import artifact, preprocess, version_files
from catalog_enrichment.models.predictor import Predictor

from .conftest import HEADS, KINDS, TEMPERATURES, network, predictor_of, save, tiny, tokenizers_of

FILES = ["model.safetensors", "model.json", "text/tokenizer/tokenizer.json", "text/encoder/config.json"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


HIERARCHICAL = {"fields": "concat", "texts": "add", "modalities": "concat", "hidden": 5}


@pytest.mark.parametrize(
    ("kind", "variant", "options"),
    [
        *((kind, "apart second vit", {}) for kind in KINDS),
        ("modality_attention", "pair lcnet", {}),
        ("late", "pair regions", {}),
        ("decision", "apart second vit", {"layers": 1, "folds": 3}),
        ("hierarchical", "apart second vit", HIERARCHICAL),
        ("concat", "apart second vit", {"hidden": 3}),
    ],
)
def test_a_round_trip_gives_bit_equal_probabilities(
    kind: str, variant: str, options: dict[str, Any], tmp_path: Path, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8, with the network and pickle out of reach; the options and chosen parameters of the fusion are kept."""
    recipe = tiny(kind, variant, **options)
    before = predictor_of(recipe).predict(batch)
    save(tmp_path / "model", recipe)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))
    monkeypatch.setattr("pickle.Unpickler", lambda *_, **__: pytest.fail("unpickled"))
    loaded = Predictor.load(tmp_path / "model")
    after = loaded.predict(batch)
    assert list(loaded.heads.items()) == list(HEADS.items())
    for name in HEADS:
        assert np.array_equal(before.probabilities[name], after.probabilities[name])
        assert np.array_equal(before.attention[name], after.attention[name], equal_nan=True)


@pytest.mark.parametrize(("kind", "parts"), [("concat", ("tokenizer", "encoder")), ("image_only", ("tokenizer",))])
def test_each_text_encoder_has_a_folder(kind: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    save(tmp_path, tiny(kind, "pair second vit"))
    files = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    folders = {f"{text}/{part}" for text in ("text", "second_text") for part in parts}
    assert {file.parent.as_posix() for file in files} == folders | {"."}
    assert {file.name for file in files if file.parent.name == "encoder"} <= {"config.json"}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelContractError, match=rf"{name} is missing\. Download"):
        artifact.verify(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_single_flipped_bit_is_an_error(saved: Path, name: str) -> None:
    data = bytearray((saved / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / name).write_bytes(data)
    with pytest.raises(ModelContractError, match=f"damaged: {name}"):
        Predictor.load(saved)


def test_a_folder_without_or_with_an_emptied_list_of_sums_is_no_model(saved: Path, tmp_path: Path) -> None:
    (saved / version_files.SUMS).write_text("")
    with pytest.raises(ModelContractError, match="damaged"):
        artifact.verify(saved)
    with pytest.raises(ModelContractError, match="is not a model version"):
        artifact.verify(tmp_path / "nothing")


def test_coreutils_can_check_the_sums(saved: Path) -> None:
    version_files.write_certificates(saved, [])
    assert shutil.which("sha256sum")
    subprocess.run(["sha256sum", "--check", "--strict", version_files.SUMS], cwd=saved, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": preprocess.VERSION + 1}, "preprocessing"),
        ({"heads": {"type": {"cardinality": "one", "labels": ["Hat"]}}}, "cannot be loaded"),  # the weights do not fit
    ],
)
def test_another_preprocessing_or_spec_is_refused(change: dict[str, Any], message: str, saved: Path) -> None:
    content = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps(content | change))
    version_files.write_certificates(saved, [])  # makes the sums right again
    with pytest.raises(ModelContractError, match=message):
        artifact.load(saved)


def test_certification_changes_the_artifact_but_not_the_weights_hash(saved: Path) -> None:
    weights, whole = artifact.weights_hash(saved), version_files.artifact_hash(saved)
    certificates = [{"attribute": "type", "value": None, "lower_bound": 0.951234567890123, "n": 153}]
    version_files.write_certificates(saved, certificates)
    assert artifact.weights_hash(saved) == weights
    assert version_files.artifact_hash(saved) != whole
    assert version_files.read_certificates(saved) == certificates
    artifact.verify(saved)


def test_changed_certificates_are_an_error(saved: Path) -> None:
    """I2 rests on it: the certified threshold is applied."""
    version_files.write_certificates(saved, [{"threshold": 0.9}])
    (saved / "certificates.json").write_text('[{"threshold": 0.1}]')
    with pytest.raises(ModelContractError, match=r"damaged: certificates\.json"):
        artifact.verify(saved)


def test_reading_certificates_of_an_uncertified_model_raises(saved: Path) -> None:
    artifact.verify(saved)
    with pytest.raises(ModelContractError, match="not certified"):
        version_files.read_certificates(saved)


def test_equal_models_have_equal_hashes_in_any_folder(saved: Path, tmp_path: Path) -> None:
    assert version_files.artifact_hash(save(tmp_path / "again")) == version_files.artifact_hash(saved)


def test_a_folder_in_use_is_not_written_into(saved: Path) -> None:
    with pytest.raises(ModelContractError, match="not empty"):
        save(saved)


@pytest.mark.parametrize("temperatures", [{}, {**TEMPERATURES, "type": 0.0}, {**TEMPERATURES, "type": float("nan")}])
def test_every_head_needs_a_positive_temperature(temperatures: dict[str, float], tmp_path: Path) -> None:
    recipe = tiny()
    with pytest.raises(ModelContractError, match="temperature"):
        artifact.save(tmp_path / "model", network(recipe), tokenizers_of(recipe), recipe, temperatures)
