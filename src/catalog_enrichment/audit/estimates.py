"""What the verdicts come to: the alarm per attribute, and the precision per certificate with its bounds.

Which items have enough verdicts does not depend on what is right, but which of them are disputed does. So a disputed
item is not left out until an adjudicator has decided: until then it counts as right for the alarm, which may be late by
it and is not raised by it, and as unsure for the bounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from catalog_enrichment.audit.items import Answer, Purpose
from catalog_enrichment.audit.sampling import SAME_PRODUCT, UNIFORM
from catalog_enrichment.catalog import verdicts
from catalog_enrichment.precision.audit import ALARM, AuditedRows, AuditEstimate, estimate, wealth

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """A drawn row with its verdict."""

    row: Row
    """Of the table `audits`."""
    answer: Answer | None
    """None: disputed."""
    wrong: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeAudit:
    """The alarm of one attribute, on the uniform stratum of what one model version wrote."""

    model_version: str
    verdicts: int
    """That count: without those who could not tell."""
    wrong: int
    unsure: int
    wealth: float
    """W now; 1 without a verdict."""
    disputed: int
    """Of these verdicts; they count as right."""

    @property
    def alarm(self) -> bool:
        return self.wealth >= ALARM

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"wealth": round(self.wealth, 4), "alarm": self.alarm}

    def why(self) -> str:
        """Of an alarm, for people."""
        return (
            f"alarm: {self.wrong} of {self.verdicts} uniformly drawn values of model version {self.model_version} are "
            f"wrong, wealth {self.wealth:,.1f} (alarm at {ALARM:.0f})"
        )


def judged(drawn: Sequence[Row], said: Mapping[str, Row], disputed: Collection[str]) -> list[Judged]:
    """The rows of written values that have enough verdicts.

    ``drawn``: rows of `audits`; ``said``: item id -> the verdict that counts; ``disputed``: ids of items.
    """
    found = []
    for row in drawn:
        if row["purpose"] != Purpose.AUDIT.value:
            continue
        if row["item_id"] in disputed:
            found.append(Judged(row, None, False))
        elif verdict := said.get(row["item_id"]):
            found.append(Judged(row, Answer(verdict["answer"]), verdicts.is_wrong(verdict)))
    return found


def by_attribute(rows: Iterable[Judged], since: Mapping[str, datetime], rate: float) -> dict[str, AttributeAudit]:
    """The alarm of every attribute with verdicts: that of the model version with the highest wealth; ``rate``: the
    error rate that is allowed.

    The values of every version are audited by themselves: each has certificates of its own, and the right values of an
    older one would count for those of a new one. ``since``: attribute -> when it was switched on again or certified
    anew; samples before that do not count.
    """
    of_version: dict[tuple[str, str], list[Judged]] = {}
    for one in rows:
        name = one.row["attribute"]
        if one.row["stratum"] == UNIFORM and not (name in since and one.row["drawn_at"] < since[name]):
            of_version.setdefault((name, one.row["model_version"] or ""), []).append(one)
    audits = [(name, _audit_of(ones, version, rate)) for (name, version), ones in sorted(of_version.items())]
    found: dict[str, AttributeAudit] = {}
    for name, audit in sorted(audits, key=lambda pair: pair[1].wealth):
        found[name] = audit  # the last one has the highest wealth
    return dict(sorted(found.items()))


def _audit_of(rows: Sequence[Judged], model_version: str, rate: float) -> AttributeAudit:
    wrong = [one.wrong for one in rows if one.answer is not Answer.CANNOT_TELL]
    return AttributeAudit(
        model_version=model_version,
        verdicts=len(wrong),
        wrong=sum(wrong),
        unsure=len(rows) - len(wrong),
        wealth=float(wealth(wrong, rate)[-1]) if wrong else 1.0,
        disputed=sum(one.answer is None for one in rows),
    )


def by_certificate(rows: Iterable[Judged], alpha: float) -> dict[tuple[str, str], AuditEstimate]:
    """(attribute, certificate id) -> the precision of what readers see of it, from both strata by their weights."""
    of_certificate: dict[tuple[str, str], list[Judged]] = {}
    for one in rows:
        if one.row["certificate_id"] and one.row["stratum"] != SAME_PRODUCT:
            of_certificate.setdefault((one.row["attribute"], one.row["certificate_id"]), []).append(one)
    return {key: estimate(audited_rows(ones), alpha) for key, ones in sorted(of_certificate.items())}


def audited_rows(rows: Sequence[Judged]) -> AuditedRows:
    return AuditedRows(
        wrong=np.array([one.wrong for one in rows], dtype=bool),
        unsure=np.array([one.answer in (None, Answer.CANNOT_TELL) for one in rows], dtype=bool),
        weight=np.array([one.row["weight"] for one in rows], dtype=np.float64),
        highest=np.array([max(one.row["highest_weight"], one.row["weight"]) for one in rows], dtype=np.float64),
    )
