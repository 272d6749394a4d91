from __future__ import annotations

import colorsys

import numpy as np
import pytest

from catalog_enrichment.comparison.reference import Reference, color_histograms, title_words
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.precision import classification_metrics
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset

from ..training.toy import DICTIONARY, batches, product

NAMES = ("color", "material")


def load(folder, rows) -> Dataset:
    options = LoadOptions(
        attributes=list(NAMES), square=Square(32), max_chars=80, images=ImagesConfig(), workdir=folder, max_unlabelled=0
    )
    return load_dataset(batches(rows), DICTIONARY, options)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    rows = [product(number) for number in range(200)]
    rows[7] |= {"images": []}
    return load(tmp_path_factory.mktemp("reference"), rows)


def fitted_reference(dataset: Dataset, train=None) -> tuple[Reference, dict]:
    labels = {name: dataset.labels(name) for name in NAMES}
    return Reference.of(dataset, labels, np.arange(120) if train is None else train), labels


def accuracy(scores, labels, index) -> float:
    predicted = classification_metrics.predictions(scores.at(labels.attribute, index), labels.cardinality)
    return classification_metrics.accuracy(predicted, labels.truth[index])


def test_each_reference_learns_what_its_modality_shows(dataset):
    """The pictures show the colour, every second title names it; only the titles name the material."""
    reference, labels = fitted_reference(dataset)
    index = np.arange(120, 200)
    color = {name: accuracy(reference.scores(name, index), labels["color"], index) for name in REFERENCES}
    material = {name: accuracy(reference.scores(name, index), labels["material"], index) for name in REFERENCES}
    chance = 1 / len(labels["color"].values)
    assert chance + 0.1 < color["reference_text"] < 0.9 < color["reference_image"] <= color["reference_both"]
    assert material["reference_image"] < 0.5 < 0.9 < min(material["reference_text"], material["reference_both"])


def test_scores_are_probabilities_in_the_order_of_the_index(dataset):
    reference, labels = fitted_reference(dataset)
    index = np.array([121, 150, 199])
    scores = reference.scores("reference_both", index)
    alone = reference.scores("reference_both", index[1:2])
    for name in NAMES:
        assert scores.probabilities[name].shape == (3, len(labels[name].values))
        np.testing.assert_allclose(scores.at(name, index[1:2]), alone.probabilities[name])
    np.testing.assert_allclose(scores.probabilities["color"].sum(axis=1), 1)
    assert not np.allclose(scores.probabilities["material"].sum(axis=1), 1)  # each value against the rest


def test_a_value_that_the_train_fold_lacks_has_probability_0_and_a_value_of_all_has_1(dataset):
    color = dataset.labels("color")
    red = np.flatnonzero(color.truth[:, color.values.index("Red")])
    reference, labels = fitted_reference(dataset, red)
    probabilities = reference.scores("reference_image", np.arange(20)).probabilities["color"]
    expected = np.zeros(len(labels["color"].values))
    expected[labels["color"].values.index("Red")] = 1
    np.testing.assert_array_equal(probabilities, np.tile(expected, (20, 1)))
    others = np.flatnonzero(~color.truth[:, color.values.index("Red")])
    reference, _ = fitted_reference(dataset, others)
    probabilities = reference.scores("reference_image", np.arange(20)).probabilities["color"]
    assert (probabilities[:, labels["color"].values.index("Red")] == 0).all()


def test_histograms_count_the_colours_of_the_centre(dataset):
    """Against a plain loop over the pixels."""
    histograms = color_histograms(dataset)
    assert histograms.shape == (200, 512)
    assert not histograms[7].any(), "no picture, no colours"
    np.testing.assert_allclose((np.delete(histograms, 7, axis=0) ** 2).sum(axis=1), 1)
    counts = np.zeros(512)
    for row in dataset.pixels[3][8:24, 8:24].reshape(-1, 3).tolist():
        red, green, blue = (value // 32 for value in row)
        counts[64 * red + 8 * green + blue] += 1
    np.testing.assert_allclose(histograms[3], np.sqrt(counts / 256))


def test_the_margin_of_a_picture_is_not_counted(dataset):
    before = color_histograms(dataset)[0]
    pixels = np.array(dataset.pixels)
    pixels[0, :8] = pixels[0, 24:] = [round(255 * part) for part in colorsys.hsv_to_rgb(0.3, 1, 1)]
    changed = Dataset(DICTIONARY, ids=dataset.ids, pictures=dataset.pictures, pixels=pixels)
    np.testing.assert_array_equal(color_histograms(changed)[0], before)


def test_words_have_the_weights_of_the_tf_idf_formula():
    """Sublinear TF-IDF with scikit-learn's smoothed idf, by hand; words that are not in a train title are unknown."""
    titles = ["red red shirt", "blue shirt", "green hat"]
    tfidf = title_words(titles, np.array([0, 1])).toarray()
    assert not tfidf[2].any()
    # the features of the second title, in any order: blue, shirt, "blue shirt"; two train titles
    once, twice = np.log(3 / 2) + 1, np.log(3 / 3) + 1
    weights = np.array([once, twice, once])
    np.testing.assert_allclose(sorted(tfidf[1][tfidf[1] > 0]), sorted(weights / np.linalg.norm(weights)))
    # red (twice), shirt, "red red", "red shirt"
    weights = np.array([(1 + np.log(2)) * once, twice, once, once])
    np.testing.assert_allclose(sorted(tfidf[0][tfidf[0] > 0]), sorted(weights / np.linalg.norm(weights)))


def test_titles_without_a_word_have_zero_features():
    assert not title_words(["", "!"], np.array([0, 1])).toarray().any()
