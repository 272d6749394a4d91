"""The reference models of every comparison: logistic regression on TF-IDF of the title and on a colour histogram.

No network and no tuned parameter. The features are TF-IDF of the title (one and two words, sublinear), the square root
of a colour histogram of the picture's centre, and both concatenated. Each feature vector has length one, so that text
and picture have the same weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.word_experts import INVERSE_PENALTY

if TYPE_CHECKING:
    from catalog_enrichment.training.task import ModalitiesUsed

MODALITIES: dict[str, ModalitiesUsed] = dict(zip(REFERENCES, ("text", "image", "both"), strict=True))
"""Reference -> the modalities that it uses."""
LEVELS = 8
"""Levels per colour channel: 8 x 8 x 8 bins."""
CENTRE = 0.5
"""Share of each side of the picture that is counted; the margin is mostly background."""
_PICTURES_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Reference:
    """The features of N products, and the labels of the products that are trained on."""

    features: Mapping[str, Any]
    """Name (see REFERENCES) -> (N, F) sparse matrix."""
    train: Index
    labels: Mapping[str, Labels]

    @classmethod
    def of(cls, dataset: Dataset, labels: Mapping[str, Labels], train: Index) -> Reference:
        """Compute the features. ``train``: the products whose labels are learned; the TF-IDF vocabulary is of their
        titles."""
        from scipy.sparse import csr_matrix, hstack

        words = title_words(dataset.titles, train)
        colors = csr_matrix(color_histograms(dataset))
        return cls(dict(zip(REFERENCES, (words, colors, hstack([words, colors]).tocsr()), strict=True)), train, labels)

    def scores(self, name: str, index: Index) -> ModelScores:
        """Fit the reference ``name`` and return the probabilities of the products at ``index`` (ascending)."""
        from threadpoolctl import threadpool_limits

        features = self.features[name]
        # the matrices are so small that more threads are 20 times slower (measured)
        with threadpool_limits(limits=1):
            probabilities = {
                attribute: _probabilities(features, labels, where(self.train, labels.learnable), index)
                for attribute, labels in self.labels.items()
            }
        return ModelScores(index, probabilities)


def title_words(titles: list[str], train: Index) -> Any:
    """(N, F) sparse: TF-IDF with the vocabulary of the titles at ``train``; (N, 1) zeros if no title has a word."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        vectorizer.fit([titles[product] for product in train.tolist()])
    except ValueError:  # "empty vocabulary"
        return csr_matrix((len(titles), 1))
    return vectorizer.transform(titles)


def color_histograms(dataset: Dataset) -> NDArray[np.float64]:
    """(N, 512): the square root of each colour's share of the picture's centre; 0 for a product without a picture."""
    histograms = np.zeros((len(dataset), LEVELS**3))
    side = dataset.pixels.shape[1]
    margin = int(side * (1 - CENTRE) / 2)
    with_picture = np.flatnonzero(dataset.has_image)
    for start in range(0, len(with_picture), _PICTURES_AT_ONCE):
        rows = with_picture[start : start + _PICTURES_AT_ONCE]
        centre = np.asarray(dataset.pixels[rows])[:, margin : side - margin, margin : side - margin]
        level = (centre // (256 // LEVELS)).astype(np.int64).reshape(len(rows), -1, 3)  # (b, pixels, 3)
        bins = level @ np.array([LEVELS**2, LEVELS, 1])
        bins += LEVELS**3 * np.arange(len(rows))[:, None]
        counts = np.bincount(bins.ravel(), minlength=len(rows) * LEVELS**3).reshape(len(rows), -1)
        histograms[rows] = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    return histograms


def _probabilities(features: Any, labels: Labels, train: Index, index: Index) -> NDArray[np.float64]:
    """(n, V): a value that no product in ``train`` has gets the probability 0, a value that all have gets 1."""
    truth = labels.truth[train]
    if labels.cardinality is Cardinality.ONE:
        probabilities = np.zeros((len(index), len(labels.values)))
        classes, scores = _fit_and_predict(features, truth.argmax(axis=1), train, index)
        probabilities[:, classes] = scores
        return probabilities
    columns = [_fit_and_predict(features, truth[:, value], train, index) for value in range(truth.shape[1])]
    return np.column_stack([scores @ classes.astype(np.float64) for classes, scores in columns])  # P(class is 1)


def _fit_and_predict(
    features: Any, target: NDArray[Any], train: Index, index: Index
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the C classes in ``target``, and (n, C) probabilities of the products at ``index``."""
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(target).astype(np.int64)
    if len(classes) == 1:
        return classes, np.ones((len(index), 1))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    model.fit(features[train], target)
    return classes, np.asarray(model.predict_proba(features[index]), dtype=np.float64)
