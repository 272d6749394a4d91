"""Certification of a threshold: select the pool on one fold, set a grid without labels, test it on another fold.

Learn-then-Test with a fixed sequence (Angelopoulos, Bates, Candes, Jordan, Lei 2021): thresholds are tested from the
highest down, the first failure stops the sequence, the last success is certified. Then
P(true precision < target) <= delta, without Bonferroni and without monotonicity, under three conditions that this
module enforces:

- the pool comes from the calibration fold, the grid from unlabelled products; neither uses certification labels
  (:class:`Pool` is made of a :class:`CalibrationScores` only, and refuses folds that share a content group);
- units are independent: one product per content group (:class:`CertificationScores` refuses a second one);
- the k-th candidate on the same labels is tested at a smaller delta (:func:`spent_delta`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.classification_metrics import Bools, Floats, as_scores
from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS, Certificate, ThresholdTest
from catalog_enrichment.precision.metrics import operating_point, p_not_certified, precision_lower_bound
from catalog_enrichment.precision.units import (
    WRITABLE_RANKS,
    Units,
    accept_scores,
    pairs_from,
    units_from,
)
from catalog_enrichment.records import Cardinality, Modality

FLOOR = 59
"""With fewer accepted units 95% cannot be certified at delta 0.05, even without errors."""


@dataclass(frozen=True, kw_only=True)
class ScoredLabels:
    """Scored and labelled products of one attribute, on one modality path."""

    attribute: str
    labels: tuple[str, ...]
    cardinality: Cardinality
    probabilities: NDArray[Any]  # (n, V) calibrated
    truth: Bools  # (n, V)
    groups: NDArray[Any]
    """(n,) content group of each product."""

    def __post_init__(self) -> None:
        shapes = {np.shape(self.probabilities), np.shape(self.truth), (len(self.groups), len(self.labels))}
        if len(shapes) != 1:
            raise ValueError(f"fold of {self.attribute}: scores, truth, groups and labels do not fit: {shapes}")


@dataclass(frozen=True, kw_only=True)
class CalibrationScores(ScoredLabels):
    """Calibration fold: temperature, pool and suggestion threshold are chosen here."""


@dataclass(frozen=True, kw_only=True)
class CertificationScores(ScoredLabels):
    """Certification fold: only tests the choices made elsewhere. One product per content group."""

    categories: Sequence[str | None]
    languages: Sequence[str | None]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(np.unique(self.groups)) != len(self.groups):
            raise ValueError(
                f"certification fold of {self.attribute}: each content group must have one product, not several"
            )


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Counts of one value on the calibration fold at the pooled calibration threshold."""

    value: str
    accepted: int
    right: int
    in_pool: bool


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Choices made on the calibration fold for one attribute, by :func:`select_pool`."""

    attribute: str
    labels: tuple[str, ...]
    cardinality: Cardinality
    mask: Bools  # (V,)
    calibration_threshold: float | None
    value_counts: tuple[ValueCounts, ...]
    suggest_threshold: float | None
    groups: NDArray[Any] = field(repr=False)
    """Content groups of the calibration fold, which must not be used to certify."""

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(label for label, inside in zip(self.labels, self.mask.tolist(), strict=True) if inside)


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateBinding:
    """The model, the labels and the time that a certificate is bound to."""

    modality: Modality
    weights_hash: str
    numeric_path: str
    preprocessing_hash: str
    label_set_hash: str
    use_count: int
    """How many candidates were certified on these labels, this one included (:class:`LabelUse`)."""
    data_window: str
    issued_at: datetime

    def __post_init__(self) -> None:
        if self.use_count < 1:
            raise ValueError(f"use_count includes this use, so it must be at least 1, not {self.use_count}")


@dataclass(frozen=True, slots=True)
class LabelUse:
    """That a model is certified on the labels of a certification fold."""

    number: int
    """How many candidates were certified on these labels, this one included: at least 1."""
    epoch: int
    """Number of the certification fold, from 0; a new one is drawn of products that never certified."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"number includes this use, so it must be at least 1, not {self.number}")


def spent_delta(delta: float, number: int) -> float:
    """The delta at which the ``number``-th candidate on the same labels is tested: ``delta`` for the first, then
    ``delta / (number * (number + 1))``. All together spend at most 1.5 delta (PRECISION, certificate 6)."""
    return delta if number == 1 else delta / (number * (number + 1))


def suggest_threshold(calibration: CalibrationScores, precision: float, below: float | None) -> float | None:
    """The lowest score from which (product, value) pairs up to ``below`` are right with ``precision``; descriptive.

    Pairs above the band are left out: they are written, and their precision is higher than that of the suggestions.
    """
    pairs = pairs_from(calibration.probabilities, calibration.truth, calibration.cardinality, WRITABLE_RANKS)
    band = pairs.scores < (np.inf if below is None else below)
    return operating_point(pairs.scores[band], pairs.correct[band], pairs.total, precision).threshold


def select_pool(
    calibration: CalibrationScores, rule: PrecisionConfig, min_support: int = 5, slack: float = 0.05
) -> Pool:
    """The values of the pooled certificate, selected on the calibration fold only.

    Rule: start with every value. At the pooled calibration threshold (the lowest at which the pool's units reach
    ``rule.target``, with at least ``min_support`` accepted) a value whose precision is below ``target - slack``
    is removed. If there is no such threshold, the value with most errors among the 59 best-scored pairs is removed.
    Repeat with the remaining values, whose threshold is then lower, until none is removed. Of the remaining values,
    those with at least ``min_support`` accepted are the pool.
    """
    remaining = np.ones(len(calibration.labels), dtype=bool)
    while True:
        threshold = _pooled_threshold(calibration, remaining, rule.target, min_support)
        if threshold is None:
            worst = _most_wrong_at_the_top(calibration, remaining)
            if worst is None:
                remaining[:] = False
                break
            remaining[worst] = False
            continue
        accepted, right = _value_counts(calibration, remaining, threshold)
        poor = remaining & (accepted >= min_support) & (right < (rule.target - slack) * accepted - 1e-9)
        if not poor.any():
            break
        remaining &= ~poor
    return _pool(calibration, rule, threshold, remaining, min_support)


def _pool(
    calibration: CalibrationScores, rule: PrecisionConfig, threshold: float | None, remaining: Bools, min_support: int
) -> Pool:
    at = np.inf if threshold is None else threshold
    accepted, right = _value_counts(calibration, np.ones_like(remaining), at)
    mask = remaining & (accepted >= min_support)
    rows = zip(calibration.labels, accepted.tolist(), right.tolist(), mask.tolist(), strict=True)
    return Pool(
        attribute=calibration.attribute,
        labels=calibration.labels,
        cardinality=calibration.cardinality,
        mask=mask,
        calibration_threshold=threshold,
        value_counts=tuple(ValueCounts(*row) for row in rows),
        suggest_threshold=suggest_threshold(calibration, rule.suggest_precision, below=threshold),
        groups=np.unique(calibration.groups),
    )


def _pooled_threshold(fold: CalibrationScores, remaining: Bools, target: float, min_support: int) -> float | None:
    units = units_from(fold.probabilities, fold.truth, fold.cardinality, remaining)
    # a unit can become wrong at a lower threshold than it becomes accepted, so both are counted at every threshold
    thresholds = np.unique(units.accept[np.isfinite(units.accept)])
    accepted = len(units) - np.searchsorted(np.sort(units.accept), thresholds, side="left")
    wrong = len(units) - np.searchsorted(np.sort(units.error), thresholds, side="left")
    good = (accepted >= min_support) & ((accepted - wrong) / np.maximum(accepted, 1) >= target)
    return float(thresholds[good][0]) if good.any() else None


def _value_counts(fold: CalibrationScores, remaining: Bools, threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """(V,) accepted and right pairs of each value in ``remaining`` at ``threshold``."""
    pairs = pairs_from(fold.probabilities, fold.truth, fold.cardinality, WRITABLE_RANKS)
    taken = (pairs.scores >= threshold) & remaining[pairs.values]
    counts = [np.bincount(pairs.values[chosen], minlength=len(remaining)) for chosen in (taken, taken & pairs.correct)]
    return counts[0], counts[1]


def _most_wrong_at_the_top(fold: CalibrationScores, remaining: Bools) -> int | None:
    """Column of the value with most errors among the 59 best-scored pairs; None if there is no error."""
    pairs = pairs_from(fold.probabilities, fold.truth, fold.cardinality, WRITABLE_RANKS)
    eligible = np.flatnonzero(remaining[pairs.values])
    top = eligible[np.argsort(-pairs.scores[eligible], kind="stable")[:FLOOR]]
    wrong = np.bincount(pairs.values[top][~pairs.correct[top]], minlength=len(remaining))
    return int(wrong.argmax()) if wrong.any() else None


def threshold_grid(
    unlabelled_scores: ArrayLike, n_units: int, first_expected: int = 150, ratio: float = 1.05, floor: int = FLOOR
) -> Floats:
    """Thresholds to test, strictly decreasing, chosen without any label.

    Quantiles of the accept scores of unlabelled products (-inf: never accepted) at which ``n_units`` products of the
    same catalog have ``first_expected * ratio^j`` accepted ones, up to all that can be accepted. If fewer than
    ``first_expected`` can be, the sequence starts at ``floor``; if fewer than ``floor`` can be, it is empty.
    """
    scores = np.sort(np.asarray(unlabelled_scores, dtype=np.float64))[::-1]
    reachable = int(np.count_nonzero(np.isfinite(scores)))
    if not reachable:
        return np.empty(0)
    most = n_units * reachable / len(scores)
    start = first_expected if most >= first_expected else floor
    if most < start:
        return np.empty(0)
    steps = int(np.floor(np.log(most / start) / np.log(ratio))) + 1
    expected = np.append(start * ratio ** np.arange(steps), most)
    ranks = np.ceil(expected / n_units * len(scores) - 1e-9).astype(np.int64)
    return np.unique(scores[np.clip(ranks, 1, reachable) - 1])[::-1]


def fixed_sequence(units: Units, grid: Floats, target: float, delta: float) -> tuple[ThresholdTest, ...]:
    """Test the grid in order and stop at the first p > delta. The last threshold that passed is certified."""
    if np.any(np.diff(grid) >= 0):
        raise ValueError("the grid of a fixed sequence must be strictly decreasing")
    steps: list[ThresholdTest] = []
    for threshold in grid.tolist():
        n, k = units.counts(threshold)
        p = p_not_certified(n, k, target)
        steps.append(ThresholdTest(threshold, n, k, p, precision_lower_bound(n, k, delta), passed=p <= delta))
        if p > delta:
            break
    return tuple(steps)


def last_passed(steps: Sequence[ThresholdTest]) -> ThresholdTest | None:
    """The last test that passed, None if none did."""
    return next((step for step in reversed(steps) if step.passed), None)


def certify_attribute(
    pool: Pool,
    certification: CertificationScores,
    unlabelled: ArrayLike,
    rule: PrecisionConfig,
    binding: CertificateBinding,
) -> Certificate:
    """Test one attribute and issue its certificate, which is an abstention where the test fails.

    ``unlabelled``: (m, V) probabilities of catalog products without labels, on the same modality path. Raises
    ValueError if the folds share a content group or have different labels.
    """
    _check_disjoint(pool, certification)
    units = units_from(certification.probabilities, certification.truth, pool.cardinality, pool.mask)
    unlabelled_rows = np.asarray(unlabelled).reshape(-1, len(pool.labels))
    accept = accept_scores(unlabelled_rows, pool.cardinality, pool.mask)
    grid = threshold_grid(accept, len(units), rule.first_expected, rule.step)
    steps = fixed_sequence(units, grid, rule.target, spent_delta(rule.delta, binding.use_count))
    best = last_passed(steps)
    return Certificate(
        attribute=pool.attribute,
        modality=binding.modality,
        values=pool.values,
        threshold=best.threshold if best else None,
        why_abstains="" if best else _why(pool, accept, len(units), steps),
        accepted=best.accepted if best else 0,
        wrong=best.wrong if best else 0,
        lower_bound=best.lower_bound if best else 0.0,
        target=rule.target,
        delta=rule.delta,
        use_count=binding.use_count,
        claim=_claim(pool, binding, rule, best),
        label_set_hash=binding.label_set_hash,
        data_window=binding.data_window,
        weights_hash=binding.weights_hash,
        numeric_path=binding.numeric_path,
        preprocessing_hash=binding.preprocessing_hash,
        issued_at=binding.issued_at,
        expires_at=binding.issued_at + timedelta(days=rule.valid_days),
        suggest_threshold=pool.suggest_threshold,
        categories=tuple(sorted({category or "" for category in certification.categories})),
        languages=tuple(sorted({language or "" for language in certification.languages})),
        accept_rate=float((accept >= best.threshold).mean()) if best else 0.0,
        histogram=score_histogram(as_scores(unlabelled_rows).max(axis=1))
        if len(unlabelled_rows)
        else (0,) * HISTOGRAM_BINS,
        steps=steps,
    )


def score_histogram(scores: ArrayLike) -> tuple[int, ...]:
    """Counts of scores in ``HISTOGRAM_BINS`` equal bins of [0, 1]."""
    return tuple(np.histogram(scores, bins=HISTOGRAM_BINS, range=(0.0, 1.0))[0].tolist())


def _check_disjoint(pool: Pool, certification: CertificationScores) -> None:
    if (pool.attribute, pool.labels) != (certification.attribute, certification.labels):
        raise ValueError(
            f"the pool is for {pool.attribute} {pool.labels}, the certification fold for "
            f"{certification.attribute} {certification.labels}"
        )
    if shared := len(np.intersect1d(pool.groups, certification.groups)):
        raise ValueError(
            f"{pool.attribute}: {shared} content groups are in both the calibration and the certification fold"
        )


def _why(pool: Pool, accept: Floats, n_units: int, steps: Sequence[ThresholdTest]) -> str:
    if not pool.mask.any():
        return "no value was frequent and right often enough on the calibration fold"
    if not steps:
        reachable = n_units * float(np.isfinite(accept).mean()) if len(accept) else 0.0
        return (
            f"too few products: of {n_units} labelled ones about {reachable:.0f} could be accepted, {FLOOR} are needed"
        )
    first = steps[0]
    at = f"at the first threshold, {first.threshold:.4f}"
    return f"{first.wrong} of {first.accepted} wrong {at} (p = {first.p_value:.3f})"


def _claim(pool: Pool, binding: CertificateBinding, rule: PrecisionConfig, best: ThresholdTest | None) -> str:
    path = {Modality.BOTH: "with text and picture", Modality.TEXT_ONLY: "without a usable picture"}[binding.modality]
    if best is None:
        return f"Nothing is claimed: {pool.attribute} is not written for products {path}."
    unit = "products given values" if pool.cardinality is Cardinality.MANY else "values"
    return (
        f"Of the {unit} of {pool.attribute} written at scores >= {best.threshold:.6f} for products {path}, at least "
        f"{rule.target:.1%} are right. This statement, one per attribute, is wrong with probability at most "
        f"{spent_delta(rule.delta, binding.use_count):.3g}: its labels are used for candidate number "
        f"{binding.use_count}. It holds for products drawn like the labelled ones."
    )
