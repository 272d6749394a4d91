"""Certificates: what a model version may write (PRECISION, certificate 6). An abstention is a certificate too.

Certificates are part of the model version (certificates.json); every row that one allowed carries its id. The id is a
hash of the certificate's content, so an edited certificate is refused when it is read.
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
    """Test of one threshold of the fixed sequence."""

    threshold: float
    accepted: int
    wrong: int
    p_value: float
    lower_bound: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Values of the pool with ``score >= threshold`` may be written, for one modality path and one set of weights."""

    attribute: str
    modality: Modality
    values: tuple[str, ...]
    """The pool: the values that may be written."""
    threshold: float | None
    """None: an abstention; nothing is written, for the reason in ``why_abstains``."""
    why_abstains: str = ""
    score_type: str = SCORE_TYPE
    accepted: int
    """N: accepted units of the certification fold at the threshold."""
    wrong: int
    """K: wrong units among them."""
    lower_bound: float
    """Clopper-Pearson lower bound of the precision at confidence 1 - spent_delta(delta, use_count); 0: abstention."""
    target: float
    delta: float
    """Tested at ``spent_delta(delta, use_count)``."""
    use_count: int
    """How many candidates were certified on these labels, this one included."""
    claim: str
    """The guarantee in words."""
    status: CertificateStatus = CertificateStatus.PROVISIONAL
    label_set_hash: str
    data_window: str
    """Source of the labelled products, in words or as an interval."""
    weights_hash: str
    """Binds the certificate to the model, whose version number does not exist yet at issue."""
    numeric_path: str
    """fp32, bf16 or int8; their scores differ."""
    preprocessing_hash: str
    issued_at: datetime
    expires_at: datetime
    suggest_threshold: float | None
    """Values with scores from here to the threshold are suggested; descriptive. None: none are."""
    categories: tuple[str, ...]
    """Categories of the certification fold; "" for products without one."""
    languages: tuple[str, ...]
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
        numbers = (self.threshold, self.suggest_threshold, self.lower_bound, self.accept_rate)
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
        """Reason why the certificate must not be used for a product at this time; None if it may be used (I2)."""
        if self.threshold is None or modality != self.modality:
            return Reason.NO_CERTIFICATE
        if weights_hash != self.weights_hash or numeric_path != self.numeric_path:
            return Reason.CERTIFICATE_MISMATCH
        if now >= self.expires_at:
            return Reason.CERTIFICATE_EXPIRED
        if (category or "") not in self._certified_categories or (language or "") not in self._certified_languages:
            return Reason.UNSEEN_SLICE
        return None

    @cached_property
    def _certified_categories(self) -> frozenset[str]:
        return frozenset(self.categories)

    @cached_property
    def _certified_languages(self) -> frozenset[str]:
        return frozenset(self.languages)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON (no NaN, no infinity), with the certificate's id."""
        return self._content() | {"certificate_id": self.certificate_id}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """Read back :meth:`to_dict`. Raises ModelContractError for missing or unknown fields or for changed content."""
        where = f"certificate for {content.get('attribute')!r} ({content.get('modality')!r})"
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
