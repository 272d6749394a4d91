"""Sections of the page of a run about the products that it decided: what has no value and why, apart from what has a
merchant's or a person's value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog_enrichment.catalog.coverage_groups import COVERAGE_KEY
from catalog_enrichment.enrichment.outcomes import NO_VALUE
from catalog_enrichment.reasons import Reason, RunAttributes
from catalog_enrichment.records import Decision, Source

OPEN = (NO_VALUE, Source.MODEL.value)
"""Sources of products that a model may write to: neither a merchant nor a person gave a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonCount:
    """The scored products that an attribute was decided for with one reason, on one modality path."""

    attribute: str
    decision: str
    reason: str
    modality: str
    sources: Mapping[str, int]
    """Source of the value that readers see, or NO_VALUE -> products."""
    named: int = 0
    """The products of the sources :data:`OPEN` whose title or description has the best value in it."""
    sentence: str
    """The reason in words, with what would change it."""

    @property
    def products(self) -> int:
        return sum(self.sources.values())

    @property
    def empty(self) -> int:
        """The products for which readers see no value."""
        return self.sources.get(NO_VALUE, 0)

    @property
    def open(self) -> int:
        """The products without a merchant's or a person's value."""
        return sum(self.sources.get(source, 0) for source in OPEN)


# --- why products were not written ------------------------------------------------------------------------------------

_HAS_VALUE = ("has that value already", "have that value already")
_NOT_CERTIFIED = ("not certified", "not certified")
_TOO_UNSURE = ("too unsure", "too unsure")
ABSTENTIONS: Mapping[Reason, tuple[str, str]] = {
    Reason.AGREES_WITH_MERCHANT: _HAS_VALUE,
    Reason.HUMAN_VALUE_STANDS: ("decided by a person", "decided by a person"),
    Reason.REFUSED_BY_PERSON: ("refused by a reviewer", "refused by a reviewer"),
    Reason.BELOW_THRESHOLD: _TOO_UNSURE,
    Reason.VALUE_NOT_IN_POOL: _TOO_UNSURE,
    Reason.NO_PROPOSAL: ("without a proposed value", "without a proposed value"),
    Reason.NO_ANSWER: ("waits for an answer", "wait for an answer"),
    Reason.VALUE_REMOVED: ("not in the dictionary any more", "not in the dictionary any more"),
    Reason.PROVISIONAL_CAP: ("waits under the cap", "wait under the cap"),
    Reason.PICTURE_OUTAGE: ("without a picture that can be read now", "without a picture that can be read now"),
    Reason.NO_CERTIFICATE: _NOT_CERTIFIED,
    Reason.CERTIFICATE_MISMATCH: _NOT_CERTIFIED,
    Reason.CERTIFICATE_EXPIRED: _NOT_CERTIFIED,
    Reason.UNSEEN_SLICE: _NOT_CERTIFIED,
    Reason.PAUSED: _NOT_CERTIFIED,
}
"""Reason that a product got no value -> its part of "abstained", in words for a single product and for several."""

_HOLDERS = {
    NO_VALUE: "no value",
    Source.MERCHANT.value: "merchant's value",
    Source.HUMAN.value: "person's value",
    Source.MODEL.value: "older model value",
}
"""Source -> the heading of its products among the abstentions."""


def abstentions(attribute: str, reasons: Iterable[ReasonCount]) -> list[tuple[str, int, str]]:
    """Return per source of the value that readers see: its heading, the products that abstained and the parts of
    :data:`ABSTENTIONS` in words. Products without any value come first. [] where no reasons are known."""
    rows = [row for row in reasons if row.attribute == attribute and row.decision == Decision.ABSTAIN]
    found = []
    for source, heading in _HOLDERS.items():
        parts = dict.fromkeys(ABSTENTIONS.values(), 0)
        for row in rows:
            parts[ABSTENTIONS[Reason(row.reason)]] += row.sources.get(source, 0)
        texts = [f"{n:,} {single if n == 1 else several}" for (single, several), n in parts.items() if n]
        if texts:
            found.append((heading, sum(parts.values()), ", ".join(texts)))
    return found


# --- what is empty and why --------------------------------------------------------------------------------------------


def empty_products(attributes: RunAttributes, reasons: Sequence[ReasonCount]) -> list[dict[str, Any]]:
    """Return per attribute the products that it applies to by the source of their value, and those without any by
    reason, most frequent first. ``attributes``: the column of the run's row; [] where it has no coverage.

    ``undecided``: products without a value that the run did not decide: an earlier run did, or they were skipped.
    """
    found = []
    for name, counts in attributes.get(COVERAGE_KEY, {}).get("counts", {}).items():
        applicable = counts.get("applicable", 0)
        by_source = {source.value: counts.get(source.value, 0) for source in Source}
        empty = applicable - sum(by_source.values())
        rows = _by_reason([row for row in reasons if row.attribute == name and row.empty])
        decided = sum(row["products"] for row in rows)
        numbers = {"name": name, "applicable": applicable, "empty": empty, **by_source}
        found.append(numbers | {"reasons": rows, "undecided": max(empty - decided, 0)})
    return found


def _by_reason(rows: Sequence[ReasonCount]) -> list[dict[str, Any]]:
    """Return a row per reason and sentence: two modality paths can have different sentences."""
    totals: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.decision, row.reason, row.sentence)
        totals[key] = totals.get(key, 0) + row.empty
    order = sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        {"decision": decision, "reason": reason, "sentence": sentence, "products": products}
        for (decision, reason, sentence), products in order
    ]
