"""The certificate that people's verdicts on uniformly drawn proposals give (:mod:`verdict_test`), and its claim."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import (
    Certificate,
    CertificateBasis,
    CertificateStatus,
    ThresholdTest,
    UnseenSlice,
)
from catalog_enrichment.precision.verdict_test import DrawnProducts, Step, VerdictTest
from catalog_enrichment.records import Cardinality, stable_hash

Slice = tuple[str, str]
"""Language and category; "" for products without one."""


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
    """What a certificate rests on."""

    drawn: DrawnProducts
    content_hashes: tuple[str, ...]
    """(n,) of the drawn products; equal listings share one."""
    test: VerdictTest
    data_window: str
    """When the products were drawn: first and last day, as an ISO interval."""
    values: tuple[str, ...]
    """All values of the attribute that the model can propose."""
    cardinality: Cardinality

    def label_set_hash(self) -> str:
        """Identifies the verdicts that the certified threshold rests on. Raises ValueError if none is certified."""
        step = self.test.certified
        if step is None:
            raise ValueError("no threshold is certified")
        places = self.drawn.judged_at(step.threshold, self.test.sequence.first_sample).tolist()
        wrong = self.drawn.wrong_scores.tolist()
        return stable_hash(sorted((self.drawn.product_ids[place], f"{wrong[place]!r}") for place in places))


def issue(
    old: Certificate,
    verdicts: Verdicts,
    population: UnlabelledPopulation,
    rule: PrecisionConfig,
    issued_at: datetime,
) -> Certificate:
    """Return the confirmed certificate that replaces ``old``. Raises ValueError if no threshold is certified."""
    label_set_hash, step, sequence = verdicts.label_set_hash(), verdicts.test.certified, verdicts.test.sequence
    assert step is not None
    judged = verdicts.drawn.judged_at(step.threshold, sequence.first_sample).tolist()
    suggest = old.suggest_threshold
    certificate = replace(
        old,
        values=verdicts.values,
        threshold=step.threshold,
        why_abstains="",
        accepted=step.judged,
        wrong=step.wrong,
        groups=len({verdicts.content_hashes[place] for place in judged}),
        deff=1.0,
        lower_bound=step.lower_bound,
        target=rule.target,
        delta=rule.delta,
        use_number=sequence.number,
        certification_round=0,
        tested_at=sequence.delta,
        status=CertificateStatus.CONFIRMED,
        basis=CertificateBasis.VERDICTS,
        alikeness=None,
        unexplained=0.0,
        label_set_hash=label_set_hash,
        data_window=verdicts.data_window,
        certification_products=step.judged,
        unlabelled_products=population.products,
        certification_near_duplicate_rate=old.unlabelled_near_duplicate_rate,  # the drawn products are products to fill
        strata=(),
        refused_categories=(),
        refused_languages=(),
        suggest_threshold=suggest if suggest is not None and suggest < step.threshold else None,
        accept_rate=population.accept_rate,
        histogram=population.histogram,
        steps=tuple(_threshold_test(one, verdicts) for one in verdicts.test.steps),
        issued_at=issued_at,
        expires_at=issued_at + timedelta(days=rule.valid_days),
    )
    certificate = _with_slices(certificate, population.slices)
    return replace(certificate, claim=claim_by_verdicts(certificate, verdicts.cardinality))


def claim_by_verdicts(certificate: Certificate, cardinality: Cardinality) -> str:
    """Return the claim of a certificate that rests on verdicts: the guarantee and the population that it is about."""
    unit = "products given values" if cardinality is Cardinality.MANY else "values"
    return (
        f"Of the {unit} of {certificate.attribute} written at scores >= {certificate.threshold:.6f} for products "
        f"{claim.PATHS[certificate.modality]}, at least {certificate.target:.1%} are right, as people judge them. "
        f"People judged {certificate.accepted:,} such products without a value, drawn uniformly, and found "
        f"{certificate.wrong:,} wrong; a value that they could not judge counts as wrong. This statement, one per "
        "attribute for products with and one for products without a usable picture, is wrong with probability at most "
        f"{certificate.tested_at:.3g}, however often the verdicts were looked at. It holds for the unlabelled products "
        f"of the time of the draw, {certificate.data_window}, and for products that are like them. Nothing is written "
        "in a category or language that had none."
    )


def same_evidence(one: Certificate, other: Certificate) -> bool:
    """Whether two certificates by verdicts allow the same for the same verdicts, whenever they were issued."""
    return one.basis is other.basis is CertificateBasis.VERDICTS and (
        (one.threshold, one.label_set_hash, one.values, one.standard, one.scored_by)
        == (other.threshold, other.label_set_hash, other.values, other.standard, other.scored_by)
    )


def _threshold_test(step: Step, verdicts: Verdicts) -> ThresholdTest:
    places = verdicts.drawn.judged_at(step.threshold, verdicts.test.sequence.first_sample).tolist()
    return ThresholdTest(
        threshold=step.threshold,
        accepted=step.judged,
        wrong=step.wrong,
        groups=len({verdicts.content_hashes[place] for place in places}),
        deff=1.0,
        p_value=min(1.0, 1 / step.wealth),
        lower_bound=step.lower_bound,
        passed=step.certified,
    )


def _with_slices(certificate: Certificate, slices: Collection[Slice]) -> Certificate:
    languages, categories = (sorted({one[part] for one in slices}) for part in (0, 1))
    unseen = sorted({(language, category) for language in languages for category in categories} - set(slices))
    return replace(
        certificate,
        languages=tuple(languages),
        categories=tuple(categories),
        unseen_slices=tuple(UnseenSlice(language, category) for language, category in unseen),
    )
