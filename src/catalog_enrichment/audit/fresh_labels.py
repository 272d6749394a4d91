"""The verdicts that may certify a paused attribute again: on values that nobody had judged before, drawn uniformly of
everything that readers see, after the pause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.audit import estimates
from catalog_enrichment.audit.items import Answer, Purpose
from catalog_enrichment.audit.sampling import UNIFORM
from catalog_enrichment.catalog import verdicts
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.cluster import group_numbers
from catalog_enrichment.precision.recertify import AuditedFold
from catalog_enrichment.records import Cardinality

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """What was drawn and said so far."""

    rows: Sequence[Row]
    """Of `audits`, in the order of the draws."""
    said: Mapping[str, Row]
    """Item id -> the verdict that counts."""
    of_one_run: frozenset[str] = frozenset()
    """Ids of the runs of audit_sample that drew only what one run wrote: their rows are no sample of everything."""
    of_whole_products: frozenset[str] = frozenset()
    """Ids of those that drew all values of each product."""

    @classmethod
    def read(cls, catalog: Catalog) -> DrawnRows:
        asked = verdicts.sample_windows(catalog)
        return cls(
            verdicts.drawn(catalog),
            verdicts.newest(catalog),
            verdicts.of_one_run(asked),
            frozenset(run_id for run_id, window in asked.items() if window.get("whole_products")),
        )

    def fold(self, old: Certificate, since: datetime, cardinality: Cardinality) -> AuditedFold:
        """The labels for the certificate that replaces ``old``, whose attribute was paused at ``since``.

        Products that were judged before the pause, or since then in an earlier sample that does not count, are left
        out, right or wrong: the wrong values are retracted and not drawn again, so the right ones would stand for too
        many. Of several draws of one value one counts.
        """
        of_old = [row for row in self.rows if row["certificate_id"] == old.certificate_id]
        single = cardinality is Cardinality.ONE
        drawn_with = [row for row in of_old if single or row["run_id"] in self.of_whole_products]
        uniform = [row for row in drawn_with if self._counts(row, since)]
        judged_at: dict[str, datetime] = {}
        for row in of_old:
            if row["item_id"] in self.said and not self._counts(row, since):
                earlier = judged_at.get(row["product_id"], row["drawn_at"])
                judged_at[row["product_id"]] = min(earlier, row["drawn_at"])
        fresh = [row for row in uniform if judged_at.get(row["product_id"], row["drawn_at"]) >= row["drawn_at"]]
        once: dict[tuple[str, str], Row] = {}
        for row in sorted(fresh, key=lambda row: row["item_id"] not in self.said):  # stable: first those judged
            once.setdefault(_key(row), row)
        rows = [row for row in fresh if once[_key(row)] is row]
        return audited_fold(rows, drawn_with, self.said, cardinality)

    def _counts(self, row: Row, since: datetime) -> bool:
        """Whether it was drawn after the pause and uniformly of everything that readers see."""
        of_written = row["purpose"] == Purpose.AUDIT.value and row["stratum"] == UNIFORM
        return of_written and row["run_id"] not in self.of_one_run and bool(row["drawn_at"] > since)

    def judged(self, fold: AuditedFold, old: Certificate) -> int:
        """Of how many of the fold's products somebody has judged a value; not what was said."""
        known = {
            row["product_id"]
            for row in self.rows
            if row["certificate_id"] == old.certificate_id and row["item_id"] in self.said
        }
        return sum(product in known for product in fold.product_ids)


def audited_fold(
    rows: Sequence[Row], drawn: Sequence[Row], said: Mapping[str, Row], cardinality: Cardinality
) -> AuditedFold:
    """Uniformly drawn ``rows`` of `audits` with the verdicts on them, and on the other values of their products.

    ``drawn``: these and all other rows of their products in the same samples. A value without a verdict, or that nobody
    can tell, counts as wrong.
    """
    right = {one.row["item_id"] for one in estimates.with_verdict(drawn, said, ()) if one.answer is Answer.YES}
    days = sorted(f"{row['drawn_at']:%Y-%m-%d}" for row in rows)
    of_product: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in drawn:
        of_product[row["sample_id"], row["product_id"]].append(row)
    products = [of_product[row["sample_id"], row["product_id"]] for row in rows]
    wrong = [[one["score"] for one in values if one["item_id"] not in right] for values in products]
    return AuditedFold(
        scores=np.array([max(one["score"] for one in values) for values in products], dtype=np.float64),
        wrong_scores=np.array([max(scores, default=-np.inf) for scores in wrong], dtype=np.float64),
        weights=np.array([1 / len(values) for values in products], dtype=np.float64),
        cardinality=cardinality,
        groups=group_numbers([row["content_hash"] or row["product_id"] for row in rows])
        if rows
        else np.zeros(0, dtype=np.int64),
        product_ids=tuple(row["product_id"] for row in rows),
        data_window=f"{days[0]}/{days[-1]}" if days else "unknown",
    )


def _key(row: Row) -> tuple[str, str]:
    return (row["product_id"], row["value"])
