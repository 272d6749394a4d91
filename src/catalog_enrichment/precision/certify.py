"""Certification of a threshold: select the pool on one fold, set a grid without labels, test it on another fold.

Learn-then-Test with a fixed sequence (Angelopoulos, Bates, Candes, Jordan, Lei 2021): thresholds are tested from the
highest down, the first failure stops the sequence, the last success is certified. Then
P(true precision < target) <= delta, without Bonferroni and without monotonicity, under these conditions:

- the pool comes from the choosing fold, the grid from unlabelled products; neither uses certification labels
  (:class:`Pool` is made of a :class:`ChoosingScores` only, and refuses folds that share a content group);
- the test of one threshold is robust against correlated products of one content group and uses weights by which the
  certification fold represents the unlabelled products (:mod:`cluster`, :mod:`strata`);
- the k-th use of a label set spends its own share of delta (:func:`spent_delta`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision import claim
from catalog_enrichment.precision.alike import AlikenessTest
from catalog_enrichment.precision.certificate import (
    HISTOGRAM_BINS,
    Certificate,
    CertificateBasis,
    CertificateStatus,
    ScoredBy,
    ThresholdTest,
    UnseenSlice,
)
from catalog_enrichment.precision.cluster import AcceptedSample, cluster_test, group_numbers, products_needed
from catalog_enrichment.precision.pool import Pool, PrecisionRule
from catalog_enrichment.precision.strata import Cells, Slice, UniformDraw, Weighting
from catalog_enrichment.precision.thresholds import fixed_sequence, last_passed, plan_thresholds, spent_delta
from catalog_enrichment.precision.units import (
    Bools,
    CertificationScores,
    Ints,
    Units,
    UnlabelledProducts,
    ValueCount,
    as_scores,
    units_from,
    writable_values,
)
from catalog_enrichment.records import Cardinality, LabelUse, Modality, stable_hash

TEST_VERSION = 1
"""Version of the weights and tests: a change that tests other hypotheses on the same grid increases it."""


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
    trained_on: str = ""
    """See :class:`Certificate`."""


# --- before the labels are read ---------------------------------------------------------------------------------------


def why_untestable(
    pool: Pool,
    certification: CertificationScores,
    unlabelled: UnlabelledProducts,
    rule: PrecisionRule,
    use_number: int,
) -> str:
    """Return why no threshold could be tested with this use of the labels, which are not read; "" if one could."""
    plan = plan_thresholds(pool, len(certification), unlabelled, rule, spent_delta(rule.delta, use_number))
    return claim.why_untestable(pool, certification, _cells(certification, unlabelled).slices, plan)


def candidate_key(
    weights_hash: str, pool: Pool, n_products: int, unlabelled: UnlabelledProducts, rule: PrecisionRule
) -> str:
    """Return the name of a candidate where uses of labels are counted: the same weights tested by another rule or on
    another grid are another candidate, or these tests would be free of charge.

    ``n_products``: of the certification fold. The grid is that of a first use: the number of the use follows the key.
    """
    grid = plan_thresholds(pool, n_products, unlabelled, rule, rule.delta).grid.tolist()
    settings = (rule.target, rule.delta, rule.step)
    return stable_hash(weights_hash, settings, pool.values, pool.deff, grid, TEST_VERSION)


def _cells(certification: CertificationScores, unlabelled: UnlabelledProducts) -> Cells | UniformDraw:
    """Return the cells of the certification products' weights."""
    if certification.uniform:
        return UniformDraw(certification.stratified, unlabelled)
    return Cells(certification.stratified, unlabelled, certification.fold_share)


# --- the test of one threshold ----------------------------------------------------------------------------------------


def nothing_unexplained(_threshold: float) -> float:
    """Return 0: unlabelled products are like the labelled ones."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class FoldTest:
    """The test of thresholds of one attribute on its certification fold, at the level ``delta``."""

    units: Units
    groups: Ints
    """(n,) number of the content group, from 0."""
    cells: Cells | UniformDraw
    correlation: float
    """Correlation of errors within groups on the choosing fold."""
    target: float
    delta: float
    unexplained: Callable[[float], float] = nothing_unexplained
    """Threshold -> share of the accepted unlabelled products that counts as wrong (:meth:`AlikenessTest.unexplained`).

    Where a share x is unexplained, the labelled products must be right in target / (1 - x): then at least the target is
    right of all, also if everything that is unexplained is wrong."""

    def __call__(self, threshold: float) -> ThresholdTest:
        """Test one threshold. Products of weight 0 do not count."""
        explained = 1 - self.unexplained(threshold)
        hopeless = explained <= self.target
        target = self.target if hopeless else self.target / explained
        test = cluster_test(self._sample(threshold), threshold, target, self.delta, self.correlation)
        if hopeless:
            test = replace(test, p_value=1.0, passed=False)
        return replace(test, lower_bound=explained * test.lower_bound, unexplained=1 - explained)

    def needed(self, threshold: float) -> float:
        """Return how many accepted products would pass the test (:func:`products_needed`); infinite where too much is
        unexplained."""
        explained = 1 - self.unexplained(threshold)
        if explained <= self.target:
            return float("inf")
        return products_needed(self._sample(threshold), self.target / explained, self.delta, self.correlation)

    def weighting(self, threshold: float) -> Weighting:
        """Return the cells and weights at ``threshold``."""
        return self.cells.weighting(self.units.accept >= threshold)

    def _sample(self, threshold: float) -> AcceptedSample:
        accepted, wrong = self.units.accept >= threshold, self.units.error >= threshold
        weights = self.weighting(threshold).weights
        return AcceptedSample.of(accepted & (weights > 0), wrong, self.groups, weights)


# --- the certificate --------------------------------------------------------------------------------------------------


def certify_attribute(
    pool: Pool,
    certification: CertificationScores,
    unlabelled: UnlabelledProducts,
    rule: PrecisionRule,
    binding: CertificateBinding,
    comparison: AlikenessTest | None = None,
) -> Certificate:
    """Test one attribute and issue its certificate, which is an abstention where the test fails.

    ``comparison``: of labelled with unlabelled products; None where the certification products are themselves a sample
    of the unlabelled products. Raises ValueError if the folds share a content group or have different labels.
    """
    _check_disjoint(pool, certification)
    delta = spent_delta(rule.delta, binding.use.number)
    test = FoldTest(
        units=units_from(certification.probabilities, certification.truth, pool.cardinality, pool.mask),
        groups=group_numbers(certification.groups),
        cells=_cells(certification, unlabelled),
        correlation=pool.correlation,
        target=rule.target,
        # where something is unexplained, its bound has the other half of delta
        delta=delta if comparison is None or comparison.result.alike else delta / 2,
        unexplained=nothing_unexplained if comparison is None else partial(comparison.unexplained, alpha=delta / 2),
    )
    plan = plan_thresholds(pool, len(certification), unlabelled, rule, delta)
    untestable = claim.why_untestable(pool, certification, test.cells.slices, plan)
    steps = () if untestable else fixed_sequence(plan.grid, test)
    best = last_passed(steps)
    known: dict[str, Any] = {
        "values": pool.values,
        "certification_products": len(certification),
        "unlabelled_products": round(test.cells.unlabelled_products),
        "unlabelled_near_duplicate_rate": unlabelled.near_duplicate_rate,
        "suggest_threshold": pool.suggest_threshold,
        **slice_fields(test.cells.slices),
        "histogram": score_histogram(as_scores(unlabelled.probabilities).max(axis=1)),
        "steps": steps,
        "alikeness": None if comparison is None else comparison.result,
    }
    if best is None:
        why = untestable or claim.why_failed(steps[0], test.needed(steps[0].threshold), certification)
        return abstention(pool.attribute, why, rule, binding, **known)
    weighting = test.weighting(best.threshold)
    by_people = binding.basis is CertificateBasis.GOLD_SAMPLE  # their answers need no confirmation by an audit
    known |= {
        "status": CertificateStatus.CONFIRMED if by_people else CertificateStatus.PROVISIONAL,
        "unlabelled_products": round(weighting.unlabelled_products),
        "strata": weighting.strata,
        "by_value": values_counted(certification, pool, best.threshold, weighting.weights > 0),
        "refused_categories": weighting.refused,
        "refused_languages": weighting.refused_languages,
        "accept_rate": float((plan.accept >= best.threshold).mean()),
    }
    return at_threshold(best, pool.attribute, pool.cardinality, rule, binding, **known)


def abstention(attribute: str, why: str, rule: PrecisionRule, binding: CertificateBinding, **known: Any) -> Certificate:
    """Return a certificate that writes nothing, for the reason ``why``; ``known``: fields that are known even so."""
    nothing = claim.nothing_claimed(attribute, binding.modality)
    return _issued(attribute, rule, binding, why_abstains=why, claim=nothing, **known)


def at_threshold(
    test: ThresholdTest,
    attribute: str,
    cardinality: Cardinality,
    rule: PrecisionRule,
    binding: CertificateBinding,
    **known: Any,
) -> Certificate:
    """Return the certificate with the threshold of a ``test`` that passed; ``known``: further fields."""
    names = ("threshold", "accepted", "wrong", "groups", "deff", "lower_bound", "unexplained")
    numbers = {name: getattr(test, name) for name in names}
    certificate = _issued(attribute, rule, binding, claim="", **numbers, **known)
    return replace(certificate, claim=claim.in_words(certificate, cardinality))


def _issued(attribute: str, rule: PrecisionRule, binding: CertificateBinding, **content: Any) -> Certificate:
    return Certificate(
        attribute=attribute,
        modality=binding.modality,
        target=rule.target,
        delta=rule.delta,
        use_number=binding.use.number,
        certification_round=binding.use.certification_round,
        tested_at=spent_delta(rule.delta, binding.use.number),
        basis=binding.basis,
        trained_on=binding.trained_on,
        label_set_hash=binding.label_set_hash,
        data_window=binding.data_window,
        **asdict(binding.scored_by),
        issued_at=binding.issued_at,
        expires_at=binding.issued_at + timedelta(days=rule.valid_days),
        **content,
    )


def values_counted(
    certification: CertificationScores, pool: Pool, threshold: float, counting: Bools
) -> tuple[ValueCount, ...]:
    """Return the values that ``threshold`` accepts with their counts, most accepted first; ``counting``: (n,) True for
    the products that count."""
    written = writable_values(certification.probabilities, pool.cardinality, pool.mask, threshold)
    written &= counting[:, np.newaxis]
    accepted = written.sum(axis=0)
    wrong = (written & ~np.asarray(certification.truth, dtype=bool)).sum(axis=0)
    rows = zip(certification.labels, accepted.tolist(), wrong.tolist(), strict=True)
    counts = [ValueCount(value, of_value, errors) for value, of_value, errors in rows if of_value]
    return tuple(sorted(counts, key=lambda row: (-row.accepted, row.value)))


def slice_fields(slices: Collection[Slice]) -> dict[str, Any]:
    """Return the certificate's fields about the slices that were seen."""
    languages, categories = (sorted({name[part] for name in slices}) for part in (0, 1))
    unseen = sorted({(language, category) for language in languages for category in categories} - set(slices))
    return {
        "languages": tuple(languages),
        "categories": tuple(categories),
        "unseen_slices": tuple(UnseenSlice(language, category) for language, category in unseen),
    }


def score_histogram(scores: ArrayLike) -> tuple[int, ...]:
    """Return the counts of scores in ``HISTOGRAM_BINS`` equal bins of [0, 1]."""
    return tuple(np.histogram(scores, bins=HISTOGRAM_BINS, range=(0.0, 1.0))[0].tolist())


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
