"""Estimates from verdicts: the alarm of each attribute, and the precision of each certificate with its bounds.

Which items have enough verdicts does not depend on what is right, but which of them are disputed does. So a disputed
item is not left out until an adjudicator has decided: until then it counts as right for the alarm, which may be late by
it and is not raised by it, and as unsure for the bounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from catalog_enrichment.audit.draws import SAME_PRODUCT, UNIFORM
from catalog_enrichment.audit.review_records import Answer, Purpose
from catalog_enrichment.catalog import review_tables
from catalog_enrichment.precision.audit_statistics import (
    ALARM,
    AuditedRows,
    AuditEstimate,
    estimate,
    right_rows_missing,
    wealth,
)

Row = Mapping[str, Any]

_Value = tuple[str, str, str, str | None]
"""Product id, attribute, value, certificate id."""

_Cell = tuple[str, str | None, bool]
"""Sample id, certificate id, near the threshold."""


@dataclass(frozen=True, slots=True)
class ReviewedItem:
    """A drawn row with its verdict."""

    row: Row
    """A row of the table `audits`."""
    answer: Answer | None
    """The settled answer; None while the item is disputed."""
    wrong: bool
    share: float = 1.0
    """The factor of its weight in the bounds, at most 1; 0 where it does not count (:class:`_Shares`)."""

    @property
    def value(self) -> _Value:
        return _value(self.row)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeAudit:
    """The alarm of an attribute, on the uniform stratum of what one model version wrote."""

    model_version: str
    verdicts: int
    """The verdicts that count: without those of people who could not tell."""
    wrong: int
    unsure: int
    wealth: float
    """W now; 1 without a verdict."""
    disputed: int
    """How many of the verdicts are disputed; they count as right."""

    @property
    def alarm(self) -> bool:
        return self.wealth >= ALARM

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"wealth": round(self.wealth, 4), "alarm": self.alarm}

    def why(self) -> str:
        """Return the reason for an alarm, for people."""
        return (
            f"alarm: {self.wrong} of {self.verdicts} uniformly drawn values of model version {self.model_version} are "
            f"wrong, wealth {self.wealth:,.1f} (alarm at {ALARM:.0f})"
        )


def with_verdict(drawn: Sequence[Row], verdict_of: Mapping[str, Row], disputed: Collection[str]) -> list[ReviewedItem]:
    """Return the rows of written values that have enough verdicts, in their order.

    ``drawn``: rows of `audits`; ``verdict_of``: item id -> the verdict that counts; ``disputed``: ids of items.
    """
    found = []
    for row in drawn:
        if row["purpose"] != Purpose.AUDIT.value:
            continue
        if row["item_id"] in disputed:
            found.append(ReviewedItem(row, None, False))
        elif verdict := verdict_of.get(row["item_id"]):
            found.append(ReviewedItem(row, Answer(verdict["answer"]), review_tables.is_wrong(verdict)))
    return found


def counting_items(
    drawn: Sequence[Row], verdict_of: Mapping[str, Row], disputed: Collection[str], of_one_run: Collection[str] = ()
) -> list[ReviewedItem]:
    """Return the rows that estimates rest on: for each value of a certificate the first row of :func:`with_verdict`.

    A value that is right stays and may be drawn and judged again, in every sample; a wrong value is retracted and is
    not drawn again. Counted each time, the right values would make every certificate look good. For the same reason
    values that were judged as proposals before do not count.

    ``drawn``: in the order of the draws; ``of_one_run``: ids of the runs of audit_sample that drew what one run wrote.
    Their rows are no sample of everything and do not count, nor do later rows about the same values.
    """
    proposals: dict[tuple[str, str, str], datetime] = {}
    for row in drawn:
        if row["purpose"] == Purpose.PROPOSALS.value and row["item_id"] in verdict_of:
            proposals.setdefault(_value(row)[:3], row["drawn_at"])
    first: dict[_Value, ReviewedItem] = {}
    for item in with_verdict(drawn, verdict_of, disputed):
        judged_before = proposals.get(item.value[:3])
        if judged_before is None or judged_before >= item.row["drawn_at"]:
            first.setdefault(item.value, item)
    shares = _Shares(drawn, first, of_one_run)
    counting = [item for item in first.values() if item.row["run_id"] not in of_one_run]
    return [replace(item, share=shares.of(item.row)) for item in counting]


def _value(row: Row) -> _Value:
    return (row["product_id"], row["attribute"], row["value"], row["certificate_id"])


class _Shares:
    """The factors of the weights of the rows of a later sample.

    Rows near the threshold are drawn more often, so that more of them were judged before and do not count again. The
    others would then stand for too much, and errors are rarer among them. So there are two cells per certificate, near
    the threshold as in its first sample and not, and the weights of the cell that has lost the smaller share of its
    rows are reduced until both have lost the same; without a new row in a cell, the sample adds nothing to the bounds.
    A wrong value that was retracted is a lost row, too: the later sample would have drawn it at the rate of all.
    """

    def __init__(self, drawn: Sequence[Row], first: Mapping[_Value, ReviewedItem], of_one_run: Collection[str]) -> None:
        """``first``: the first judged row of each value; the others as for :func:`counting_items`."""
        rows = [
            row
            for row in drawn
            if row["purpose"] == Purpose.AUDIT.value
            and row["stratum"] != SAME_PRODUCT
            and row["run_id"] not in of_one_run
        ]
        order = {sample: number for number, sample in enumerate(dict.fromkeys(row["sample_id"] for row in drawn))}
        self._limits: dict[str | None, float] = {}
        first_sample: dict[str | None, str] = {}
        for row in rows:
            certificate = row["certificate_id"]
            is_near = row["weight"] < row["highest_weight"] * (1 - 1e-9)  # drawn with a higher probability than others
            if is_near and first_sample.setdefault(certificate, row["sample_id"]) == row["sample_id"]:
                self._limits[certificate] = max(self._limits.get(certificate, -np.inf), _distance(row))
        whole: defaultdict[_Cell, float] = defaultdict(float)
        new: defaultdict[_Cell, float] = defaultdict(float)
        rate: dict[tuple[str, str | None], float] = {}
        for row in rows:
            cell, known = self._cell(row), first.get(_value(row))
            whole[cell] += row["weight"]
            rate[cell[:2]] = row["weight"] * row["probability"]  # rows drawn per row of the population
            if known is None or order[known.row["sample_id"]] >= order[row["sample_id"]]:
                new[cell] += row["weight"]
        for wrong in (item.row for item in first.values() if item.wrong):
            _, certificate, near = self._cell(wrong)
            for sample, of in rate:
                if of == certificate and order[wrong["sample_id"]] < order[sample]:
                    whole[sample, of, near] += rate[sample, of]
        self._left = {cell: new[cell] / weight for cell, weight in whole.items()}

    def of(self, row: Row) -> float:
        """Return the share of a row, at most 1."""
        sample, certificate, near = self._cell(row)
        left = self._left.get((sample, certificate, near), 0.0)
        return min(1.0, self._left.get((sample, certificate, not near), left) / left) if left else 0.0

    def _cell(self, row: Row) -> _Cell:
        near = _distance(row) <= self._limits.get(row["certificate_id"], -np.inf)
        return (row["sample_id"], row["certificate_id"], near)


def _distance(row: Row) -> float:
    return float(row["score"] or 0.0) - float(row["threshold"] or 0.0)


def by_attribute(
    items: Iterable[ReviewedItem], since: Mapping[str, datetime], rate: float
) -> dict[str, AttributeAudit]:
    """Return for every attribute with verdicts the alarm of the model version with the highest wealth.

    The values of every version are audited by themselves: each has certificates of its own, and the right values of an
    older version would count for those of a new one. ``since``: attribute -> when it was switched on again or certified
    anew; samples before that do not count. ``rate``: the error rate that is allowed.
    """
    of_version: defaultdict[tuple[str, str], list[ReviewedItem]] = defaultdict(list)
    for item in items:
        name = item.row["attribute"]
        if item.row["stratum"] == UNIFORM and not (name in since and item.row["drawn_at"] < since[name]):
            of_version[name, item.row["model_version"] or ""].append(item)
    audits = [(name, _audit_of(found, version, rate)) for (name, version), found in sorted(of_version.items())]
    highest = dict(sorted(audits, key=lambda pair: pair[1].wealth))  # the last audit of a name is kept
    return dict(sorted(highest.items()))


def _audit_of(items: Sequence[ReviewedItem], model_version: str, rate: float) -> AttributeAudit:
    wrong = [item.wrong for item in items if item.answer is not Answer.CANNOT_TELL]
    return AttributeAudit(
        model_version=model_version,
        verdicts=len(wrong),
        wrong=sum(wrong),
        unsure=len(items) - len(wrong),
        wealth=float(wealth(wrong, rate)[-1]) if wrong else 1.0,
        disputed=sum(item.answer is None for item in items),
    )


def by_certificate(items: Iterable[ReviewedItem], alpha: float) -> dict[tuple[str, str], AuditEstimate]:
    """Return (attribute, certificate id) -> the precision of what readers see of it, from both strata by weight."""
    return {key: estimate(rows, alpha) for key, rows in _rows_by_certificate(items).items()}


def missing_by_certificate(
    items: Iterable[ReviewedItem], target: float, alpha: float
) -> dict[tuple[str, str], int | None]:
    """Return (attribute, certificate id) -> how many further verdicts confirm it if all say that the value is right."""
    return {key: right_rows_missing(rows, target, alpha) for key, rows in _rows_by_certificate(items).items()}


def _rows_by_certificate(items: Iterable[ReviewedItem]) -> dict[tuple[str, str], AuditedRows]:
    of_certificate: defaultdict[tuple[str, str], list[ReviewedItem]] = defaultdict(list)
    for item in items:
        if item.row["certificate_id"] and item.row["stratum"] != SAME_PRODUCT and item.share > 0:
            of_certificate[item.row["attribute"], item.row["certificate_id"]].append(item)
    return {key: _audited_rows(found) for key, found in sorted(of_certificate.items())}


def _audited_rows(items: Sequence[ReviewedItem]) -> AuditedRows:
    return AuditedRows(
        wrong=np.array([item.wrong for item in items], dtype=bool),
        unsure=np.array([item.answer in (None, Answer.CANNOT_TELL) for item in items], dtype=bool),
        weight=np.array([item.row["weight"] * item.share for item in items], dtype=np.float64),
        highest=np.array([max(item.row["highest_weight"], item.row["weight"]) for item in items], dtype=np.float64),
    )
