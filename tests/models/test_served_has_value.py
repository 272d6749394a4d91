"""Has-value heads in a model version: what they multiply, and how they are kept (I8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact, ensemble, has_value
from catalog_enrichment.records import Modality

from .conftest import HEADS, TEMPERATURES, network, tiny, tokenizers_of


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    recipe, folder = tiny("late"), tmp_path / "model"
    artifact.save(folder, network(recipe), tokenizers_of(recipe), recipe, TEMPERATURES)
    return folder


def heads_of(folder: Path, batch: ProductBatch, *, scale: float = 1.0) -> dict[tuple[str, Modality], np.ndarray]:
    """A head for the first attribute of products with a picture; its weights are random."""
    width = ensemble.load(folder).predict(batch).vectors.shape[1]
    weights = np.random.default_rng(0).standard_normal(width + 1).astype(np.float32) * scale
    return {(next(iter(HEADS)), Modality.BOTH): weights}


def test_a_probability_is_the_exponential_of_the_log_ratio_and_at_most_one() -> None:
    head = np.array([2.0, 0.0, -1.0], dtype=np.float32)
    vectors = np.array([[0.5, 9.0], [0.0, 9.0], [3.0, 9.0]], dtype=np.float32)
    assert has_value.has_value(head, vectors).tolist() == pytest.approx([1.0, np.exp(-1.0), 1.0])


def test_only_products_of_the_heads_path_and_attribute_are_multiplied(saved: Path, batch: ProductBatch) -> None:
    plain, heads = ensemble.load(saved).predict(batch), heads_of(saved, batch, scale=5.0)
    assert plain.has_image.any()
    assert not plain.has_image.all()
    artifact.write_has_value(saved, heads)
    scores = ensemble.load(saved).predict(batch)
    (first, _), weights = next(iter(heads.items()))
    factors = np.where(plain.has_image, has_value.has_value(weights, plain.vectors), 1.0)
    assert factors.min() < 0.9
    for name in HEADS:
        expected = plain.probabilities[name] * (factors[:, None] if name == first else 1.0)
        np.testing.assert_allclose(scores.probabilities[name], expected, rtol=1e-5)
        assert scores.probabilities[name].dtype == np.float32
    np.testing.assert_array_equal(scores.attention[first], plain.attention[first])


def test_heads_are_kept_in_the_model_version_and_change_its_weights_hash(saved: Path, batch: ProductBatch) -> None:
    heads, before = heads_of(saved, batch), artifact.weights_hash(saved)
    artifact.write_has_value(saved, {})
    assert artifact.weights_hash(saved) == before
    assert not (saved / has_value.FILE).exists()
    artifact.write_has_value(saved, heads)
    artifact.verify(saved)
    assert artifact.weights_hash(saved) != before
    loaded = has_value.load(saved)
    assert list(loaded) == list(heads)
    for key, weights in heads.items():
        np.testing.assert_array_equal(loaded[key], weights)


def test_a_changed_or_damaged_file_is_refused(saved: Path, batch: ProductBatch) -> None:
    artifact.write_has_value(saved, heads_of(saved, batch))
    (saved / has_value.FILE).write_bytes(b"no safetensors")
    with pytest.raises(ModelContractError, match=r"has_value.safetensors does not match its checksum"):
        ensemble.load(saved)
    with pytest.raises(ModelContractError, match=r"has_value.safetensors cannot be read"):
        has_value.load(saved)


def test_vectors_of_a_vote_are_those_of_its_first_member(tmp_path: Path, batch: ProductBatch) -> None:
    folder = tmp_path / "vote"
    members = [folder / ensemble.MEMBERS / f"{number:02d}" for number in range(2)]
    widths = []
    for member, kind in zip(members, ("late", "text_only"), strict=True):
        recipe = tiny(kind)
        artifact.save(member, network(recipe), tokenizers_of(recipe), recipe, TEMPERATURES)
        widths.append(ensemble.load(member).predict(batch).vectors.shape[1])
    ensemble.save(folder, "two", members)
    assert ensemble.load(folder).predict(batch).vectors.shape == (len(batch), widths[0])
    artifact.write_has_value(folder, heads_of(folder, batch, scale=5.0))
    (first, _), *_ = has_value.load(folder)
    with_head = ensemble.load(folder).predict(batch)
    assert (with_head.probabilities[first].max(axis=1) < 0.9).any()
