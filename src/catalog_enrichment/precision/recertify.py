"""A new certificate from audited values, without training (PRECISION, After deployment).

The labels are verdicts on values that were drawn uniformly of what the old certificate wrote, after the alarm. So only
thresholds at or above the old one can be tested, and who cannot tell counts as wrong. The test is that of every
certificate: a fixed sequence from the highest threshold down, robust against equal listings.

The unit is a product, as at certification. Of an attribute with several values it is wrong if any value at or above the
threshold is: all values of a drawn product are judged. A product with m values is drawn m times as often as one with
one, so each of its draws has the weight 1 / m.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import numpy as np

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus, ThresholdTest
from catalog_enrichment.precision.certify import LabelUse, last_passed, spent_delta
from catalog_enrichment.precision.classification_metrics import Floats, Ints
from catalog_enrichment.precision.cluster import AcceptedSample, cluster_test
from catalog_enrichment.precision.grid import GridSize, smallest_sample, threshold_grid
from catalog_enrichment.records import Cardinality, stable_hash


@dataclass(frozen=True, kw_only=True)
class AuditedFold:
    """Uniformly drawn values of one old certificate, n of them, with their verdicts."""

    scores: Floats
    """(n,) of the value; of several values of a product the highest."""
    wrong_scores: Floats
    """(n,) the highest score of a value that is wrong, or not known to be right; -inf where all are right."""
    weights: Floats
    """(n,) 1 / number of values of the product."""
    groups: Ints
    """(n,) number of the content group; equal listings are one group."""
    product_ids: tuple[str, ...]
    data_window: str
    """When they were drawn: first and last day, as an ISO interval."""
    cardinality: Cardinality = Cardinality.ONE

    @property
    def unit(self) -> str:
        """What was drawn, for people."""
        return "values" if self.cardinality is Cardinality.ONE else "values, with all values of their products,"


FIRST_EXPECTED = 150
"""Drawn values above the first threshold, at least: there is no choosing fold here."""


def grid_size(rule: PrecisionConfig, use_number: int) -> GridSize:
    """Return the numbers of drawn values at the thresholds: two times what a model without an error needs at first, or
    ``FIRST_EXPECTED`` if that is more."""
    fewest = smallest_sample(rule.target, spent_delta(rule.delta, use_number))
    return GridSize(first=max(FIRST_EXPECTED, 2 * fewest), fewest=fewest, step=rule.step)


def grid(old: Certificate, fold: AuditedFold, rule: PrecisionConfig, use_number: int) -> Floats:
    """The thresholds to test, strictly decreasing, by the scores alone: none below the old one, which is the last."""
    assert old.threshold is not None
    found = threshold_grid(fold.scores, len(fold.scores), grid_size(rule, use_number))
    return found if not len(found) else np.append(found[found > old.threshold], old.threshold)


def why_untestable(old: Certificate, fold: AuditedFold, rule: PrecisionConfig, use_number: int) -> str:
    """Why no threshold can be tested; "" if one can."""
    if old.threshold is None:
        return "the old certificate wrote nothing"
    needed = smallest_sample(rule.target, spent_delta(rule.delta, use_number))
    if len(fold.scores) >= needed:
        return ""
    return (
        f"{len(fold.scores)} uniformly drawn {fold.unit} were judged since the pause and at least {needed} are needed: "
        f"draw and judge about {needed - len(fold.scores)} more"
    )


def recertified(
    old: Certificate, fold: AuditedFold, rule: PrecisionConfig, use: LabelUse, issued_at: datetime
) -> Certificate:
    """The certificate that replaces ``old``: confirmed, or an abstention where no threshold passes."""
    delta = spent_delta(rule.delta, use.number)
    steps = _fixed_sequence(grid(old, fold, rule, use.number), fold, rule.target, delta)
    issued = replace(
        _without_evidence(old, fold, rule, use, issued_at), steps=steps, status=CertificateStatus.CONFIRMED
    )
    best = last_passed(steps)
    if best is None:
        why = why_untestable(old, fold, rule, use.number) or _why_failed(steps)
        return replace(
            issued,
            why_abstains=why,
            status=CertificateStatus.PROVISIONAL,
            claim=claim.nothing_claimed(old.attribute, old.modality),
        )
    above = float(np.average(fold.scores >= best.threshold, weights=fold.weights))
    certificate = replace(
        issued,
        threshold=best.threshold,
        why_abstains="",
        accepted=best.accepted,
        wrong=best.wrong,
        groups=best.groups,
        deff=best.deff,
        lower_bound=best.lower_bound,
        accept_rate=old.accept_rate * above,
    )
    return replace(certificate, claim=claim.in_words(certificate, fold.cardinality))


def _fixed_sequence(thresholds: Floats, fold: AuditedFold, target: float, delta: float) -> tuple[ThresholdTest, ...]:
    """Test from the highest threshold down and stop at the first p > delta."""
    steps: list[ThresholdTest] = []
    for threshold in thresholds.tolist():
        accepted, wrong = fold.scores >= threshold, fold.wrong_scores >= threshold
        sample = AcceptedSample.of(accepted, wrong, fold.groups, fold.weights)
        result = cluster_test(sample, target, delta)
        steps.append(ThresholdTest(threshold, **asdict(result), passed=result.p_value <= delta))
        if not steps[-1].passed:
            break
    return tuple(steps)


def _without_evidence(
    old: Certificate, fold: AuditedFold, rule: PrecisionConfig, use: LabelUse, issued_at: datetime
) -> Certificate:
    """``old`` for another label set and time, as an abstention. Pool, slices and what gives the scores stay."""
    nothing: dict[str, Any] = {
        "threshold": None,
        "why_abstains": "replaced",
        "accepted": 0,
        "wrong": 0,
        "groups": 0,
        "deff": 1.0,
        "lower_bound": 0.0,
        "accept_rate": 0.0,
        "strata": (),
        "alikeness": None,
        "unexplained": 0.0,
    }
    return replace(
        old,
        **nothing,
        target=rule.target,
        delta=rule.delta,
        use_number=use.number,
        certification_round=use.certification_round,
        tested_at=spent_delta(rule.delta, use.number),
        basis=CertificateBasis.AUDIT,
        label_set_hash=stable_hash(sorted(fold.product_ids)),
        data_window=fold.data_window,
        certification_products=len(fold.scores),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(days=rule.valid_days),
    )


def _why_failed(steps: tuple[ThresholdTest, ...]) -> str:
    first = steps[0]
    return (
        f"{first.wrong} of {first.accepted} audited values are wrong at the first threshold, {first.threshold:.4f} "
        f"(p = {first.p_value:.3f}): a better model is needed, or about {ceil(first.accepted)} more verdicts"
    )
