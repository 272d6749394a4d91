"""Certificates in words: what they claim, why they abstain, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from shlex import quote
from typing import Any

import numpy as np

from catalog_enrichment.precision.certificate import (
    Alikeness,
    Certificate,
    CertificateBasis,
    CertificateStatus,
    RefusedCategory,
    RefusedLanguage,
    ThresholdTest,
    is_below,
)
from catalog_enrichment.precision.pool import Pool
from catalog_enrichment.precision.thresholds import ThresholdPlan
from catalog_enrichment.precision.units import CertificationScores
from catalog_enrichment.records import Cardinality, Modality

FEW_UNLABELLED = 10
"""With fewer unlabelled products per certification product, the realised share of right values can differ more."""

PATHS = {Modality.BOTH: "with text and picture", Modality.TEXT_ONLY: "without a usable picture"}


NO_PRODUCTS = "the training data have no such product"
"""Why a certificate abstains for a modality path that no product is on: pages leave it out."""


def about_products(certificates: Iterable[Certificate]) -> list[Certificate]:
    """Return the certificates of the modality paths that products of the training data are on."""
    return [certificate for certificate in certificates if certificate.why_abstains != NO_PRODUCTS]


# --- claims -----------------------------------------------------------------------------------------------------------


def nothing_claimed(attribute: str, modality: Modality) -> str:
    return f"Nothing is claimed: {attribute} is not written for products {PATHS[modality]}."


def in_words(certificate: Certificate, cardinality: Cardinality) -> str:
    """Return the claim of a certificate with a threshold: the guarantee and the population that it is about."""
    unit = "products given values" if cardinality is Cardinality.MANY else "values"
    guarantee = (
        f"Of the {unit} of {certificate.attribute} written at scores >= {certificate.threshold:.6f} for products "
        f"{PATHS[certificate.modality]}, at least {certificate.target:.1%} are right"
    )
    statement = (
        "This statement, one per attribute for products with and one for products without a usable picture, is wrong "
        f"with probability at most {certificate.tested_at:.3g}"
    )
    if certificate.basis is CertificateBasis.VERDICTS:
        return (
            f"{guarantee}, as people judge them. People judged {certificate.accepted:,} such products without a value, "
            f"drawn uniformly, and found {certificate.wrong:,} wrong; a value that they could not judge counts as "
            f"wrong. {statement}, however often the verdicts were looked at. It holds for the unlabelled products of "
            f"the time of the draw, {certificate.data_window}, and for products that are like them. Nothing is written "
            "in a category or language that had none."
        )
    return (
        f"{guarantee}. {statement}, the share of use {certificate.use_number} of its labels. {_population(certificate)}"
        + (f" {certificate.trained_on}." if certificate.trained_on else "")
    )


def tested(certificate: Certificate) -> str:
    """Return the result of the certificate's test in one line."""
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
"""The noun for the counted products, by the labels that the certificate rests on."""


def rests_on(certificate: Certificate) -> str:
    """Return what lets the labels speak of unlabelled products, in a sentence or two."""
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
    """Return the population of the claim (PRECISION, certificate 5 and 9)."""
    unlabelled, labelled = certificate.unlabelled_products, certificate.certification_products
    text = (
        "It holds for the population that the unlabelled products are drawn from, by language, category and "
        f"content-group size. {rests_on(certificate)}"
    )
    if unlabelled < FEW_UNLABELLED * labelled:
        text += (
            f" There are {unlabelled} unlabelled products, fewer than {FEW_UNLABELLED} times the {labelled} "
            "certification products: the share of right values among these few can differ more from it."
        )
    if refused := _refused(certificate):
        text += f" Nothing is claimed or written for {'; '.join(refused)}."
    return text


def _refused(certificate: Certificate) -> list[str]:
    """Return each refused language and category, with the reason and what is missing."""
    several = len(certificate.languages) > 1
    refused: Sequence[RefusedLanguage] = [*certificate.refused_languages, *certificate.refused_categories]
    texts = []
    for row in refused:
        name = language_name(row.language)
        if isinstance(row, RefusedCategory):
            name = (row.category or "products without a category") + (f" in {name}" if several else "")
        texts.append(f"{name} ({row.why}; about {row.labelled_missing:,} more labelled ones needed)")
    return texts


def language_name(language: str) -> str:
    """Return the language as sentences about refusals name it."""
    return f"language {language}" if language else "products without a language"


# --- abstentions ------------------------------------------------------------------------------------------------------


def why_untestable(pool: Pool, fold: CertificationScores, slices: Sequence[object], plan: ThresholdPlan) -> str:
    """Return why no threshold can be tested, whatever the labels of the certification ``fold``; "" if one can.

    ``slices``: those of the fold that have unlabelled products.
    """
    if not pool.mask.any():
        return "every value was wrong too often on the choosing fold"
    if not len(plan.accept):
        return "there are no unlabelled products, whose scores the thresholds are chosen from"
    if not slices:
        return (
            "no unlabelled product is in a certified language and category, as the certification fold has; label "
            "products where there are some"
        )
    if len(plan.grid):
        return ""
    share = float(np.isfinite(plan.accept).mean())
    reachable = len(fold) * share
    missing = ceil((plan.size.fewest - reachable) / (share * fold.fold_share)) if share else 0
    advice = f"; about {missing:,} more {_more(fold)} would be enough to test it" if missing else ""
    labels = "answers" if fold.uniform else "labelled ones in the certification fold"
    return (
        f"too few products: of {len(fold)} {labels} about {reachable:.0f} could be accepted, "
        f"{ceil(plan.size.fewest)} are needed{advice}"
    )


def why_failed(first: ThresholdTest, needed: float, fold: CertificationScores) -> str:
    """Return why no threshold is certified, where the first test failed. ``needed``: accepted products with which it
    would pass at the same error rate and design effect; infinite where no number would be enough."""
    if not first.accepted:
        return (
            f"no labelled product of the certification fold counts at the first threshold, {first.threshold:.4f}, "
            "which unlabelled products reach: the labelled ones have lower scores, or there are too few of them in "
            "each language and category; label products that are like the unlabelled ones"
        )
    advice = "the error rate itself is too high: a better model is needed"
    if np.isfinite(needed):
        missing = ceil(len(fold) * (needed / first.accepted - 1) / fold.fold_share)
        advice = f"at this error rate about {missing:,} more {_more(fold)} would be enough"
    if fold.uniform:
        advice += '; a product without a value counts as wrong, and so does "cannot tell"'
    return (
        f"{first.wrong} of {first.accepted} wrong at the first threshold, {first.threshold:.4f} (p = "
        f"{first.p_value:.3f}, design effect {first.deff:.2f}); {advice}"
    )


def _more(fold: CertificationScores) -> str:
    return "answers to gold samples" if fold.uniform else "labelled products"


def why_no_fold(attribute: str, needed: int) -> str:
    """Say that too few products have a merchant's value for a certification fold; ``needed`` is its fewest."""
    return (
        f"too few products with a merchant's value of {attribute} are left that the proposer has not seen, or too many "
        f"of them are alike: a certification fold needs at least {needed}. Label more, or certify by people's "
        "verdicts: audit_sample --of proposals draws proposals for them, and certify_model --by-verdicts tests them"
    )


def why_unlike(attribute: str, found: Alikeness, verdicts: tuple[int, int]) -> str:
    """Return why merchants' labels cannot certify: unlabelled products are not like labelled products. ``verdicts``:
    how many certify without a wrong value, and with 2 wrong values in 100."""
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
    """Return why merchants' labels cannot certify: there are too few products to compare. ``verdicts``: as above."""
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


# --- explanations -----------------------------------------------------------------------------------------------------


def unseen(certificate: Certificate, categories: Sequence[str], languages: Sequence[str]) -> str:
    """Return what the certificate does not cover of products in these categories and languages ("" for none), and what
    helps, as the end of a sentence.

    It names refused languages and categories with the labelled products that they lack; else the categories and
    languages that had no labelled product.
    """
    if missing := _missing_labels(certificate, categories, languages):
        return f"is not written there: {' and '.join(missing)} are needed to certify it"
    names = [f"category {name or '(none)'}" for name in categories if name not in certificate.categories]
    names += [f"language {name or '(none)'}" for name in languages if name not in certificate.languages]
    listed = ", ".join(names[:5]) or "its category together with its language"
    return (
        f"abstains: {listed} had no labelled product when the version was certified; label products of it, then train "
        "and promote a version"
    )


def _missing_labels(certificate: Certificate, categories: Sequence[str], languages: Sequence[str]) -> list[str]:
    """Return the labelled products that the refused languages and categories lack, where the products are in them."""
    several = len(certificate.languages) > 1
    missing = [
        f"about {row.labelled_missing:,} more labelled products {_in_language(row.language)}"
        for row in certificate.refused_languages
        if row.language in languages
    ]
    for row in certificate.refused_categories:
        if any(is_below(name, row.category) for name in categories) and (row.language in languages or not languages):
            products = f"products of {row.category}" if row.category else "products without a category"
            where = f" {_in_language(row.language)}" if several else ""
            missing.append(f"about {row.labelled_missing:,} more labelled {products}{where}")
    return missing


def _in_language(language: str) -> str:
    return f"in language {language}" if language else "without a language"


def differing_fields(certificate: Certificate, compute_type: str | None, images: Mapping[str, Any]) -> list[str]:
    """Return the fields of :class:`ScoredBy` that explain a certificate mismatch, in words.

    ``compute_type``: of the scores; ``images``: the section [images] of the run's config. Where neither differs, the
    weights or the preprocessing do, which a run does not store.
    """
    facts = {
        "compute type": (certificate.compute_type, compute_type),
        "images.max_bytes": (certificate.max_image_bytes, images.get("max_bytes")),
        "images.max_pixels": (certificate.max_image_pixels, images.get("max_pixels")),
        "images.keep_scaled": (certificate.scaled_side is not None, images.get("keep_scaled")),
    }
    if certificate.scaled_side is not None:
        facts["images.scaled_side"] = (certificate.scaled_side, images.get("scaled_side"))
    differing = [
        f"{name} (certificate {certified}, run {used})"
        for name, (certified, used) in facts.items()
        if used is not None and used != certified
    ]
    return differing or ["weights or preprocessing"]


@dataclass(frozen=True, slots=True)
class CertificateNumber:
    """A number of a certificate with its meaning."""

    name: str
    value: str
    meaning: str


def certificate_numbers(certificate: Certificate, provisional_cap: int | None = None) -> list[CertificateNumber]:
    """Return the numbers of a certificate with a threshold, explained. ``provisional_cap``: of the run's config, if
    known."""
    c = certificate
    limit = "a limited number of" if provisional_cap is None else f"{provisional_cap:,}"
    status = (
        f"merchants' labels gave it; until an audit confirms it, at most {limit} values of the attribute may stand "
        "(precision.provisional_cap)"
    )
    if c.status is CertificateStatus.CONFIRMED:
        status = "an audit of the catalog confirmed it"
    rows = [
        ("threshold", f"{c.threshold:.4f}", "values with a score from here on are written"),
        ("N", f"{c.accepted:,}", "accepted: certification products with a score at or above the threshold"),
        ("K", f"{c.wrong:,}", "accepted certification products with a wrong value"),
        ("G", f"{c.groups:,}", "content groups with an accepted product; products of one group are near copies"),
        ("design effect", f"{c.deff:.2f}", "so many accepted products count as one independent product"),
        (
            "lower bound",
            f"{c.lower_bound:.1%}",
            f"the precision is at least this, with confidence {1 - c.tested_at:.1%}",
        ),
        ("delta", f"{c.delta:g}", "probability with which the first certificate on these labels may be wrong"),
        (
            "use number",
            f"{c.use_number}",
            f"how often these labels were used to certify; this use may spend {c.tested_at:.3g}",
        ),
        ("status", c.status.value, status),
        ("issued", _day(c.issued_at), "training gave the certificate on this day"),
        ("expires", _day(c.expires_at), "from this day nothing is written; train and promote a new version before"),
    ]
    return [CertificateNumber(*row) for row in rows]


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d} UTC"
