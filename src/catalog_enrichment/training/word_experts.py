"""The fit of the experts of titles' words (:mod:`catalog_enrichment.models.title_words`): logistic regression on the
train fold; the share and the temperature of the pool are chosen on the choosing fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from catalog_enrichment.models.title_words import MOST_TERMS, TitleWords, Vocabulary, WordExpert, logits_of
from catalog_enrichment.precision.classification_metrics import MIN_PRODUCTS, fit_temperature
from catalog_enrichment.precision.units import Ints
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Folds, where
from catalog_enrichment.training.labels import Labels

SHARES = tuple(step / 10 for step in range(1, 11))
"""The shares that are tried."""
CLEARLY = 1.0
"""Standard errors by which an expert lowers the loss, at least: of eleven pools one is best by chance. The errors are
between content groups, and two of them would refuse most experts that help on a few hundred products to choose on."""
INVERSE_PENALTY = 10.0
"""scikit-learn's C. Rows of length one need a smaller penalty than the default, C = 1."""
MOST_WEIGHTS = 3_000_000
"""Weights of an expert: an attribute with more than 100 values gets fewer terms. The fit takes 200 bytes for each."""
_NEVER = -20.0
"""The bias of a value that no product of the train fold has."""


def fit_title_words(
    dataset: Dataset, folds: Folds, groups: Ints, labels: Mapping[str, Labels], scores: ModelScores
) -> TitleWords | None:
    """Return the experts that clearly lower the loss on the choosing fold, whose ``scores`` are the networks'; None if
    none does. ``groups``: (N,) content group of each product; ``labels``: of the attributes with a closed list.

    The loss is the negative log-likelihood, for attributes with several values the mean binary cross-entropy, of the
    products whose titles have a term of the vocabulary: the others keep the networks' probabilities.
    """
    widest = max((len(label.values) for label in labels.values()), default=1)
    titles = [dataset.titles[product] for product in folds.train.tolist()]
    vocabulary = Vocabulary.of(titles, min(MOST_TERMS, MOST_WEIGHTS // widest))
    if not vocabulary.terms:
        return None
    experts = {}
    for name, label in labels.items():
        train, choosing = where(folds.train, label.learnable), where(folds.choosing, label.learnable)
        features = vocabulary.features([dataset.titles[product] for product in choosing.tolist()])
        has_terms = np.diff(features.indptr) > 0
        choosing, features = choosing[has_terms], features[has_terms]
        if not len(train) or len(choosing) < MIN_PRODUCTS:
            continue
        titles = [dataset.titles[product] for product in train.tolist()]
        weights, bias = _fitted(vocabulary.features(titles), label.truth[train], label.cardinality)
        pool = _Pool(scores.at(name, choosing), features, label.truth[choosing].astype(bool), label.cardinality)
        alone, *others = [pool.expert(weights, bias, share) for share in (0.0, *SHARES)]
        best = min(others, key=lambda expert: pool.losses(expert).mean())
        gain = pool.losses(alone) - pool.losses(best)
        if gain.mean() > CLEARLY * _standard_error(gain, groups[choosing]):
            experts[name] = best
    return TitleWords(vocabulary, experts) if experts else None


def shares_of(words: TitleWords | None) -> str:
    """Return a line of progress: the share of every expert."""
    shares = [f"{name} {expert.share:.1f}" for name, expert in words.experts.items()] if words else []
    return f"titles' words: {', '.join(shares) or 'they clearly improve no attribute'}"


def _standard_error(gain: NDArray[np.float64], groups: Ints) -> float:
    """Return the standard error of the mean of ``gain`` (n,), whose products are independent only between ``groups``
    (n,): the words of a group are the same, and so is what they gain by chance. Infinite for a single group."""
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, gain - gain.mean())
    if len(sums) < 2:
        return np.inf
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(gain))


class _Pool:
    """Pools on the choosing fold, n products."""

    def __init__(
        self, probabilities: NDArray[Any], features: Any, truth: NDArray[np.bool_], cardinality: Cardinality
    ) -> None:
        self.probabilities, self.features, self.truth, self.cardinality = probabilities, features, truth, cardinality

    def expert(self, weights: NDArray[np.float32], bias: NDArray[np.float32], share: float) -> WordExpert:
        """Return the expert with the temperature that is best for ``share``."""
        rough = WordExpert(weights, bias, share, 1.0)
        logits = logits_of(rough.pooled(self.probabilities, self.features, self.cardinality), self.cardinality)
        return WordExpert(weights, bias, share, fit_temperature(logits, self.truth, self.cardinality))

    def losses(self, expert: WordExpert) -> NDArray[np.float64]:
        """(n,) the products' losses by the pool with ``expert``."""
        logits = logits_of(expert.pooled(self.probabilities, self.features, self.cardinality), self.cardinality)
        if self.cardinality is Cardinality.ONE:
            return np.asarray(-special.log_softmax(logits, axis=1)[self.truth])
        return np.asarray((np.logaddexp(0.0, logits) - logits * self.truth).mean(axis=1))


def _fitted(
    features: Any, truth: NDArray[np.bool_], cardinality: Cardinality
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights (F, V) and bias (V,) of logistic regression: one for all values, or one for each of several."""
    from threadpoolctl import threadpool_limits

    width = truth.shape[1]
    weights, bias = np.zeros((features.shape[1], width), dtype=np.float32), np.full(width, _NEVER, dtype=np.float32)
    with threadpool_limits(limits=1):  # the matrices are so small that more threads are slower
        if cardinality is Cardinality.ONE:
            _fill(weights, bias, features, truth.argmax(axis=1))
            return weights, bias
        for value in range(width):
            of_value, at = np.zeros((len(weights), 2), dtype=np.float32), np.full(2, _NEVER, dtype=np.float32)
            _fill(of_value, at, features, truth[:, value].astype(np.int64))
            weights[:, value], bias[value] = of_value[:, 1] - of_value[:, 0], at[1] - at[0]
    return weights, bias


def _fill(weights: NDArray[np.float32], bias: NDArray[np.float32], features: Any, target: Sequence[int] | Any) -> None:
    """Fit ``target`` (n,), columns of ``weights``, and fill in the weights and the bias of the columns in it."""
    from sklearn.linear_model import LogisticRegression

    columns = np.unique(target)
    if len(columns) == 1:
        bias[columns] = 0
        return
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features, target)
    if len(columns) == 2:  # scikit-learn gives the second column's log odds alone
        weights[:, columns[1]], bias[columns] = model.coef_[0], (0, model.intercept_[0])
        return
    weights[:, columns], bias[columns] = model.coef_.T, model.intercept_
