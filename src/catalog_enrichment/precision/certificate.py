"""What a model version may write: the certificate (PRECISION, certificate 6). An abstention is one too.

It travels inside the model version (certificates.json); every row that it allowed carries its id. The id is a hash
of everything the certificate says, so a certificate that was edited is refused when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from math import isfinite
from typing import Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.units import SCORE_TYPE
from catalog_enrichment.records import Modality, Reason, stable_hash

HISTOGRAM_BINS = 20
"""Equal bins of [0, 1] in which the top scores of unlabelled products are counted."""


class CertificateStatus(StrEnum):
    """Merchant labels make a certificate provisional; a uniform audit of the catalog confirms it."""

    PROVISIONAL = "provisional"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class ThresholdTest:
    """One threshold of the fixed sequence, as it was tested."""

    threshold: float
    accepted: int
    wrong: int
    p_value: float
    lower_bound: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """``score >= threshold`` means write, for the values of the pool, on one modality path, by one set of weights."""

    attribute: str
    modality: Modality
    values: tuple[str, ...]
    """The pool: the values that may be written."""
    threshold: float | None
    """None: an abstention; nothing is written, and ``why_abstains`` says why."""
    why_abstains: str = ""
    score_type: str = SCORE_TYPE
    accepted: int
    """N: accepted units of the certification fold at the threshold."""
    wrong: int
    """K: wrong units among them."""
    lower_bound: float
    """Clopper-Pearson lower bound of the precision at confidence 1 - delta / use_count; 0 for an abstention."""
    target: float
    delta: float
    """Tested at ``delta / use_count``."""
    use_count: int
    """How often this label set has been used to certify, this time included."""
    claim: str
    """The promise in words."""
    status: CertificateStatus = CertificateStatus.PROVISIONAL
    label_set_hash: str
    data_window: str
    """Which products the labels come from, in words or as an interval."""
    weights_hash: str
    """Binds the certificate to the model: the version number does not exist yet when it is issued."""
    numeric_path: str
    """fp32, bf16, int8: different scores."""
    preprocessing_hash: str
    issued_at: datetime
    expires_at: datetime
    suggest_threshold: float | None
    """From here to the threshold a value is suggested; descriptive. None: nothing below the threshold is."""
    categories: tuple[str, ...]
    """Categories that certification has seen; "" stands for products without one."""
    languages: tuple[str, ...]
    accept_rate: float
    """Share of unlabelled products accepted at the threshold."""
    histogram: tuple[int, ...]
    """Top scores of unlabelled products in ``HISTOGRAM_BINS`` bins: the reference for drift."""
    steps: tuple[ThresholdTest, ...]
    """The fixed sequence as tested, in order; the evidence."""

    def __post_init__(self) -> None:
        for name in ("issued_at", "expires_at"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"certificate for {self.attribute}: {name} needs a time zone")
        numbers = (self.threshold, self.suggest_threshold, self.lower_bound, self.accept_rate)
        if not all(number is None or isfinite(number) for number in numbers):
            raise ValueError(f"certificate for {self.attribute}: numbers must be finite, not {numbers}")
        if (self.threshold is None) != bool(self.why_abstains):
            raise ValueError(f"certificate for {self.attribute}: without a threshold, and only then, it says why")

    @cached_property
    def certificate_id(self) -> str:
        """Hash of everything the certificate says."""
        return stable_hash(self._content())

    @cached_property
    def pool(self) -> frozenset[str]:
        return frozenset(self.values)

    @cached_property
    def suggest_from(self) -> float | None:
        """The lowest score that earns a suggestion; None for an abstention without a suggestion threshold."""
        known = [level for level in (self.threshold, self.suggest_threshold) if level is not None]
        return min(known, default=None)

    def problem(
        self,
        *,
        weights_hash: str,
        numeric_path: str,
        modality: Modality,
        now: datetime,
        category: str | None,
        language: str | None,
    ) -> Reason | None:
        """Why the certificate may not be used on a product at this time; None if it may (I2)."""
        if self.threshold is None or modality != self.modality:
            return Reason.NO_CERTIFICATE
        if weights_hash != self.weights_hash or numeric_path != self.numeric_path:
            return Reason.CERTIFICATE_MISMATCH
        if now >= self.expires_at:
            return Reason.CERTIFICATE_EXPIRED
        if (category or "") not in self._seen_categories or (language or "") not in self._seen_languages:
            return Reason.UNSEEN_SLICE
        return None

    @cached_property
    def _seen_categories(self) -> frozenset[str]:
        return frozenset(self.categories)

    @cached_property
    def _seen_languages(self) -> frozenset[str]:
        return frozenset(self.languages)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON (no NaN, no infinity), with the certificate's id."""
        return self._content() | {"certificate_id": self.certificate_id}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """Read back :meth:`to_dict`. Raises ModelContractError for missing or unknown fields or a changed content."""
        where = f"certificate for {content.get('attribute')!r} ({content.get('modality')!r})"
        expected = {field.name for field in fields(cls)} | {"certificate_id"}
        if differing := expected ^ set(content):
            raise ModelContractError(f"{where}: fields missing or unknown: {sorted(differing)}")
        try:
            certificate = cls(**{name: _read(name, value) for name, value in content.items() if name in _names(cls)})
        except (TypeError, ValueError) as problem:
            raise ModelContractError(f"{where} is damaged: {problem}") from None
        if certificate.certificate_id != content["certificate_id"]:
            raise ModelContractError(f"{where} was changed after it was issued: its id does not fit. Register anew.")
        return certificate

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("issued_at", "expires_at"):
            content[name] = content[name].astimezone(UTC).isoformat(timespec="microseconds")
        for name in ("values", "categories", "languages", "histogram"):
            content[name] = list(content[name])
        content["steps"] = [
            {field.name: getattr(step, field.name) for field in fields(ThresholdTest)} for step in self.steps
        ]
        content["modality"], content["status"] = self.modality.value, self.status.value
        return content


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
        case "steps":
            return tuple(ThresholdTest(**step) for step in value)
        case "values" | "categories" | "languages" | "histogram":
            return tuple(value)
        case _:
            return value
