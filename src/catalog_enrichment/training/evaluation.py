"""Metrics of a model on held-out products, and warnings for a fused model that uses only one modality. numpy only.

There are two kinds (PRECISION, "Reporting"). Metrics of the scores (F1, R@P95, curves) are over all products of the
fold with text and picture, so that the whole model, its masked inputs and the unimodal baselines are compared on the
same products; where no product of the training data has a picture, over all products of the fold. Certified metrics
(recall and precision at the certified thresholds) are over all labelled products of the fold, with and without a
picture (:mod:`catalog_enrichment.precision.certified_recall`).

True values that are not learned count in every denominator. Shapes: n products, V learned values.

Modality collapse (De la Comble et al. 2022, section 4.2): fusion may give one modality a weight close to 1 for almost
all products and neglect the other. The weight is not sufficient evidence, because the neglected modality may carry no
information (pictures rarely show the material). It is therefore compared with the recall lost when a modality is
masked, and with the recall of a model of that modality alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision import classification_metrics as metrics
from catalog_enrichment.precision.classification_metrics import pairs_from
from catalog_enrichment.precision.units import Bools, Ints, ratio
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.labels import Labels

BOTH = "both"
"""The whole model, in tables and metric names; beside `image_masked`, `text_masked`, `image_only`, `text_only`."""
ATTENTION_BINS = 20
ATTENTION_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WORST_PAIRS = 20

COLLAPSED_ATTENTION = 0.95
"""An attention weight of at least this much on one modality counts as collapsed."""
COLLAPSED_PRODUCT_SHARE = 0.9
"""The model has collapsed if at least this share of the products has collapsed attention."""
MINIMUM_RECALL_DIFFERENCE = 0.05
"""A smaller difference of R@P95 (or a smaller unimodal R@P95) is within the noise of small test folds."""
NEGLIGIBLE_RECALL_COST = 0.01
"""A modality is hardly used if masking it costs less R@P95 than this."""


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of n products by a model."""

    index: Index
    """Positions of n products, ascending."""
    probabilities: Mapping[str, NDArray[Any]]
    """Attribute -> (n, V)."""
    attention: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Attribute -> (n,) attention weight on the text; missing if the fusion has none, NaN where it is not defined."""
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """(n, D): the encoders' vectors; empty where they are not needed."""
    proposed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute without a closed list -> (n,) the value that is proposed; "" where none is."""

    def at(self, attribute: str, index: Index) -> NDArray[Any]:
        """(n, V) probabilities of the products at ``index``; all of them must have been scored."""
        return self.probabilities[attribute][np.searchsorted(self.index, index)]

    def vectors_at(self, index: Index) -> NDArray[np.float32]:
        """(n, D) vectors of the products at ``index``; all of them must have been scored."""
        return self.vectors[np.searchsorted(self.index, index)]

    def weights(self, attribute: str, index: Index) -> NDArray[Any] | None:
        """(n,) weight on the text of the products at ``index``; None if the fusion has none."""
        weights = self.attention.get(attribute)
        return None if weights is None else weights[np.searchsorted(self.index, index)]


@dataclass(slots=True)
class Evaluation:
    """The metrics, tables and curves of a model, as plain data for MLflow and the training page."""

    metrics: dict[str, float] = field(default_factory=dict)
    """``attribute/metric`` for the whole model, ``attribute/modality/metric`` for masked inputs and baselines."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`modalities`, `values`, `certified`, `confusions`: lists of rows."""
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`precision_recall` by attribute and modality, `reliability` and `attention` by attribute: lists of numbers."""
    warnings: list[str] = field(default_factory=list)
    """Messages for the person who trained the model; filled by :meth:`check_modality_collapse`."""

    def add_modality(
        self, modality: str, labels: Labels, scores: ModelScores, index: Index, groups: Ints | None = None
    ) -> None:
        """Add the metrics of one attribute and modality, over the labelled products of ``index``.

        ``groups`` (N,): content group of every product of the data set; the intervals of the whole model resample
        groups. None: every product is a group.
        """
        index = index[labels.labelled[index]]
        probabilities = scores.at(labels.attribute, index)
        row = attribute_metrics(probabilities, labels, index)
        prefix = labels.attribute if modality == BOTH else f"{labels.attribute}/{modality}"
        self.metrics |= {f"{prefix}/{name}": value for name, value in row.items()}
        self._table("modalities").append({"attribute": labels.attribute, "modality": modality, **row})
        curve = _curve(probabilities, labels, index)
        self.curves.setdefault("precision_recall", {}).setdefault(labels.attribute, {})[modality] = curve
        if modality == BOTH:
            self._table("values").extend(metrics_by_value(probabilities, labels, index))
            self._table("confusions").extend(confusions(probabilities, labels, index))
            self.curves.setdefault("reliability", {})[labels.attribute] = _reliability(probabilities, labels, index)
            self.add_attention(labels.attribute, scores.weights(labels.attribute, index))
            for name, interval in intervals(probabilities, labels, index, groups).items():
                self.metrics |= {f"{prefix}/{name}_low": interval.low, f"{prefix}/{name}_high": interval.high}

    def add_certified(self, attribute: str, row: Mapping[str, float]) -> None:
        """Add the certified metrics of ``attribute`` on the test fold; ``row`` as of
        :func:`catalog_enrichment.precision.certified_recall.certified_metrics`."""
        self.metrics |= {f"{attribute}/certified_{name}": value for name, value in row.items()}
        self._table("certified").append({"attribute": attribute, **row})

    def check_modality_collapse(self) -> list[str]:
        """Fill and return ``warnings``. Call it after every attribute and modality was added, baselines included."""
        self.warnings = collapse_warnings(self.tables.get("modalities", []), self.curves.get("attention", {}))
        return self.warnings

    def add_attention(self, attribute: str, weights: NDArray[Any] | None) -> None:
        """Add the distribution of the attention weights on the text, (n,); None for a fusion without attention."""
        if weights is None or not np.isfinite(weights).any():
            return
        known = weights[np.isfinite(weights)].astype(np.float64)
        counts, edges = np.histogram(known, bins=ATTENTION_BINS, range=(0.0, 1.0))
        self.curves.setdefault("attention", {})[attribute] = {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "quantiles": np.quantile(known, ATTENTION_QUANTILES).tolist(),
        }
        self.metrics[f"{attribute}/attention_text_mean"] = float(known.mean())

    def _table(self, name: str) -> list[dict[str, Any]]:
        return self.tables.setdefault(name, [])


def attribute_metrics(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, float]:
    """Return accuracy, F1 and R@P95 of one attribute; (n, V) probabilities of the products at ``index``.

    Values that are not learned are one class that is never predicted; it counts in accuracy, in micro and weighted F1
    and in the denominator of the micro R@P95. The macro averages are over the learned values; head and tail (Chen et
    al. 2022) divide these by their number of labelled products in the whole data set.
    """
    predicted = metrics.predictions(probabilities, labels.cardinality)
    truth, unlearned = labels.truth[index], labels.unlearned[index]
    all_predicted, all_true = _with_unlearned(predicted, truth, unlearned)
    overall, known = metrics.f1(all_predicted, all_true), metrics.f1(predicted, truth)
    head, tail = metrics.f1_head_tail(predicted, truth, labels.truth.sum(axis=0))
    pairs = pairs_from(probabilities, truth, labels.cardinality)
    pooled = replace(pairs, positives=np.append(pairs.positives, unlearned.sum()))
    return {
        "products": float(len(index)),
        "accuracy": metrics.accuracy(all_predicted, all_true),
        "f1_micro": overall.micro,
        "f1_macro": known.macro,
        "f1_weighted": overall.weighted,
        "f1_head": head,
        "f1_tail": tail,
        "r_at_p95_micro": metrics.r_at_p_micro(pooled).recall,
        "r_at_p95_macro": metrics.r_at_p_macro(pairs),
    }


def measures(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, bootstrap.Measure]:
    """Return the metrics of :func:`attribute_metrics`, by the same names, in a form that can be resampled."""
    predicted = metrics.predictions(probabilities, labels.cardinality)
    truth, unlearned = labels.truth[index], labels.unlearned[index]
    all_predicted, all_true = _with_unlearned(predicted, truth, unlearned)
    head = metrics.head_labels(labels.truth.sum(axis=0))
    return {
        "accuracy": bootstrap.accuracy(all_predicted, all_true),
        "f1_micro": bootstrap.f1_micro(all_predicted, all_true),
        "f1_macro": bootstrap.f1_macro(predicted, truth),
        "f1_weighted": bootstrap.f1_weighted(all_predicted, all_true),
        "f1_head": bootstrap.f1_macro(predicted[:, head], truth[:, head]),
        "f1_tail": bootstrap.f1_macro(predicted[:, ~head], truth[:, ~head]),
        "r_at_p95_micro": bootstrap.r_at_p_micro(probabilities, truth, labels.cardinality, unlearned),
        "r_at_p95_macro": bootstrap.r_at_p_macro(probabilities, truth, labels.cardinality),
    }


def intervals(
    probabilities: NDArray[Any], labels: Labels, index: Index, groups: Ints | None = None
) -> dict[str, bootstrap.Interval]:
    """Return 95% bootstrap intervals of :func:`measures`; ``groups`` (N,) as in :meth:`Evaluation.add_modality`."""
    group_of_product = np.arange(len(index)) if groups is None else groups[index]
    return bootstrap.intervals(measures(probabilities, labels, index), bootstrap.Resamples(group_of_product))


def metrics_by_value(probabilities: NDArray[Any], labels: Labels, index: Index) -> list[dict[str, Any]]:
    """Return support, precision, recall, F1 and R@P95 of every learned value, most frequent first."""
    truth = labels.truth[index]
    predicted = metrics.predictions(probabilities, labels.cardinality)
    hits, support = (predicted & truth).sum(axis=0), truth.sum(axis=0)
    precision, recall = ratio(hits, predicted.sum(axis=0)), ratio(hits, support)
    f1 = metrics.f1(predicted, truth).per_label
    pairs = pairs_from(probabilities, truth, labels.cardinality)
    rows = [
        {
            "attribute": labels.attribute,
            "value": value,
            "support": int(support[column]),
            "precision": float(precision[column]),
            "recall": float(recall[column]),
            "f1": float(f1[column]),
            "r_at_p95": metrics.operating_point(*pairs.of(column), 0.95).recall,
        }
        for column, value in enumerate(labels.values)
    ]
    return sorted(rows, key=lambda row: -row["support"])


def confusions(probabilities: NDArray[Any], labels: Labels, index: Index) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true value and a wrong prediction. A wrong prediction is paired with every
    true value of the product that was not predicted."""
    predicted = metrics.predictions(probabilities, labels.cardinality)
    truth = labels.truth[index]
    pairs: Counter[tuple[str, str]] = Counter()
    for product in np.flatnonzero((predicted & ~truth).any(axis=1)):
        missed = [labels.values[column] for column in np.flatnonzero(truth[product] & ~predicted[product])]
        if labels.is_open:
            missed = [labels.right[index[product]]]
        for column in np.flatnonzero(predicted[product] & ~truth[product]).tolist():
            proposed = labels.value(int(index[product]), column) or "(nothing)"
            pairs.update((true, proposed) for true in missed or ["(a value not learned)"])
    return [
        {"attribute": labels.attribute, "true": true, "predicted": predicted, "products": count}
        for (true, predicted), count in pairs.most_common(WORST_PAIRS)
    ]


def _with_unlearned(predicted: Bools, truth: Bools, unlearned: Ints) -> tuple[Bools, Bools]:
    """Return predictions and truth, (n, V + 1) each: the last column stands for all values that are not learned."""
    never = np.zeros(len(predicted), dtype=bool)
    return np.column_stack([predicted, never]), np.column_stack([truth, unlearned > 0])


def _curve(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, list[float]]:
    pairs = pairs_from(probabilities, labels.truth[index], labels.cardinality)
    positives = int(pairs.positives.sum() + labels.unlearned[index].sum())
    curve = metrics.precision_recall_curve(pairs.scores, pairs.correct, positives)
    return {name: getattr(curve, name).tolist() for name in ("thresholds", "precision", "recall")}


def _reliability(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, Any]:
    pairs = pairs_from(probabilities, labels.truth[index], labels.cardinality)
    bins = metrics.reliability(pairs.scores, pairs.correct)
    return {
        "confidence": bins.confidence.tolist(),
        "accuracy": bins.accuracy.tolist(),
        "count": bins.count.tolist(),
        "expected_error": bins.expected_error,
    }


# --- modality collapse -------------------------------------------------------------------------------------------


def collapse_warnings(
    modalities: Sequence[Mapping[str, Any]], attention: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[str]:
    """Return a warning per attribute whose model has collapsed onto one modality.

    ``modalities``: rows with `attribute`, `modality` and `r_at_p95_micro`; rows of a masked modality or a baseline
    may be missing. ``attention``: attribute -> histogram (`edges`, `counts`) of the weight on the text, for fusions
    with such a weight. A modality is neglected if either

    - the other has at least COLLAPSED_ATTENTION of the attention for COLLAPSED_PRODUCT_SHARE of the products, masking
      the neglected modality loses less than MINIMUM_RECALL_DIFFERENCE, and a model of it alone, where it was fitted,
      reaches MINIMUM_RECALL_DIFFERENCE; or
    - masking it loses less than NEGLIGIBLE_RECALL_COST, masking the other at least MINIMUM_RECALL_DIFFERENCE, and the
      recall that is then left is less than half the recall of a model of the neglected modality alone.
    """
    warnings: list[str] = []
    for attribute in dict.fromkeys(str(row["attribute"]) for row in modalities):
        recall = {row["modality"]: float(row["r_at_p95_micro"]) for row in modalities if row["attribute"] == attribute}
        for weak, strong in (("image", "text"), ("text", "image")):
            suspicion = _Neglect(weak, strong, recall, _collapsed_share(strong, attention.get(attribute)))
            if suspicion.by_attention or suspicion.by_masking:
                warnings.append(f"{attribute}: {suspicion.sentence()}")
    return warnings


def _collapsed_share(modality: str, histogram: Mapping[str, Sequence[float]] | None) -> float | None:
    """Return the share of the products with at least COLLAPSED_ATTENTION on ``modality``, by the histogram of the
    text's weight."""
    if histogram is None:
        return None
    edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
    tolerance = 1e-9  # the edges are multiples of 0.05, rounded
    least = edges[:-1] if modality == "text" else 1 - edges[1:]
    return float(counts[least >= COLLAPSED_ATTENTION - tolerance].sum() / max(counts.sum(), 1))


@dataclass(frozen=True, slots=True)
class _Neglect:
    """The suspicion that a model of both modalities hardly uses one of them."""

    weak: str
    strong: str
    recall: Mapping[str, float]
    """Modality, as in the table `modalities` -> R@P95."""
    attention: float | None
    """Share of the products with collapsed attention on the strong modality; None without attention."""

    @property
    def cost(self) -> float | None:
        """R@P95 lost when the weak modality is masked; None if it was not measured."""
        return self._cost_of(self.weak)

    @property
    def unimodal(self) -> float | None:
        """R@P95 of a model of the weak modality alone."""
        return self.recall.get(f"{self.weak}_only")

    @property
    def collapsed(self) -> bool:
        return self.attention is not None and self.attention >= COLLAPSED_PRODUCT_SHARE

    @property
    def by_attention(self) -> bool:
        cheap = self.cost is None or self.cost < MINIMUM_RECALL_DIFFERENCE
        return self.collapsed and cheap and (self.unimodal is None or self.unimodal >= MINIMUM_RECALL_DIFFERENCE)

    @property
    def by_masking(self) -> bool:
        strong_cost = self._cost_of(self.strong)
        if self.cost is None or strong_cost is None or self.unimodal is None:
            return False
        useful = min(strong_cost, self.unimodal) >= MINIMUM_RECALL_DIFFERENCE
        return self.cost < NEGLIGIBLE_RECALL_COST and useful and self._masked(self.strong) < self.unimodal / 2

    def sentence(self) -> str:
        """Return the evidence and advice."""
        weak, strong = ("picture" if name == "image" else name for name in (self.weak, self.strong))
        alone, evidence = f"a model of the {weak} alone", []
        if self.collapsed:
            evidence.append(
                f"attention on the {strong} >= {COLLAPSED_ATTENTION} for {self.attention:.0%} of the products"
            )
        if self.cost is not None:
            lost = f"costs {100 * self.cost:.1f} points of R@P95" if self.cost > 0 else "costs no R@P95"
            although = "" if self.unimodal is None else f" although {alone} reaches {self.unimodal:.1%}"
            evidence.append(f"masking the {weak} {lost}{although}")
        elif self.unimodal is not None:
            evidence.append(f"{alone} reaches {self.unimodal:.1%} R@P95")
        if f"{self.strong}_masked" in self.recall and self.unimodal is not None:
            evidence.append(f"with the {strong} masked this model reaches {self._masked(self.strong):.1%}")
        advice = "Raise fit.kl_lambda, which pulls the weights towards one half"
        if self.attention is None:
            advice = 'Try model.fusion.kind = "modality_attention" with fit.kl_lambda > 0'
        unknown = f" It is not known what {alone} reaches: set training.unimodal_baselines = true."
        return (
            f"the {weak} is hardly used ({'; '.join(evidence)}). {advice} (De la Comble et al. 2022, section 4.2), and "
            f"keep it if R@P95 rises.{unknown if self.unimodal is None else ''}"
        )

    def _masked(self, modality: str) -> float:
        return self.recall[f"{modality}_masked"]

    def _cost_of(self, modality: str) -> float | None:
        known = BOTH in self.recall and f"{modality}_masked" in self.recall
        return self.recall[BOTH] - self._masked(modality) if known else None
