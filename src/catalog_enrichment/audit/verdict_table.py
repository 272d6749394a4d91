"""What audit_ingest prints for people: per attribute and modality path what was judged and what followed, and the
commands that are next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.review_records import Purpose
from catalog_enrichment.monitoring.text_tables import ATTRIBUTE, Column, aligned_table, count, text
from catalog_enrichment.operations.commands import command
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.precision.audit_statistics import AuditEstimate

Row = Mapping[str, Any]

CONFIRMED, WAS_CONFIRMED, PAUSED, WAS_STOPPED, OPEN = "confirmed", "was confirmed", "paused", "was not on", "open"
"""What the verdicts say about a certificate: confirmed now or before, its attribute paused now or before; or nothing
yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPath:
    """The written values of a certificate, which is about one attribute and modality path."""

    attribute: str
    modality: str
    certificate_id: str
    found: AuditEstimate | None
    """None where no verdict counts for an estimate."""
    state: str
    """CONFIRMED, WAS_CONFIRMED, PAUSED, WAS_STOPPED or OPEN."""
    retracted: int
    reinstated: int
    waiting: int
    """Drawn values that have too few verdicts, or are disputed."""
    missing: int | None
    """How many further verdicts confirm the certificate if all say that the value is right; None for very many."""

    @property
    def followed(self) -> str:
        """Return what followed from the verdicts, and which verdicts are missing."""
        parts = [] if self.state == OPEN else [self.state]
        parts += [f"{done} {number:,}" for done, number in self._events() if number]
        parts = parts or ["nothing"]
        if self.waiting:
            parts.append(
                f"{self.waiting:,} drawn value{'s wait for verdicts' if self.waiting > 1 else ' waits for one'}"
            )
        if self.state == OPEN and self.missing != 0:
            more = "more than 100,000" if self.missing is None else f"at least {self.missing:,}"
            parts.append(f"{more} more verdicts confirm it, if all are right")
        return "; ".join(parts)

    def _events(self) -> Iterator[tuple[str, int]]:
        yield "retracted", self.retracted
        yield "reinstated", self.reinstated

    def as_row(self) -> dict[str, Any]:
        found = self.found
        return {
            "attribute": self.attribute,
            "products": PATHS[Modality(self.modality)],
            "judged": found.rows if found else 0,
            "wrong": found.wrong if found else 0,
            "right": _right(found),
            "followed": self.followed,
        }


def _right(found: AuditEstimate | None) -> str:
    if found is None:
        return "-"
    estimate = "-" if found.precision is None else f"{found.precision:.1%}"
    return f"{estimate} ({found.lower:.1%} to {found.upper:.1%})"


_COLUMNS = (
    ATTRIBUTE,
    Column("products", text("products"), "<"),
    Column("judged", count("judged")),
    Column("wrong", count("wrong")),
    Column("right, with bounds", text("right")),
    Column("what followed", text("followed"), "<"),
)


def as_table(paths: Sequence[JudgedPath]) -> str:
    """Return the table for people, a line per certificate."""
    return aligned_table([path.as_row() for path in paths], _COLUMNS)


def certificates_of(drawn: Sequence[Row], concerned: Collection[str]) -> dict[tuple[str, str], str]:
    """Return (attribute, certificate id) -> modality, of the written values that were drawn for audits.

    ``drawn``: in the order of the draws. Of the certificates of older model versions only those with an item among
    ``concerned`` are there.
    """
    written = [row for row in drawn if row["purpose"] == Purpose.AUDIT.value and row["certificate_id"]]
    newest = {row["attribute"]: row["model_version"] for row in written}
    return {
        (row["attribute"], row["certificate_id"]): row["modality"]
        for row in sorted(written, key=lambda row: (row["attribute"], row["modality"]))
        if row["model_version"] == newest[row["attribute"]] or row["item_id"] in concerned
    }


def waiting_by_certificate(drawn: Sequence[Row], unsettled: Collection[str]) -> Counter[tuple[str, str]]:
    """Return (attribute, certificate id) -> drawn values that wait for verdicts. ``unsettled``: ids of items."""
    return Counter(
        (row["attribute"], row["certificate_id"])
        for row in drawn
        if row["purpose"] == Purpose.AUDIT.value and row["item_id"] in unsettled
    )


def next_steps(
    paths: Sequence[JudgedPath], new: Sequence[Row], unsettled: int, samples: int, config: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each command that people run next.

    ``new``: the ingested verdicts; ``unsettled``: items of all samples that wait; ``samples``: how many were drawn;
    ``config``: options of the commands.
    """
    if unsettled:
        yield f"next: {unsettled:,} items wait for verdicts: {command('serve_audit', config)}"
    if any(path.state == CONFIRMED for path in paths):
        yield f"next: write what waited under precision.provisional_cap: {command('enrich_catalog', config)}"
    missing: dict[str, int] = {}
    for path in paths:
        if path.state == OPEN and path.missing and not path.waiting:
            missing[path.attribute] = max(path.missing, missing.get(path.attribute, 0))
    for name, number in missing.items():
        options = ["--attribute", name, "--uniform", str(number), "--seed", str(samples)]
        again = command("audit_sample", [*config, *options])
        yield f"next: to confirm the certificate for {name}, draw and judge more values: {again}"
    asked = {(row["purpose"], row["attribute"]) for row in new}
    for name in sorted(attribute for purpose, attribute in asked if purpose == Purpose.PROPOSALS.value):
        certify = command("certify_model", [*config, "--by-verdicts", name, "--dry-run"])
        yield f"next: certify {name} by these verdicts: {certify}"
    if {Purpose.GOLD.value, Purpose.LABEL.value} & {purpose for purpose, _ in asked}:
        yield f"next: use these answers in a new version: {command('train_model', config)}"
