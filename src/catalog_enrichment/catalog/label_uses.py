"""The table `label_uses`, read and written here alone: which labels certified which models (PRECISION, certificate 6).

A label that tests a second model is weaker evidence than a label that tests its first, whether or not the first model
was ever registered. So a use is recorded on the catalog, before the labels are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment.records import GOLD_ROUND, EarlierUses, LabelUse, stable_hash, strictly_later

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

TABLE = "label_uses"
LOCK_SECONDS = 300
"""How long a training waits for another training that is recording its uses; that takes seconds."""

FirstUses = dict[str, dict[str, datetime]]
"""Product id -> candidate -> when the candidate first used the product's label."""


@dataclass(frozen=True, slots=True)
class Fold:
    """The products that certify one attribute of one candidate."""

    attribute: str
    product_ids: Sequence[str]
    certification_round: int
    """The certification fold that the products were drawn for, from 0; ``GOLD_ROUND``: a gold sample."""


def use_labels(catalog: Catalog, fold: Fold, candidate: str) -> LabelUse:
    """Record that ``candidate`` is certified on the labels of ``fold``, and count the uses.

    A candidate is a model and what is tested of it (:func:`catalog_enrichment.precision.certify.candidate_key`). The
    use number is 1 + the largest number of other candidates that used any of the products before this candidate did, in
    any certification round. The same candidate on the same products gets the same number again, and nothing is written.
    Raises GateRefused if another training holds the table for ``LOCK_SECONDS``.
    """
    with catalog.locked(TABLE, LOCK_SECONDS) as assert_held:
        uses, newest = _first_uses(catalog, fold)
        now = strictly_later(datetime.now(UTC), newest)
        new = [product for product in dict.fromkeys(fold.product_ids) if candidate not in uses[product]]
        if new:
            usual = {"attribute": fold.attribute, "certification_round": fold.certification_round}
            rows = [usual | {"product_id": product, "candidate": candidate, "used_at": now} for product in new]
            assert_held()
            catalog.append_rows(TABLE, rows, stable_hash(TABLE, fold.attribute, candidate, new, now.isoformat()))
        return LabelUse(number=_number(uses, fold, candidate), certification_round=fold.certification_round)


def next_number(catalog: Catalog, fold: Fold, candidate: str) -> int:
    """Return the number that :func:`use_labels` would give now; nothing is recorded."""
    uses, _ = _first_uses(catalog, fold)
    return _number(uses, fold, candidate)


def earlier_uses(catalog: Catalog) -> EarlierUses:
    """Return all uses of merchants' labels so far."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batches = list(catalog.scan(TABLE, ["attribute", "product_id", "certification_round", "candidate"]))
    table = pa.Table.from_batches(batches).filter(pc.field("certification_round") != GOLD_ROUND) if batches else None
    if table is None or not table.num_rows:
        return EarlierUses()
    newest = pc.max(table.column("certification_round")).as_py()
    first = table.group_by("product_id").aggregate([("certification_round", "min")])
    candidates = (
        table.filter(pc.equal(table.column("certification_round"), newest))
        .group_by(["attribute", "product_id"])
        .aggregate([("candidate", "count_distinct")])
    )
    most = candidates.group_by("attribute").aggregate([("candidate_count_distinct", "max")])
    return EarlierUses(
        certification_round=newest,
        uses={row["attribute"]: row["candidate_count_distinct_max"] for row in most.to_pylist()},
        first_round={row["product_id"]: row["certification_round_min"] for row in first.to_pylist()},
    )


def _number(uses: FirstUses, fold: Fold, candidate: str) -> int:
    """Return 1 + the largest number of other candidates that used a product's label before ``candidate``."""
    return 1 + max((_used_before(uses[product], candidate) for product in fold.product_ids), default=0)


def _used_before(first_use: dict[str, datetime], candidate: str) -> int:
    own = first_use.get(candidate)
    return sum(own is None or time < own for time in first_use.values())


def _first_uses(catalog: Catalog, fold: Fold) -> tuple[FirstUses, datetime | None]:
    """Return the first uses of the products of ``fold``, and the newest use of the attribute; None if it has none.

    Uses of gold samples and of merchants' labels are not each other's: an answer and a merchant's value are two labels.
    """
    import pyarrow.compute as pc

    wanted, newest = set(fold.product_ids), None
    uses: FirstUses = defaultdict(dict)
    for batch in catalog.scan(TABLE):
        for row in batch.filter(pc.equal(batch.column("attribute"), fold.attribute)).to_pylist():
            if (row["certification_round"] == GOLD_ROUND) != (fold.certification_round == GOLD_ROUND):
                continue
            time = row["used_at"]
            newest = time if newest is None else max(newest, time)
            if row["product_id"] in wanted:
                of_product = uses[row["product_id"]]
                of_product[row["candidate"]] = min(time, of_product.get(row["candidate"], time))
    return uses, newest
