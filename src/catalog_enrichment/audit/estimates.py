"""What the verdicts come to: the alarm per attribute, and the precision per certificate with its bounds.

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

from catalog_enrichment.audit.items import Answer, Purpose
from catalog_enrichment.audit.sampling import SAME_PRODUCT, UNIFORM
from catalog_enrichment.catalog import verdicts
from catalog_enrichment.precision.audit import ALARM, AuditedRows, AuditEstimate, estimate, wealth

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReviewedItem:
    """A drawn row with its verdict."""

    row: Row
    """Of the table `audits`."""
    answer: Answer | None
    """None: disputed."""
    wrong: bool
    share: float = 1.0
    """What its weight is multiplied by in the bounds, at most 1; 0: it does not count there (:class:`_Shares`)."""


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


def with_verdict(drawn: Sequence[Row], said: Mapping[str, Row], disputed: Collection[str]) -> list[ReviewedItem]:
    """The rows of written values that have enough verdicts, in their order.

    ``drawn``: rows of `audits`; ``said``: item id -> the verdict that counts; ``disputed``: ids of items.
    """
    found = []
    for row in drawn:
        if row["purpose"] != Purpose.AUDIT.value:
            continue
        if row["item_id"] in disputed:
            found.append(ReviewedItem(row, None, False))
        elif verdict := said.get(row["item_id"]):
            found.append(ReviewedItem(row, Answer(verdict["answer"]), verdicts.is_wrong(verdict)))
    return found


def judged(
    drawn: Sequence[Row], said: Mapping[str, Row], disputed: Collection[str], of_one_run: Collection[str] = ()
) -> list[ReviewedItem]:
    """The rows that estimates rest on: of :func:`with_verdict` the first one about each value of a certificate.

    A value that is right stays and may be drawn and judged again, in every sample; a wrong one is retracted and is not
    drawn again. Counted each time, the right ones would make every certificate look good. For the same reason values
    that were judged as proposals before do not count.

    ``drawn``: in the order of the draws; ``of_one_run``: ids of the runs of audit_sample that drew what one run wrote.
    Their rows are no sample of everything and do not count, nor do later rows about the same values.
    """
    proposals: dict[tuple[str, str, str], datetime] = {}
    for row in drawn:
        if row["purpose"] == Purpose.PROPOSALS.value and row["item_id"] in said:
            proposals.setdefault(_key(row), row["drawn_at"])
    first: dict[_Value, ReviewedItem] = {}
    for one in with_verdict(drawn, said, disputed):
        if not (_key(one.row) in proposals and proposals[_key(one.row)] < one.row["drawn_at"]):
            first.setdefault(_value(one.row), one)
    counts = [one for one in first.values() if one.row["run_id"] not in of_one_run]
    shares = _Shares(drawn, first, of_one_run)
    return [replace(one, share=shares.of(one.row)) for one in counts]


_Value = tuple[str, str, str, str | None]
"""Product id, attribute, value, certificate id."""


def _value(row: Row) -> _Value:
    return (*_key(row), row["certificate_id"])


def _key(row: Row) -> tuple[str, str, str]:
    return (row["product_id"], row["attribute"], row["value"])


class _Shares:
    """What the weights of the rows of a later sample are multiplied by.

    Rows near the threshold are drawn more often, so that more of them were judged before and do not count again. The
    others would then stand for too much, and errors are rarer among them. So there are two cells per certificate, near
    the threshold as in its first sample and not, and the weights of the one that has lost the smaller share of its rows
    are reduced until both have lost the same; without a new row in one cell, the sample adds nothing to the bounds. A
    wrong value that was retracted is a lost row, too: the later sample would have drawn it at the rate of all.
    """

    def __init__(self, drawn: Sequence[Row], first: Mapping[_Value, ReviewedItem], of_one_run: Collection[str]) -> None:
        """Arguments: as of :func:`judged`; ``first``: the first judged row of each value."""
        rows = [
            row
            for row in drawn
            if row["purpose"] == Purpose.AUDIT.value
            and row["stratum"] != SAME_PRODUCT
            and row["run_id"] not in of_one_run
        ]
        order = {sample: number for number, sample in enumerate(dict.fromkeys(row["sample_id"] for row in drawn))}
        self._limits: dict[str | None, float] = {}
        of_first: dict[str | None, str] = {}
        for row in rows:
            certificate = row["certificate_id"]
            is_near = row["weight"] < row["highest_weight"] * (1 - 1e-9)  # drawn with a higher probability than others
            if is_near and of_first.setdefault(certificate, row["sample_id"]) == row["sample_id"]:
                self._limits[certificate] = max(self._limits.get(certificate, -np.inf), _distance(row))
        whole: defaultdict[tuple[str, str | None, bool], float] = defaultdict(float)
        new: defaultdict[tuple[str, str | None, bool], float] = defaultdict(float)
        rate: dict[tuple[str, str | None], float] = {}
        for row in rows:
            cell, known = self._cell(row), first.get(_value(row))
            whole[cell] += row["weight"]
            rate[cell[:2]] = row["weight"] * row["probability"]  # rows drawn per row of the population
            if known is None or order[known.row["sample_id"]] >= order[row["sample_id"]]:
                new[cell] += row["weight"]
        for one in (one for one in first.values() if one.wrong):
            _, certificate, near = self._cell(one.row)
            for sample, of in rate:
                if of == certificate and order[one.row["sample_id"]] < order[sample]:
                    whole[sample, of, near] += rate[sample, of]
        self._left = {cell: new[cell] / weight for cell, weight in whole.items()}

    def of(self, row: Row) -> float:
        """At most 1."""
        sample, certificate, near = self._cell(row)
        left = self._left.get((sample, certificate, near), 0.0)
        return min(1.0, self._left.get((sample, certificate, not near), left) / left) if left else 0.0

    def _cell(self, row: Row) -> tuple[str, str | None, bool]:
        near = _distance(row) <= self._limits.get(row["certificate_id"], -np.inf)
        return (row["sample_id"], row["certificate_id"], near)


def _distance(row: Row) -> float:
    return float(row["score"] or 0.0) - float(row["threshold"] or 0.0)


def by_attribute(rows: Iterable[ReviewedItem], since: Mapping[str, datetime], rate: float) -> dict[str, AttributeAudit]:
    """The alarm of every attribute with verdicts: that of the model version with the highest wealth; ``rate``: the
    error rate that is allowed.

    The values of every version are audited by themselves: each has certificates of its own, and the right values of an
    older one would count for those of a new one. ``since``: attribute -> when it was switched on again or certified
    anew; samples before that do not count.
    """
    of_version: dict[tuple[str, str], list[ReviewedItem]] = {}
    for one in rows:
        name = one.row["attribute"]
        if one.row["stratum"] == UNIFORM and not (name in since and one.row["drawn_at"] < since[name]):
            of_version.setdefault((name, one.row["model_version"] or ""), []).append(one)
    audits = [(name, _audit_of(ones, version, rate)) for (name, version), ones in sorted(of_version.items())]
    found: dict[str, AttributeAudit] = {}
    for name, audit in sorted(audits, key=lambda pair: pair[1].wealth):
        found[name] = audit  # the last one has the highest wealth
    return dict(sorted(found.items()))


def _audit_of(rows: Sequence[ReviewedItem], model_version: str, rate: float) -> AttributeAudit:
    wrong = [one.wrong for one in rows if one.answer is not Answer.CANNOT_TELL]
    return AttributeAudit(
        model_version=model_version,
        verdicts=len(wrong),
        wrong=sum(wrong),
        unsure=len(rows) - len(wrong),
        wealth=float(wealth(wrong, rate)[-1]) if wrong else 1.0,
        disputed=sum(one.answer is None for one in rows),
    )


def by_certificate(rows: Iterable[ReviewedItem], alpha: float) -> dict[tuple[str, str], AuditEstimate]:
    """(attribute, certificate id) -> the precision of what readers see of it, from both strata by their weights."""
    of_certificate: dict[tuple[str, str], list[ReviewedItem]] = {}
    for one in rows:
        if one.row["certificate_id"] and one.row["stratum"] != SAME_PRODUCT and one.share > 0:
            of_certificate.setdefault((one.row["attribute"], one.row["certificate_id"]), []).append(one)
    return {key: estimate(audited_rows(ones), alpha) for key, ones in sorted(of_certificate.items())}


def audited_rows(rows: Sequence[ReviewedItem]) -> AuditedRows:
    return AuditedRows(
        wrong=np.array([one.wrong for one in rows], dtype=bool),
        unsure=np.array([one.answer in (None, Answer.CANNOT_TELL) for one in rows], dtype=bool),
        weight=np.array([one.row["weight"] * one.share for one in rows], dtype=np.float64),
        highest=np.array([max(one.row["highest_weight"], one.row["weight"]) for one in rows], dtype=np.float64),
    )
