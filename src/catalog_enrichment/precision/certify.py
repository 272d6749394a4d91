"""Certification of a threshold: select the pool on one fold, set a grid without labels, test it on another fold.

Learn-then-Test with a fixed sequence (Angelopoulos, Bates, Candes, Jordan, Lei 2021): thresholds are tested from the
highest down, the first failure stops the sequence, the last success is certified. Then
P(true precision < target) <= delta, without Bonferroni and without monotonicity, under these conditions:

- the pool comes from the choosing fold, the grid from unlabelled products; neither uses certification labels
  (:class:`Pool` is made of a :class:`ChoosingScores` only, and refuses folds that share a content group);
- the test of one threshold is robust against correlated products of one content group and uses weights by which the
  certification fold represents the products to fill (:mod:`cluster`, :mod:`strata`);
- the k-th use of a label set spends its own share of delta (:func:`spent_delta`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.alike import Comparison
from catalog_enrichment.precision.certificate import (
    HISTOGRAM_BINS,
    Certificate,
    CertificateBasis,
    CertificateStatus,
    ScoredBy,
    ThresholdTest,
    UnseenSlice,
)
from catalog_enrichment.precision.claim import CertificationFold
from catalog_enrichment.precision.classification_metrics import Floats, as_scores
from catalog_enrichment.precision.cluster import (
    AcceptedSample,
    cluster_test,
    group_numbers,
    products_needed,
)
from catalog_enrichment.precision.first_threshold import Requirement, choose_grid_size
from catalog_enrichment.precision.grid import GridSize, threshold_grid
from catalog_enrichment.precision.pool import Pool
from catalog_enrichment.precision.scored_labels import CertificationScores, UnlabelledProducts
from catalog_enrichment.precision.strata import Cells, Slice, UniformDraw, Weighting
from catalog_enrichment.precision.units import Units, accept_scores, units_from
from catalog_enrichment.records import Modality, stable_hash

TEST_VERSION = 1
"""Of how weights and tests are computed: a change that tests other hypotheses on the same grid increases it."""


@dataclass(frozen=True, slots=True)
class LabelUse:
    """One use of certification labels by one candidate (PRECISION, certificate 6)."""

    number: int
    """How many candidates were certified on these labels, this one included: at least 1."""
    certification_round: int
    """Number of the certification fold, from 0; a new one is drawn of products that never certified."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"the number of a label use includes this one, so it is at least 1, not {self.number}")


def spent_delta(delta: float, k: int) -> float:
    """The share of ``delta`` that the k-th use of a label set may spend: delta at first, then delta / (k (k + 1)).

    All uses together may be wrong with a probability of at most 1.5 delta.
    """
    return delta if k == 1 else delta / (k * (k + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateBinding:
    """The model, the labels and the time that a certificate is bound to."""

    modality: Modality
    scored_by: ScoredBy
    label_set_hash: str
    use: LabelUse
    data_window: str
    issued_at: datetime
    basis: CertificateBasis = CertificateBasis.MERCHANT_LABELS


def nothing_unexplained(_threshold: float) -> float:
    """Return 0: unlabelled products are like the labelled ones."""
    return 0.0


class Sequencer:
    """Tests thresholds of one attribute on its certification fold."""

    def __init__(
        self,
        units: Units,
        groups: ArrayLike,
        cells: Cells | UniformDraw,
        correlation: float,
        unexplained: Callable[[float], float] = nothing_unexplained,
    ) -> None:
        """``units`` and ``groups`` (n,) of the certification products, ``cells`` of their weights, ``correlation`` of
        errors within groups on the choosing fold, ``unexplained``: threshold -> share of the accepted unlabelled
        products that counts as wrong (:meth:`alike.Comparison.unexplained`)."""
        self._units, self._groups, self._cells = units, group_numbers(groups), cells
        self._correlation, self._unexplained = correlation, unexplained

    def test(self, threshold: float, target: float, delta: float) -> ThresholdTest:
        """The test of one threshold at level ``delta``. Products of weight 0 do not count.

        Where a share x is unexplained, the labelled products must be right in target / (1 - x): then at least the
        target is right of all, also if everything that is unexplained is wrong.
        """
        explained = 1 - self._unexplained(threshold)
        if explained <= target:
            result = replace(cluster_test(self._sample(threshold), target, delta, self._correlation), p_value=1.0)
        else:
            result = cluster_test(self._sample(threshold), target / explained, delta, self._correlation)
        return ThresholdTest(
            threshold,
            **asdict(result) | {"lower_bound": explained * result.lower_bound},
            passed=result.p_value <= delta,
            unexplained=1 - explained,
        )

    def needed(self, threshold: float, target: float, delta: float) -> float:
        """Accepted products with which the test would pass (:func:`products_needed`); infinite where too much is
        unexplained."""
        explained = 1 - self._unexplained(threshold)
        if explained <= target:
            return float("inf")
        return products_needed(self._sample(threshold), target / explained, delta, self._correlation)

    def _sample(self, threshold: float) -> AcceptedSample:
        accepted, wrong = self._units.accept >= threshold, self._units.error >= threshold
        weights = self._cells.weighting(accepted).weights
        return AcceptedSample.of(accepted & (weights > 0), wrong, self._groups, weights)

    def fixed_sequence(self, grid: Floats, target: float, delta: float) -> tuple[ThresholdTest, ...]:
        """Test the grid in order and stop at the first p > delta. The last threshold that passed is certified."""
        if np.any(np.diff(grid) >= 0):
            raise ValueError("the grid of a fixed sequence must be strictly decreasing")
        steps: list[ThresholdTest] = []
        for threshold in grid.tolist():
            steps.append(self.test(threshold, target, delta))
            if not steps[-1].passed:
                break
        return tuple(steps)

    def weighting(self, threshold: float) -> Weighting:
        """The cells and weights at ``threshold``."""
        return self._cells.weighting(self._units.accept >= threshold)


def last_passed(steps: Sequence[ThresholdTest]) -> ThresholdTest | None:
    """The last test that passed, None if none did."""
    return next((step for step in reversed(steps) if step.passed), None)


def grid_size(pool: Pool, accept: Floats, n_products: int, rule: PrecisionConfig, use_number: int) -> GridSize:
    """Return the expected accepted products of the thresholds for this use of the labels. ``accept`` (m,): the scores
    of the products to fill; ``n_products``: of the certification fold."""
    required = Requirement(rule.target, spent_delta(rule.delta, use_number), pool.deff)
    return choose_grid_size(pool.units, accept, n_products, required, rule.step)


def why_untestable(
    pool: Pool,
    certification: CertificationScores,
    unlabelled_products: UnlabelledProducts,
    rule: PrecisionConfig,
    use_number: int,
) -> str:
    """Why no threshold could be tested with this use of the labels, which are not read; "" if one could."""
    cells = certification.cells(unlabelled_products)
    fold = CertificationFold(len(certification.groups), certification.fold_share, certification.uniform)
    accept = accept_scores(_scores(pool, unlabelled_products), pool.cardinality, pool.mask)
    size = grid_size(pool, accept, fold.products, rule, use_number)
    return claim.why_untestable(pool, unlabelled_products, cells, fold, size)


def tested_thresholds(
    pool: Pool,
    certification: CertificationScores,
    unlabelled_products: UnlabelledProducts,
    rule: PrecisionConfig,
    use_number: int,
) -> list[float]:
    """The thresholds that a certification with this use of the labels tests until one fails, the highest first; the
    labels are not read."""
    accept = accept_scores(_scores(pool, unlabelled_products), pool.cardinality, pool.mask)
    n_products = len(certification.groups)
    grid = threshold_grid(accept, n_products, grid_size(pool, accept, n_products, rule, use_number))
    return [float(threshold) for threshold in grid]


def candidate_key(
    weights_hash: str, pool: Pool, n_products: int, unlabelled_products: UnlabelledProducts, rule: PrecisionConfig
) -> str:
    """Names a candidate where uses of labels are counted: the same weights tested by another rule or on another grid
    are another one, or these tests would be free of charge.

    ``n_products``: of the certification fold. The grid is that of a first use: the number of the use follows the key.
    """
    accept = accept_scores(_scores(pool, unlabelled_products), pool.cardinality, pool.mask)
    grid = threshold_grid(accept, n_products, grid_size(pool, accept, n_products, rule, 1)).tolist()
    settings = (rule.target, rule.delta, rule.step)
    return stable_hash(weights_hash, settings, pool.values, pool.deff, grid, TEST_VERSION)


def _scores(pool: Pool, unlabelled_products: UnlabelledProducts) -> NDArray[Any]:
    """(m, V), also without products."""
    return np.asarray(unlabelled_products.probabilities).reshape(-1, len(pool.labels))


def certify_attribute(
    pool: Pool,
    certification: CertificationScores,
    unlabelled_products: UnlabelledProducts,
    rule: PrecisionConfig,
    binding: CertificateBinding,
    comparison: Comparison | None = None,
) -> Certificate:
    """Test one attribute and issue its certificate, which is an abstention where the test fails.

    ``comparison``: of labelled with unlabelled products; None where the certification products are themselves a sample
    of the unlabelled ones. Raises ValueError if the folds share a content group or have different labels.
    """
    _check_disjoint(pool, certification)
    delta = spent_delta(rule.delta, binding.use.number)
    cells = certification.cells(unlabelled_products)
    sequencer = Sequencer(
        units_from(certification.probabilities, certification.truth, pool.cardinality, pool.mask),
        certification.groups,
        cells,
        pool.correlation,
        nothing_unexplained if comparison is None else partial(comparison.unexplained, alpha=delta / 2),
    )
    scores = _scores(pool, unlabelled_products)
    accept = accept_scores(scores, pool.cardinality, pool.mask)
    fold = CertificationFold(len(certification.groups), certification.fold_share, certification.uniform)
    size = grid_size(pool, accept, fold.products, rule, binding.use.number)
    untestable = claim.why_untestable(pool, unlabelled_products, cells, fold, size)
    grid = np.empty(0) if untestable else threshold_grid(accept, fold.products, size)
    # where something is unexplained, its bound has the other half of delta
    level = delta if comparison is None or comparison.result.alike else delta / 2
    steps = sequencer.fixed_sequence(grid, rule.target, level)
    best = last_passed(steps)
    known: dict[str, Any] = {
        "values": pool.values,
        "certification_products": fold.products,
        "unlabelled_products": round(cells.unlabelled_products),
        "unlabelled_near_duplicate_rate": unlabelled_products.near_duplicate_rate,
        "suggest_threshold": pool.suggest_threshold,
        **_slices(cells.slices),
        "histogram": score_histogram(as_scores(scores).max(axis=1)) if len(scores) else _NO_HISTOGRAM,
        "steps": steps,
        "alikeness": None if comparison is None else comparison.result,
    }
    if best is None:
        why = untestable or claim.why_failed(steps[0], sequencer.needed(steps[0].threshold, rule.target, level), fold)
        return abstention(pool.attribute, why, rule, binding, **known)
    weighting = sequencer.weighting(best.threshold)
    certificate = replace(
        abstention(pool.attribute, "replaced", rule, binding, **known),
        threshold=best.threshold,
        why_abstains="",
        status=_STATUS[binding.basis],
        accepted=best.accepted,
        wrong=best.wrong,
        groups=best.groups,
        deff=best.deff,
        lower_bound=best.lower_bound,
        unexplained=best.unexplained,
        unlabelled_products=round(weighting.unlabelled_products),
        strata=weighting.strata,
        refused_categories=weighting.refused,
        refused_languages=weighting.refused_languages,
        accept_rate=float((accept >= best.threshold).mean()),
    )
    return replace(certificate, claim=claim.in_words(certificate, pool.cardinality))


_STATUS = {
    CertificateBasis.MERCHANT_LABELS: CertificateStatus.PROVISIONAL,
    CertificateBasis.GOLD_SAMPLE: CertificateStatus.CONFIRMED,
}
"""People's answers about unlabelled products need no confirmation by an audit."""


def _slices(slices: Sequence[Slice]) -> dict[str, Any]:
    """The certificate's fields about the slices that were seen."""
    languages, categories = ({name[part] for name in slices} for part in (0, 1))
    unseen = sorted({(language, category) for language in languages for category in categories} - set(slices))
    return {
        "languages": tuple(sorted(languages)),
        "categories": tuple(sorted(categories)),
        "unseen_slices": tuple(UnseenSlice(language, category) for language, category in unseen),
    }


def abstention(
    attribute: str, why: str, rule: PrecisionConfig, binding: CertificateBinding, **known: Any
) -> Certificate:
    """A certificate that writes nothing, for the reason ``why``; ``known``: fields that are known nevertheless."""
    nothing: dict[str, Any] = {
        "values": (),
        "threshold": None,
        "accepted": 0,
        "wrong": 0,
        "groups": 0,
        "deff": 1.0,
        "lower_bound": 0.0,
        "certification_products": 0,
        "unlabelled_products": 0,
        "certification_near_duplicate_rate": 0.0,  # folds are disjoint by content group
        "unlabelled_near_duplicate_rate": 0.0,
        "strata": (),
        "refused_categories": (),
        "refused_languages": (),
        "unseen_slices": (),
        "suggest_threshold": None,
        "categories": (),
        "languages": (),
        "accept_rate": 0.0,
        "histogram": _NO_HISTOGRAM,
        "steps": (),
    }
    return Certificate(
        attribute=attribute,
        modality=binding.modality,
        why_abstains=why,
        target=rule.target,
        delta=rule.delta,
        use_number=binding.use.number,
        certification_round=binding.use.certification_round,
        tested_at=spent_delta(rule.delta, binding.use.number),
        claim=claim.nothing_claimed(attribute, binding.modality),
        basis=binding.basis,
        label_set_hash=binding.label_set_hash,
        data_window=binding.data_window,
        **asdict(binding.scored_by),
        issued_at=binding.issued_at,
        expires_at=binding.issued_at + timedelta(days=rule.valid_days),
        **nothing | known,
    )


def score_histogram(scores: ArrayLike) -> tuple[int, ...]:
    """Counts of scores in ``HISTOGRAM_BINS`` equal bins of [0, 1]."""
    return tuple(np.histogram(scores, bins=HISTOGRAM_BINS, range=(0.0, 1.0))[0].tolist())


_NO_HISTOGRAM = (0,) * HISTOGRAM_BINS


def _check_disjoint(pool: Pool, certification: CertificationScores) -> None:
    if (pool.attribute, pool.labels) != (certification.attribute, certification.labels):
        raise ValueError(
            f"the pool is for {pool.attribute} {pool.labels}, the certification fold for "
            f"{certification.attribute} {certification.labels}"
        )
    if shared := len(np.intersect1d(pool.groups, certification.groups)):
        raise ValueError(
            f"{pool.attribute}: {shared} content groups are in both the choosing and the certification fold"
        )
