"""Certificates that people's verdicts give, in place of an older certificate and without training.

    audited      verdicts on values drawn uniformly from the values that the old certificate wrote, after an alarm
                 (PRECISION, After deployment). Only thresholds at or above the old threshold can be tested. The test is
                 that of every certificate: a fixed sequence, robust against equal listings.
    proposals    verdicts on uniformly drawn proposals (PRECISION, "Certified by verdicts"), by :mod:`verdict_test`.

The unit is a product, as at certification; a value that nobody can tell counts as wrong. An audited product with
several values is wrong if any value at or above the threshold is: all values of a drawn product are judged. A product
with k values is drawn k times as often as a product with one value, so each of its draws has the weight 1 / k.

Shapes: n drawn values or products.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

import numpy as np

from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus, ThresholdTest
from catalog_enrichment.precision.certify import CertificateBinding, abstention, at_threshold, slice_fields
from catalog_enrichment.precision.cluster import AcceptedSample, cluster_test, products_needed
from catalog_enrichment.precision.pool import PrecisionRule
from catalog_enrichment.precision.strata import Slice
from catalog_enrichment.precision.thresholds import (
    GridSize,
    fixed_sequence,
    last_passed,
    smallest_sample,
    spent_delta,
    threshold_grid,
)
from catalog_enrichment.precision.units import Floats, Ints
from catalog_enrichment.precision.verdict_test import DrawnProducts, VerdictStep, VerdictTest
from catalog_enrichment.records import Cardinality, LabelUse, stable_hash

# --- audited values ---------------------------------------------------------------------------------------------------

FIRST_EXPECTED = 150
"""Drawn values above the first threshold, at least: there is no choosing fold here."""

_KEPT = (
    "values", "score_type", "unit", "unlabelled_products", "certification_near_duplicate_rate",
    "unlabelled_near_duplicate_rate", "refused_categories", "refused_languages", "unseen_slices", "suggest_threshold",
    "categories", "languages", "histogram",
)  # fmt: skip
"""Fields that a certificate from audited values has of the old certificate: pool, slices and scores stay."""


@dataclass(frozen=True, kw_only=True)
class AuditedFold:
    """Uniformly drawn values of one old certificate, n of them, with their verdicts."""

    scores: Floats
    """(n,) the value's score; the highest score of a product with several values."""
    wrong_scores: Floats
    """(n,) the highest score of a value that is wrong, or not known to be right; -inf where all are right."""
    weights: Floats
    """(n,) 1 / number of values of the product."""
    groups: Ints
    """(n,) number of the content group; equal listings are a group."""
    product_ids: tuple[str, ...]
    data_window: str
    """First and last day of the draws, as an ISO interval."""
    cardinality: Cardinality = Cardinality.ONE


def audited_thresholds(old: Certificate, fold: AuditedFold, rule: PrecisionRule, use_number: int) -> Floats:
    """Return the thresholds to test, strictly decreasing, by the scores alone. The last is the old threshold.

    The first is expected to accept twice as many drawn values as a model without an error needs, or
    ``FIRST_EXPECTED`` if that is more.
    """
    assert old.threshold is not None
    fewest = smallest_sample(rule.target, spent_delta(rule.delta, use_number))
    size = GridSize(first=max(FIRST_EXPECTED, 2 * fewest), fewest=fewest, step=rule.step)
    found = threshold_grid(fold.scores, len(fold.scores), size)
    return found if not len(found) else np.append(found[found > old.threshold], old.threshold)


def why_untestable(fold: AuditedFold, rule: PrecisionRule, use_number: int) -> str:
    """Return why no threshold can be tested; "" if one can."""
    needed = smallest_sample(rule.target, spent_delta(rule.delta, use_number))
    if len(fold.scores) >= needed:
        return ""
    several = "" if fold.cardinality is Cardinality.ONE else ", with all values of their products,"
    return (
        f"{len(fold.scores)} uniformly drawn values{several} were judged since the pause and at least {needed} are "
        f"needed: draw and judge about {needed - len(fold.scores)} more"
    )


def from_audit(
    old: Certificate, fold: AuditedFold, rule: PrecisionRule, use: LabelUse, issued_at: datetime
) -> Certificate:
    """Return the certificate that replaces ``old``: confirmed, or an abstention where no threshold passes."""
    binding = CertificateBinding(
        modality=old.modality,
        scored_by=old.scored_by,
        label_set_hash=stable_hash(sorted(fold.product_ids)),
        use=use,
        data_window=fold.data_window,
        issued_at=issued_at,
        basis=CertificateBasis.AUDIT,
        trained_on=old.trained_on,
    )
    delta = spent_delta(rule.delta, use.number)

    def test(threshold: float) -> ThresholdTest:
        return cluster_test(_sample(fold, threshold), threshold, rule.target, delta)

    steps = fixed_sequence(audited_thresholds(old, fold, rule, use.number), test)
    known: dict[str, Any] = {name: getattr(old, name) for name in _KEPT}
    known |= {"certification_products": len(fold.scores), "steps": steps}
    best = last_passed(steps)
    if best is None:
        why = why_untestable(fold, rule, use.number) or _why_failed(fold, steps[0], rule, use.number)
        return abstention(old.attribute, why, rule, binding, **known)
    above = float(np.average(fold.scores >= best.threshold, weights=fold.weights))
    known |= {"status": CertificateStatus.CONFIRMED, "accept_rate": old.accept_rate * above}
    return at_threshold(best, old.attribute, fold.cardinality, rule, binding, **known)


def _sample(fold: AuditedFold, threshold: float) -> AcceptedSample:
    """Return the drawn values that ``threshold`` accepts."""
    accepted, wrong = fold.scores >= threshold, fold.wrong_scores >= threshold
    return AcceptedSample.of(accepted, wrong, fold.groups, fold.weights)


def _why_failed(fold: AuditedFold, first: ThresholdTest, rule: PrecisionRule, use_number: int) -> str:
    """Return why the ``first`` threshold failed, and how many more drawn values pass it at the error rate seen: with
    them the labels are used once more, which spends less of ``rule.delta``."""
    next_delta = spent_delta(rule.delta, use_number + 1)
    needed = products_needed(_sample(fold, first.threshold), rule.target, next_delta, correlation=1.0)
    advice = "the error rate itself is too high: a better model is needed"
    if np.isfinite(needed):
        more = max(1, ceil((needed - first.accepted) * len(fold.scores) / first.accepted))
        advice = f"draw and judge about {more:,} more, or train a better model"
    return (
        f"{first.wrong} of {first.accepted} audited values are wrong at the first threshold, {first.threshold:.4f} "
        f"(p = {first.p_value:.3f}): {advice}"
    )


# --- drawn proposals --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlabelledPopulation:
    """The products without a merchant's or a person's value that a model version had scored when the sample was drawn,
    of one modality path."""

    products: int
    histogram: tuple[int, ...]
    """Top scores in ``certificate.HISTOGRAM_BINS`` bins."""
    accept_rate: float
    """Share of the products with a score of at least the certified threshold."""
    slices: Collection[Slice]
    """The slices of the products that could be drawn; nothing is known about others, and nothing is written there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """The evidence of a certificate from drawn proposals."""

    drawn: DrawnProducts
    content_hashes: tuple[str, ...]
    """(n,) of the drawn products; equal listings share a hash."""
    test: VerdictTest
    data_window: str
    """First and last day of the draws, as an ISO interval."""
    values: tuple[str, ...]
    """The values of the attribute that the model can propose."""
    cardinality: Cardinality

    def judged_at(self, threshold: float) -> Ints:
        """Return the places of the drawn products that count at ``threshold``."""
        return self.drawn.judged_at(threshold, self.test.sequence.first_sample)

    def threshold_test(self, step: VerdictStep) -> ThresholdTest:
        """Return a step as certificates record it."""
        return ThresholdTest(
            threshold=step.threshold,
            accepted=step.judged,
            wrong=step.wrong,
            groups=len({self.content_hashes[place] for place in self.judged_at(step.threshold).tolist()}),
            deff=1.0,
            p_value=min(1.0, 1 / step.wealth),
            lower_bound=step.lower_bound,
            passed=step.certified,
        )


def from_proposals(
    old: Certificate,
    verdicts: Verdicts,
    population: UnlabelledPopulation,
    rule: PrecisionRule,
    issued_at: datetime,
) -> Certificate:
    """Return the confirmed certificate that replaces ``old``. Raises ValueError if no threshold is certified."""
    step, drawn = verdicts.test.certified, verdicts.drawn
    if step is None:
        raise ValueError("no threshold is certified")
    wrong, places = drawn.wrong_scores.tolist(), verdicts.judged_at(step.threshold).tolist()
    judged = [(drawn.product_ids[place], f"{wrong[place]!r}") for place in places]
    binding = CertificateBinding(
        modality=old.modality,
        scored_by=old.scored_by,
        label_set_hash=stable_hash(sorted(judged)),
        use=LabelUse(number=verdicts.test.sequence.number, certification_round=0),
        data_window=verdicts.data_window,
        issued_at=issued_at,
        basis=CertificateBasis.VERDICTS,
        trained_on=old.trained_on,
    )
    suggest = old.suggest_threshold
    return at_threshold(
        verdicts.threshold_test(step),
        old.attribute,
        verdicts.cardinality,
        rule,
        binding,
        values=verdicts.values,
        status=CertificateStatus.CONFIRMED,
        certification_products=step.judged,
        unlabelled_products=population.products,
        certification_near_duplicate_rate=old.unlabelled_near_duplicate_rate,  # the drawn products are unlabelled
        unlabelled_near_duplicate_rate=old.unlabelled_near_duplicate_rate,
        suggest_threshold=suggest if suggest is not None and suggest < step.threshold else None,
        accept_rate=population.accept_rate,
        histogram=population.histogram,
        steps=tuple(verdicts.threshold_test(each) for each in verdicts.test.steps),
        **slice_fields(population.slices),
    )


def same_evidence(first: Certificate, second: Certificate) -> bool:
    """Return whether two certificates from drawn proposals allow the same for the same verdicts, whenever they were
    issued."""
    return first.basis is second.basis is CertificateBasis.VERDICTS and (
        (first.threshold, first.label_set_hash, first.values, first.standard, first.scored_by)
        == (second.threshold, second.label_set_hash, second.values, second.standard, second.scored_by)
    )
