"""Certificates: what a model version may write (PRECISION, certificate 10). An abstention is a certificate too.

Certificates are part of the model version (certificates.json, contract schemas/certificate.v2.json); every row that one
allowed carries its id. The id is a hash of the certificate's content, so an edited certificate is refused when it is
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from math import isfinite
from typing import Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.units import SCORE_TYPE, UNIT
from catalog_enrichment.records import Modality, Reason, stable_hash

CONTRACT = 2
"""Version of the certificate's contract, schemas/certificate.vN.json."""

HISTOGRAM_BINS = 20
"""Equal bins of [0, 1] in which the top scores of unlabelled products are counted."""


class CertificateStatus(StrEnum):
    """Merchant labels make a certificate provisional; a uniform audit of the catalog confirms it."""

    PROVISIONAL = "provisional"
    CONFIRMED = "confirmed"


class CertificateBasis(StrEnum):
    """The labels that a certificate rests on."""

    MERCHANT_LABELS = "merchant_labels"
    """Values that merchants gave; the unlabelled products were shown to be like the labelled ones."""
    GOLD_SAMPLE = "gold_sample"
    """Answers of people about a uniform sample of the unlabelled products."""
    VERDICTS = "verdicts"
    """Verdicts of people about uniformly drawn proposals for unlabelled products."""
    AUDIT = "audit"
    """Verdicts of people about uniformly drawn values that were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBy:
    """What gives a score besides the product. Another value of any of these can give another score."""

    weights_hash: str
    """Identifies the model: its version number does not exist yet when the certificate is issued."""
    preprocessing_hash: str
    max_image_bytes: int
    max_image_pixels: int
    """Limits of the config section [images]: a picture beyond them is unusable."""
    compute_type: str
    """Number type and device, e.g. fp32-cpu."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standard:
    """What the writer requires of a certificate: its config's section [precision], and this release's units."""

    target: float
    """A certificate for a lower precision must not be used."""
    delta: float
    """A certificate that may be wrong with a greater probability must not be used."""
    score_type: str = SCORE_TYPE
    unit: str = UNIT

    def met_by(self, certificate: Certificate) -> bool:
        return (
            certificate.target >= self.target
            and certificate.delta <= self.delta
            and (certificate.score_type, certificate.unit) == (self.score_type, self.unit)
        )


@dataclass(frozen=True, slots=True)
class ThresholdTest:
    """Test of one threshold of the fixed sequence. Counts and test: :class:`ClusterTest`."""

    threshold: float
    accepted: int
    wrong: int
    groups: int
    deff: float
    p_value: float
    lower_bound: float
    passed: bool
    unexplained: float = 0.0
    """Share of the accepted unlabelled products that counts as wrong, whatever the labels say (:mod:`alike`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alikeness:
    """Comparison of labelled with unlabelled products (:mod:`alike`), which uses no value of a label."""

    labelled: int
    unlabelled: int
    """Products compared."""
    score_distance: float
    """Largest difference of the two distribution functions of the scores."""
    score_p_value: float
    auc: float
    """Probability that the classifier ranks a labelled product above an unlabelled one; .5 where they are alike."""
    auc_p_value: float
    noticeable_share: float
    """Share of unlabelled products without a value, scoring below the median of the others, that the score test notices
    with probability .8."""
    below_tenth: float
    """Share of the unlabelled products that score below what nine in ten of the labelled ones reach."""
    level: float
    """Probability with which a difference is found between products that are alike."""

    @property
    def p_value(self) -> float:
        """P-value of both tests together (Bonferroni)."""
        return min(1.0, 2 * min(self.score_p_value, self.auc_p_value))

    @property
    def alike(self) -> bool:
        """True where no difference was found."""
        return self.p_value > self.level


@dataclass(frozen=True, slots=True)
class Stratum:
    """One cell of the weights (PRECISION, certificate 5), at the certified threshold."""

    name: str
    """Language where there are several, category and content-group sizes, e.g. "Apparel, groups of 1"."""
    certification_products: int
    accepted: int
    """Accepted products of the certification fold."""
    open_share: float
    """Share of the products to fill."""
    weight: float
    """Open share / certification share, at most ``strata.MAX_WEIGHT``."""


@dataclass(frozen=True, slots=True)
class RefusedCategory:
    """A first-level category of one language with products to fill and too little evidence to claim anything there."""

    category: str
    """The category with all below it; "" for products without one."""
    accepted: int
    """Accepted certification products."""
    missing: int
    """Accepted certification products that are missing."""
    unlabelled_products: int
    language: str
    """"" for products without one."""
    labelled_missing: int
    """About how many more labelled products of it would be enough: a share is in the certification fold, and of these a
    share is accepted."""
    why: str
    """Too few accepted products, or one would stand for too many products to fill."""


@dataclass(frozen=True, slots=True)
class RefusedLanguage:
    """A language with products to fill and too little evidence, as :class:`RefusedCategory`."""

    language: str
    accepted: int
    missing: int
    unlabelled_products: int
    labelled_missing: int
    why: str


@dataclass(frozen=True, slots=True)
class UnseenSlice:
    """A certified language and a certified category that had no certification product, or nothing to fill, together."""

    language: str
    category: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Values of the pool with ``score >= threshold`` may be written, for one modality path and one set of weights."""

    contract: int = CONTRACT
    attribute: str
    modality: Modality
    values: tuple[str, ...]
    """The pool: the values that may be written."""
    threshold: float | None
    """None: an abstention; nothing is written, for the reason in ``why_abstains``."""
    why_abstains: str = ""
    score_type: str = SCORE_TYPE
    unit: str = UNIT
    """What is counted."""
    accepted: int
    """N: accepted units of the certification fold at the threshold."""
    wrong: int
    """K: wrong units among them."""
    groups: int
    """G: content groups with an accepted unit."""
    deff: float
    """Design effect: how many accepted units count as one independent unit, at least 1."""
    lower_bound: float
    """Lower bound of the precision at confidence 1 - ``tested_at``; 0 for an abstention."""
    target: float
    delta: float
    """Probability with which the first certificate on a label set may be wrong."""
    use_number: int
    """Number of this use of the certification labels; 1 is the first."""
    certification_round: int
    """Number of the certification fold, from 0; a new one is drawn of products that never certified. -1: a gold
    sample."""
    tested_at: float
    """Share of delta that this use may spend: the level of its test."""
    claim: str
    """The guarantee in words."""
    status: CertificateStatus = CertificateStatus.PROVISIONAL
    basis: CertificateBasis = CertificateBasis.MERCHANT_LABELS
    alikeness: Alikeness | None = None
    """Whether unlabelled products were found to be like the labelled ones; None where they were not compared."""
    unexplained: float = 0.0
    """Share of the accepted unlabelled products at the threshold that counts as wrong because the labelled products do
    not explain it."""
    label_set_hash: str
    data_window: str
    """Source of the labelled products, in words or as an interval."""
    certification_products: int
    """Labelled products of the certification fold on this modality path."""
    unlabelled_products: int
    """Products to fill on this modality path, that the claim is about."""
    certification_near_duplicate_rate: float
    """Share of the certification products with a product of their content group in training: 0, folds share none."""
    unlabelled_near_duplicate_rate: float
    """The same of the products to fill; they are easier."""
    strata: tuple[Stratum, ...]
    """The cells of the weights at the threshold; empty where every weight is one."""
    refused_categories: tuple[RefusedCategory, ...]
    refused_languages: tuple[RefusedLanguage, ...] = ()
    unseen_slices: tuple[UnseenSlice, ...] = ()
    """Nothing is written there: what is known of a category in one language says nothing about another one."""
    weights_hash: str
    preprocessing_hash: str
    max_image_bytes: int
    max_image_pixels: int
    compute_type: str
    """See :class:`ScoredBy`."""
    issued_at: datetime
    expires_at: datetime
    suggest_threshold: float | None
    """Values with scores from here to the threshold are suggested; descriptive. None: none are."""
    categories: tuple[str, ...]
    """Categories with certification products and products to fill, also the refused; "" for products without one."""
    languages: tuple[str, ...]
    """The same of the languages."""
    accept_rate: float
    """Share of unlabelled products accepted at the threshold."""
    histogram: tuple[int, ...]
    """Top scores of unlabelled products in ``HISTOGRAM_BINS`` bins: the reference for drift."""
    steps: tuple[ThresholdTest, ...]
    """The tests of the fixed sequence, in order."""

    def __post_init__(self) -> None:
        for name in ("issued_at", "expires_at"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"certificate for {self.attribute}: {name} needs a time zone")
        if self.contract != CONTRACT:
            raise ValueError(f"certificate for {self.attribute}: contract must be {CONTRACT}, not {self.contract}")
        numbers = (
            self.threshold,
            self.suggest_threshold,
            self.lower_bound,
            self.accept_rate,
            self.deff,
            self.unexplained,
        )
        if not all(number is None or isfinite(number) for number in numbers):
            raise ValueError(f"certificate for {self.attribute}: numbers must be finite, not {numbers}")
        if (self.threshold is None) != bool(self.why_abstains):
            raise ValueError(
                f"certificate for {self.attribute}: why_abstains must be set if and only if there is no "
                f"threshold, not threshold = {self.threshold}, why_abstains = {self.why_abstains!r}"
            )

    @cached_property
    def certificate_id(self) -> str:
        """Hash of the certificate's content."""
        return stable_hash(self._content())

    @cached_property
    def pool(self) -> frozenset[str]:
        return frozenset(self.values)

    @cached_property
    def suggest_from(self) -> float | None:
        """The lowest score that is suggested; None for an abstention without a suggestion threshold."""
        levels = [level for level in (self.threshold, self.suggest_threshold) if level is not None]
        return min(levels, default=None)

    @cached_property
    def scored_by(self) -> ScoredBy:
        return ScoredBy(**{field.name: getattr(self, field.name) for field in fields(ScoredBy)})

    @cached_property
    def standard(self) -> Standard:
        """The standard by which it was issued."""
        return Standard(target=self.target, delta=self.delta, score_type=self.score_type, unit=self.unit)

    def rejection_reason(
        self,
        *,
        scored_by: ScoredBy,
        standard: Standard,
        modality: Modality,
        now: datetime,
        category: str | None,
        language: str | None,
    ) -> Reason | None:
        """Reason why the certificate must not be used for a product at this time; None if it may be used (I2)."""
        if self.threshold is None or modality != self.modality:
            return Reason.NO_CERTIFICATE
        if scored_by != self.scored_by or not standard.met_by(self):
            return Reason.CERTIFICATE_MISMATCH
        if now >= self.expires_at:
            return Reason.CERTIFICATE_EXPIRED
        return None if (language or "", category or "") in self._certified_slices else Reason.UNSEEN_SLICE

    @cached_property
    def _certified_slices(self) -> frozenset[tuple[str, str]]:
        """Language and category path of the products that may be written to."""
        refused_languages = {row.language for row in self.refused_languages}
        unseen = {(row.language, row.category) for row in self.unseen_slices}
        return frozenset(
            (language, category)
            for language in self.languages
            if language not in refused_languages
            for category in self.categories
            if (language, category) not in unseen
            and not any(
                row.language == language and is_below(category, row.category) for row in self.refused_categories
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON (no NaN, no infinity), with the certificate's id."""
        return self._content() | {"certificate_id": self.certificate_id}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """Read back :meth:`to_dict`. Raises ModelContractError for another contract version, missing or unknown fields
        or changed content."""
        where = f"certificate for {content.get('attribute')!r} ({content.get('modality')!r})"
        if content.get("contract") != CONTRACT:
            raise ModelContractError(
                f"{where} has contract version {content.get('contract', 1)}, this release reads version {CONTRACT}: it "
                "cannot tell what was certified then. Run train_model and promote_model for a version with new "
                "certificates; values that are written stay as they are."
            )
        expected = {field.name for field in fields(cls)} | {"certificate_id"}
        if differing := expected ^ set(content):
            raise ModelContractError(f"{where}: fields missing or unknown: {sorted(differing)}")
        try:
            certificate = cls(**{name: _read(name, value) for name, value in content.items() if name in _names(cls)})
        except (TypeError, ValueError) as problem:
            raise ModelContractError(f"{where} is damaged: {problem}") from None
        if certificate.certificate_id != content["certificate_id"]:
            raise ModelContractError(
                f"{where} was changed after it was issued: its id does not match. Register the model again."
            )
        return certificate

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("issued_at", "expires_at"):
            content[name] = content[name].astimezone(UTC).isoformat(timespec="microseconds")
        for name in ("values", "categories", "languages", "histogram"):
            content[name] = list(content[name])
        for name in _ROWS:
            content[name] = [asdict(row) for row in content[name]]
        content |= {name: getattr(self, name).value for name in ("modality", "status", "basis")}
        content["alikeness"] = None if self.alikeness is None else asdict(self.alikeness)
        return content


_ROWS: dict[str, type[Any]] = {
    "steps": ThresholdTest,
    "strata": Stratum,
    "refused_categories": RefusedCategory,
    "refused_languages": RefusedLanguage,
    "unseen_slices": UnseenSlice,
}
"""Fields that hold rows, with the type of a row."""


def is_below(category: str, root: str) -> bool:
    """Whether ``category`` is ``root`` or a category below it; without a category ("") only "" is."""
    return category == root or (root != "" and category.startswith(root + "/"))


def _names(cls: type[Certificate]) -> set[str]:
    return {field.name for field in fields(cls)}


def _read(name: str, value: Any) -> Any:
    match name:
        case "issued_at" | "expires_at":
            return datetime.fromisoformat(value)
        case "modality":
            return Modality(value)
        case "status":
            return CertificateStatus(value)
        case "basis":
            return CertificateBasis(value)
        case "alikeness":
            return None if value is None else Alikeness(**value)
        case _ if name in _ROWS:
            return tuple(_ROWS[name](**row) for row in value)
        case "values" | "categories" | "languages" | "histogram":
            return tuple(value)
        case _:
            return value
