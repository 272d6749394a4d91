"""What a certificate says in words: its claim, or why it abstains."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from shlex import quote

import numpy as np

from catalog_enrichment.precision.certificate import (
    Alikeness,
    Certificate,
    CertificateBasis,
    RefusedCategory,
    RefusedLanguage,
    ThresholdTest,
)
from catalog_enrichment.precision.grid import GridSize, threshold_grid
from catalog_enrichment.precision.pool import Pool
from catalog_enrichment.precision.scored_labels import UnlabelledProducts
from catalog_enrichment.precision.strata import Cells, UniformDraw
from catalog_enrichment.precision.units import accept_scores
from catalog_enrichment.records import Cardinality, Modality

FEW_OPEN = 10
"""With fewer open products per certification product, the realised share of right values can differ more."""

PATHS = {Modality.BOTH: "with text and picture", Modality.TEXT_ONLY: "without a usable picture"}


@dataclass(frozen=True, slots=True)
class CertificationFold:
    """The labelled products that a certificate may use, without their labels."""

    products: int
    share: float
    """Of all labelled products."""
    uniform: bool = False
    """The products are those of gold samples; nothing but answers helps."""

    @property
    def more(self) -> str:
        """What more of helps."""
        return "answers to gold samples" if self.uniform else "labelled products"


def nothing_claimed(attribute: str, modality: Modality) -> str:
    return f"Nothing is claimed: {attribute} is not written for products {PATHS[modality]}."


def in_words(certificate: Certificate, cardinality: Cardinality) -> str:
    """The claim of a certificate with a threshold: the guarantee and the population that it is about."""
    unit = "products given values" if cardinality is Cardinality.MANY else "values"
    return (
        f"Of the {unit} of {certificate.attribute} written at scores >= {certificate.threshold:.6f} for products "
        f"{PATHS[certificate.modality]}, at least {certificate.target:.1%} are right. This statement, one per "
        "attribute for products with and one for products without a usable picture, is wrong with probability at most "
        f"{certificate.tested_at:.3g}, the share of use {certificate.use_number} of its labels. "
        f"{_population(certificate)}"
    )


def tested(certificate: Certificate) -> str:
    """The result of the certificate's test in one line."""
    if certificate.threshold is None:
        return f"abstains: {certificate.why_abstains}"
    return (
        f"{certificate.wrong:,} of {certificate.accepted:,} {_TESTED[certificate.basis]} wrong: at least "
        f"{certificate.lower_bound:.1%} right"
    )


_TESTED = {
    CertificateBasis.MERCHANT_LABELS: "accepted certification products",
    CertificateBasis.GOLD_SAMPLE: "accepted products of the gold sample",
    CertificateBasis.VERDICTS: "judged proposals",
    CertificateBasis.AUDIT: "audited values",
}
"""What was counted, by the labels that the certificate rests on."""


def rests_on(certificate: Certificate) -> str:
    """What lets the labels speak of unlabelled products, in a sentence or two."""
    found = certificate.alikeness
    if certificate.basis is CertificateBasis.GOLD_SAMPLE:
        return "The labels are people's answers about unlabelled products, which were drawn uniformly."
    if certificate.basis is not CertificateBasis.MERCHANT_LABELS:
        return "The labels are people's verdicts on values that were drawn uniformly."
    if found is None:
        return "The labels are merchants' values."
    text = (
        f"The labels are merchants' values. {found.labelled:,} labelled and {found.unlabelled:,} unlabelled products "
        f"were compared by their scores, texts, pictures and categories (p = {found.p_value:.2f}): "
    )
    if not found.alike:
        return text + (
            f"they differ, so {certificate.unexplained:.1%} of what is accepted, as much as the labelled products do "
            "not explain, counts as wrong."
        )
    return text + (
        f"no difference was found. If {found.noticeable_share:.0%} of the unlabelled products had no value and low "
        "scores, it would probably have been found; fewer of them, or some with the scores of the others, may not be."
    )


def _population(certificate: Certificate) -> str:
    """PRECISION, certificate 5 and 9."""
    unlabelled_products, labelled = certificate.unlabelled_products, certificate.certification_products
    text = (
        "It holds for the population that the unlabelled products are drawn from, by language, category and "
        f"content-group size. {rests_on(certificate)}"
    )
    if unlabelled_products < FEW_OPEN * labelled:
        text += (
            f" There are {unlabelled_products} unlabelled products, fewer than {FEW_OPEN} times the {labelled} certification "
            "products: the share of right values among these few can differ more from it."
        )
    if refused := _refused(certificate):
        text += f" Nothing is claimed or written for {'; '.join(refused)}."
    return text


def _refused(certificate: Certificate) -> list[str]:
    """Each refused language and category, with the reason and what is missing."""
    several = len(certificate.languages) > 1
    rows: list[tuple[str, RefusedLanguage | RefusedCategory]] = [
        (language_name(row.language), row) for row in certificate.refused_languages
    ]
    for category in certificate.refused_categories:
        name = category.category or "products without a category"
        rows.append((f"{name} in {language_name(category.language)}" if several else name, category))
    return [f"{name} ({row.why}; about {row.labelled_missing:,} more labelled ones needed)" for name, row in rows]


def language_name(language: str) -> str:
    """The language as sentences about refusals name it."""
    return f"language {language}" if language else "products without a language"


def why_untestable(
    pool: Pool,
    unlabelled_products: UnlabelledProducts,
    cells: Cells | UniformDraw,
    fold: CertificationFold,
    size: GridSize,
) -> str:
    """Why no threshold can be tested, whatever the labels of the certification fold; "" if one can."""
    if not pool.mask.any():
        return "every value was wrong too often on the choosing fold"
    if not len(unlabelled_products.categories):
        return "there are no unlabelled products, whose scores the thresholds are chosen from"
    if not cells.slices:
        return (
            "no unlabelled product is in a certified language and category, as the certification fold has; label "
            "products where there are some"
        )
    accept = accept_scores(unlabelled_products.probabilities, pool.cardinality, pool.mask)
    if len(threshold_grid(accept, fold.products, size)):
        return ""
    share = float(np.isfinite(accept).mean())
    reachable = fold.products * share
    missing = ceil((size.fewest - reachable) / (share * fold.share)) if share else 0
    advice = f"; about {missing:,} more {fold.more} would be enough to test it" if missing else ""
    those = "answers" if fold.uniform else "labelled ones in the certification fold"
    return (
        f"too few products: of {fold.products} {those} about {reachable:.0f} could be "
        f"accepted, {ceil(size.fewest)} are needed{advice}"
    )


def why_unlike(attribute: str, found: Alikeness, verdicts: tuple[int, int]) -> str:
    """Why merchants' labels cannot certify: unlabelled products are not like the labelled ones. ``verdicts``: how many
    certify without a wrong value, and with 2 wrong ones in 100."""
    seen = []
    if found.score_p_value <= found.level / 2 and found.below_tenth <= 0.1:
        seen.append(f"the scores of products without a {attribute} are distributed in another way")
    elif found.score_p_value <= found.level / 2:
        seen.append(
            f"of {found.unlabelled:,} products without a {attribute} {found.below_tenth:.0%} score below what 90% of "
            "those with one reach"
        )
    if found.auc_p_value <= found.level / 2:
        seen.append(
            f"texts, pictures and categories tell products without a {attribute} from those with one (area under the "
            f"ROC curve {found.auc:.2f})"
        )
    return (
        f"{' and '.join(seen)}: products without a {attribute} may have none, and merchants' labels say nothing about "
        f"that. {_people_decide(attribute, verdicts)}"
    )


def why_not_compared(attribute: str, found: Alikeness, verdicts: tuple[int, int]) -> str:
    """Why merchants' labels cannot certify: there are too few products to compare. ``verdicts``: as above."""
    return (
        f"{found.labelled:,} labelled and {found.unlabelled:,} unlabelled products are too few to show that products "
        f"without a {attribute} are like those with one: even if {found.noticeable_share:.0%} of them had none, the "
        f"comparison would hardly notice (precision.noticeable_share). More labelled products help. "
        f"{_people_decide(attribute, verdicts)}"
    )


def _people_decide(attribute: str, verdicts: tuple[int, int]) -> str:
    (fewest, usual), name = verdicts, quote(attribute)
    return (
        f"People can decide: {fewest} verdicts on proposed values certify them if none is wrong, about {usual} if 2 in "
        "100 are wrong. In this order: enrich_catalog --set enrich.alias=candidate (makes proposals; writes only what "
        f"this version is certified for), audit_sample --of proposals --attribute {name}, serve_audit, audit_ingest, "
        f"certify_model --by-verdicts {name}. A gold sample certifies later versions too: audit_sample --gold N, "
        "serve_audit, audit_ingest, train_model"
    )


def why_failed(first: ThresholdTest, needed: float, fold: CertificationFold) -> str:
    """Why no threshold is certified, the first one having failed. ``needed``: accepted products with which it would
    pass at the same error rate and design effect; infinite where no number would be enough."""
    if not first.accepted:
        return (
            f"no labelled product of the certification fold counts at the first threshold, {first.threshold:.4f}, "
            "which unlabelled products reach: the labelled ones have lower scores, or there are too few of them in "
            "each language and category; label products that are like the unlabelled ones"
        )
    advice = "the error rate itself is too high: a better model is needed"
    if np.isfinite(needed):
        missing = ceil(fold.products * (needed / first.accepted - 1) / fold.share)
        advice = f"at this error rate about {missing:,} more {fold.more} would be enough"
    if fold.uniform:
        advice += '; a product without a value counts as wrong, and so does "cannot tell"'
    return (
        f"{first.wrong} of {first.accepted} wrong at the first threshold, {first.threshold:.4f} (p = "
        f"{first.p_value:.3f}, design effect {first.deff:.2f}); {advice}"
    )
