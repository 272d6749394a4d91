"""The certificate behind a value or an abstention, as its run recorded it, and what an audit has said since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.web.pages import when

Row = Mapping[str, Any]

_OF_CONFIRMATION = ("rows", "wrong", "lower_bound", "confirmed_at", "run_id")


@dataclass(frozen=True, slots=True)
class UsedCertificate:
    """A certificate and the audit that confirmed it."""

    content: Row
    """The certificate as plain data, as it was issued."""
    confirmation: Row | None
    """The row of `confirmations`; None if no audit has confirmed it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as plain data with its status of today; `confirmation` has the audit's numbers."""
        if self.confirmation is None:
            return dict(self.content)
        confirmation = {name: self.confirmation[name] for name in _OF_CONFIRMATION}
        return {**self.content, "status": CertificateStatus.CONFIRMED.value, "confirmation": confirmation}

    def numbers(self, provisional_cap: int) -> list[dict[str, str]]:
        """Return the numbers with their meanings; [] if the certificate certifies nothing."""
        if self.content["threshold"] is None:
            return []
        certificate = Certificate.from_dict(dict(self.content))
        if self.confirmation is not None:
            certificate = replace(certificate, status=CertificateStatus.CONFIRMED)
        return [asdict(number) for number in claim.certificate_numbers(certificate, provisional_cap)]

    def in_words(self) -> Iterator[str]:
        """Yield what the certificate claims, and who confirmed it."""
        yield f"certificate {self.content['certificate_id'][:12]}: {self.content['claim']}"
        if self.confirmation is not None:
            yield (
                "confirmed on {when} by audit run {run_id}: {wrong:,} of {rows:,} judged values wrong, at least "
                "{lower_bound:.1%} right"
            ).format(when=when(self.confirmation["confirmed_at"]), **self.confirmation)


def used(decisions: Sequence[Row], wanted: str | None, confirmed: Mapping[str, Row]) -> UsedCertificate | None:
    """Return the certificate ``wanted``, else that of the newest decision; None where none is recorded.

    ``decisions``: as for :func:`recorded`, newest first. ``confirmed``: id of each certificate that an audit has
    confirmed -> the row of `confirmations`.
    """
    known = (recorded(row, wanted or row["certificate_id"]) for row in decisions)
    found = next(filter(None, known), None)
    return UsedCertificate(found, confirmed.get(found["certificate_id"])) if found else None


def recorded(decision: Row, certificate_id: str | None) -> dict[str, Any] | None:
    """Return a certificate of the decision's run. A run that was killed or failed has recorded none.

    ``decision``: a row of `predictions` with the column `attributes` of its run.
    """
    certificates: list[dict[str, Any]] = json.loads(decision["attributes"] or "{}").get("certificates", [])
    return next((content for content in certificates if content["certificate_id"] == certificate_id), None)
