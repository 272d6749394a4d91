"""Certificates: what a model version may write (PRECISION, certificate 10). An abstention is a certificate too.

Certificates are part of the model version (certificates.json, contract schemas/certificate.v1.json). Every row that a
certificate allowed carries its id, a hash of its content, so an edited certificate is refused when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from math import isfinite
from typing import Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.units import SCORE_TYPE, UNIT, ValueCount
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import ANY_VALUE, Modality, stable_hash

CONTRACT = 1
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
    """Values that merchants gave; the unlabelled products were shown to be like the labelled."""
    GOLD_SAMPLE = "gold_sample"
    """Answers of people about a uniform sample of the unlabelled products."""
    VERDICTS = "verdicts"
    """Verdicts of people about uniformly drawn proposals for unlabelled products."""
    AUDIT = "audit"
    """Verdicts of people about uniformly drawn values that were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBy:
    """Everything that gives a score besides the product. Another value of any of these can give another score."""

    weights_hash: str
    """Identifies the model: its version number does not exist yet when the certificate is issued."""
    preprocessing_hash: str
    max_image_bytes: int
    max_image_pixels: int
    """Limits of the config section [images]: a picture beyond them is unusable."""
    scaled_side: int | None
    """`images.scaled_side` of the copies that the scores come from; None: they come from the pictures themselves."""
    compute_type: str
    """Number type and device, e.g. fp32-cpu."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standard:
    """The writer's requirements of a certificate: its config's section [precision], and this release's units."""

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
    """Test of one threshold of the fixed sequence: "the precision is below the target"."""

    threshold: float
    accepted: int
    """N: accepted products."""
    wrong: int
    """K: wrong products among them."""
    groups: int
    """G: content groups with an accepted product."""
    deff: float
    """Design effect: how many accepted products count as one independent product, at least 1."""
    p_value: float
    lower_bound: float
    """Lower bound of the precision at confidence 1 - delta; at least the target if and only if ``passed``."""
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
    """Probability that the classifier ranks a labelled above an unlabelled product; .5 where they are alike."""
    auc_p_value: float
    noticeable_share: float
    """Share of products without a value, scoring below the median of the others, that the score test notices with
    probability .8."""
    below_tenth: float
    """Share of the unlabelled products below the score that nine in ten labelled products reach."""
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
    unlabelled_share: float
    """Share of the unlabelled products."""
    weight: float
    """Unlabelled share / certification share, at most ``strata.MAX_WEIGHT``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedLanguage:
    """A language with unlabelled products and too little evidence to claim anything there."""

    language: str
    """"" for products without a language."""
    accepted: int
    """Accepted certification products."""
    missing: int
    """Accepted certification products that are missing."""
    unlabelled_products: int
    labelled_missing: int
    """About how many more labelled products would be enough: a share is in the certification fold, a share of these is
    accepted."""
    why: str
    """Too few products are accepted, or a product would stand for too many unlabelled products."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedCategory(RefusedLanguage):
    """A refused first-level category of the language; its fields are those of a refused language."""

    category: str
    """The category with all below it; "" for products without a category."""


@dataclass(frozen=True, slots=True)
class UnseenSlice:
    """A certified language and category without a certification product, or an unlabelled product, of both."""

    language: str
    category: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Permission to write the values of the pool with ``score >= threshold``, for one modality path and one set of
    weights. Fields with a default are those of an abstention of which nothing is known."""

    contract: int = CONTRACT
    attribute: str
    modality: Modality
    values: tuple[str, ...] = ()
    """The pool: the values that may be written."""
    threshold: float | None = None
    """None for an abstention: nothing is written, for the reason in ``why_abstains``."""
    why_abstains: str = ""
    score_type: str = SCORE_TYPE
    unit: str = UNIT
    """The unit that is counted."""
    accepted: int = 0
    wrong: int = 0
    groups: int = 0
    deff: float = 1.0
    lower_bound: float = 0.0
    """These five: of the test of the threshold (:class:`ThresholdTest`), at confidence 1 - ``tested_at``."""
    target: float
    delta: float
    """Probability with which the first certificate on a label set may be wrong."""
    use_number: int
    """Number of this use of the certification labels; 1 is the first."""
    certification_round: int
    """Number of the certification fold, from 0; the next is drawn of products that never certified. -1: gold sample."""
    tested_at: float
    """Share of delta that this use may spend: the level of its test."""
    claim: str
    """The guarantee in words."""
    status: CertificateStatus = CertificateStatus.PROVISIONAL
    basis: CertificateBasis = CertificateBasis.MERCHANT_LABELS
    alikeness: Alikeness | None = None
    """The comparison of unlabelled with labelled products; None where they were not compared."""
    unexplained: float = 0.0
    """Share of the accepted unlabelled products at the threshold that counts as wrong because the labelled products do
    not explain it."""
    label_set_hash: str
    data_window: str
    """Source of the labelled products, in words or as an interval."""
    certification_products: int = 0
    """Labelled products of the certification fold on this modality path."""
    unlabelled_products: int = 0
    """Unlabelled products on this modality path, that the claim is about."""
    certification_near_duplicate_rate: float = 0.0
    """Share of the certification products with a product of their content group in training: 0, folds share none."""
    unlabelled_near_duplicate_rate: float = 0.0
    """The same share of the unlabelled products; they are easier."""
    strata: tuple[Stratum, ...] = ()
    """The cells of the weights at the threshold; empty where every weight is 1."""
    by_value: tuple[ValueCount, ...] = ()
    """The accepted values apart, most accepted first; descriptive, the guarantee is about all together. A product with
    several values counts for each. Left out of the JSON where it is empty: abstentions, certificates from verdicts."""
    refused_categories: tuple[RefusedCategory, ...] = ()
    refused_languages: tuple[RefusedLanguage, ...] = ()
    unseen_slices: tuple[UnseenSlice, ...] = ()
    """Nothing is written there: the results for a category in one language say nothing about another language."""
    weights_hash: str
    preprocessing_hash: str
    max_image_bytes: int
    max_image_pixels: int
    scaled_side: int | None
    compute_type: str
    """See :class:`ScoredBy`."""
    trained_on: str = ""
    """What was declared about the labels that the proposer has seen, a sentence; left out of the JSON for a model that
    was trained here, whose folds tell it."""
    issued_at: datetime
    expires_at: datetime
    suggest_threshold: float | None = None
    """Values with scores from here to the threshold are suggested; descriptive. None: no value is."""
    categories: tuple[str, ...] = ()
    """Categories with certification and unlabelled products, also the refused; "" for products without a category."""
    languages: tuple[str, ...] = ()
    """The same of the languages."""
    accept_rate: float = 0.0
    """Share of unlabelled products accepted at the threshold."""
    histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS
    """Top scores of unlabelled products in ``HISTOGRAM_BINS`` bins: the reference for drift."""
    steps: tuple[ThresholdTest, ...] = ()
    """The tests of the fixed sequence, in order."""

    def __post_init__(self) -> None:
        where = f"certificate for {self.attribute}"
        for name in ("issued_at", "expires_at"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"{where}: {name} needs a time zone")
        for name in ("threshold", "suggest_threshold", "lower_bound", "accept_rate", "deff", "unexplained"):
            number = getattr(self, name)
            if number is not None and not isfinite(number):
                raise ValueError(f"{where}: {name} must be finite, not {number}")
        if (self.threshold is None) != bool(self.why_abstains):
            raise ValueError(
                f"{where}: why_abstains must be set if and only if there is no threshold, not threshold = "
                f"{self.threshold}, why_abstains = {self.why_abstains!r}"
            )

    @cached_property
    def certificate_id(self) -> str:
        """Hash of the certificate's content."""
        return stable_hash(self._content())

    @cached_property
    def pool(self) -> frozenset[str]:
        return frozenset(self.values)

    def covers(self, value: str) -> bool:
        """Return whether the certificate is about ``value``: it is in the pool, or the pool is any value."""
        return value in self.values or ANY_VALUE in self.values

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
        """Return why the certificate must not be used for a product at this time; None if it may be used (I2)."""
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
        """Return plain data for strict JSON (no NaN, no infinity), with the certificate's id."""
        return self._content() | {"certificate_id": self.certificate_id}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """Read back :meth:`to_dict`. Raises ModelContractError for another contract version, missing or unknown fields
        or changed content."""
        where = f"certificate for {content.get('attribute')!r} ({content.get('modality')!r})"
        if content.get("contract") != CONTRACT:
            raise ModelContractError(
                f"{where} has contract version {content.get('contract')}, this release reads version {CONTRACT}: train "
                "and promote a version with new certificates"
            )
        names = {field.name for field in fields(cls)}
        if differing := ((names | {"certificate_id"}) ^ set(content)) - (_LEFT_OUT_IF_EMPTY - set(content)):
            raise ModelContractError(f"{where}: fields missing or unknown: {sorted(differing)}")
        try:
            known = {name: content[name] for name in names & set(content)}
            certificate = cls(**{name: _READ[name](of) if name in _READ else of for name, of in known.items()})
        except (TypeError, ValueError) as problem:
            raise ModelContractError(f"{where} is damaged: {problem}") from None
        if certificate.certificate_id != content["certificate_id"]:
            raise ModelContractError(
                f"{where} was changed after it was issued: its id does not match. Register the model again."
            )
        return certificate

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = asdict(self)
        content |= {name: list(value) for name, value in content.items() if isinstance(value, tuple)}
        for name in _LEFT_OUT_IF_EMPTY:
            if not content[name]:
                del content[name]
        for name in ("issued_at", "expires_at"):
            content[name] = content[name].astimezone(UTC).isoformat(timespec="microseconds")
        return content | {name: content[name].value for name in ("modality", "status", "basis")}


_LEFT_OUT_IF_EMPTY = frozenset({"by_value", "trained_on"})


def is_below(category: str, root: str) -> bool:
    """Return whether ``category`` is ``root`` or a category below it; without a category ("") only "" is."""
    return category == root or (root != "" and category.startswith(root + "/"))


def _rows(row_type: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda rows: tuple(row_type(**row) for row in rows)


_READ: dict[str, Callable[[Any], Any]] = {
    "modality": Modality,
    "status": CertificateStatus,
    "basis": CertificateBasis,
    "alikeness": lambda row: None if row is None else Alikeness(**row),
    "strata": _rows(Stratum),
    "by_value": _rows(ValueCount),
    "refused_categories": _rows(RefusedCategory),
    "refused_languages": _rows(RefusedLanguage),
    "unseen_slices": _rows(UnseenSlice),
    "steps": _rows(ThresholdTest),
    **dict.fromkeys(("issued_at", "expires_at"), datetime.fromisoformat),
    **dict.fromkeys(("values", "categories", "languages", "histogram"), tuple),
}
"""The functions by which :meth:`Certificate.from_dict` reads the fields whose JSON is not the field itself."""
