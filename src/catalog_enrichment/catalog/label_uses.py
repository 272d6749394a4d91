"""The table `label_uses`, read and written here alone: which labels certified which models (PRECISION, certificate 6).

A label that tests a second model is weaker evidence than one that tests its first, whether or not the first model was
ever registered. So a use is recorded on the catalog, before the labels are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from catalog_enrichment.precision.certify import LabelUse
from catalog_enrichment.precision.earlier_uses import GOLD_ROUND, EarlierUses
from catalog_enrichment.records import stable_hash, strictly_later

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

TABLE = "label_uses"
LOCK_SECONDS = 300
"""How long a training waits for another one that is recording its uses; that takes seconds."""

FirstUses = dict[str, dict[str, datetime]]
"""Product id -> candidate -> when the candidate first used the product's label."""


@dataclass(frozen=True, slots=True)
class Fold:
    """The products that certify one attribute of one candidate."""

    attribute: str
    product_ids: Sequence[str]
    certification_round: int
    """The certification fold that the products were drawn for, from 0; ``GOLD_ROUND``: a gold sample."""


def use_labels(catalog: Catalog, fold: Fold, candidate: str, earlier: Sequence[str] = ()) -> LabelUse:
    """Record that ``candidate`` is certified on the labels of ``fold``, and count the uses.

    A candidate is a model and what is tested of it (:func:`catalog_enrichment.precision.certify.candidate_key`).

    The use number is 1 + the largest number of other candidates that used any of the products before this candidate
    did, in any certification round. The same candidate on the same products gets the same number again, and nothing is written.
    ``earlier``: candidates, oldest first, that were certified before the catalog kept this table. Which products they
    used is not known: they are recorded for every product of certification round 0 that has no use of the attribute yet. Raises
    GateRefused if another training holds the table for ``LOCK_SECONDS``.
    """
    attribute, product_ids = fold.attribute, fold.product_ids
    with catalog.locked(TABLE, LOCK_SECONDS) as assert_lease:
        uses, newest = _first_uses(catalog, fold)
        now = strictly_later(datetime.now(UTC), newest)
        before = earlier if fold.certification_round == 0 else []
        times = {name: now + timedelta(microseconds=place) for place, name in enumerate([*before, candidate])}
        new = {
            (product, name): times[name]
            for product in dict.fromkeys(product_ids)
            for name in ([candidate] if uses[product] else times)
            if name not in uses[product]
        }
        if new:
            rows = [
                {
                    "attribute": attribute,
                    "product_id": product,
                    "certification_round": fold.certification_round,
                    "candidate": name,
                    "used_at": time,
                }
                for (product, name), time in new.items()
            ]
            assert_lease()
            catalog.append_rows(TABLE, rows, stable_hash(TABLE, attribute, sorted(new), now.isoformat()))
        for (product, name), time in new.items():
            uses[product][name] = time
        number = 1 + max((_used_before(uses[product], candidate) for product in product_ids), default=0)
        return LabelUse(number=number, certification_round=fold.certification_round)


def next_number(catalog: Catalog, fold: Fold, candidate: str, earlier: Sequence[str] = ()) -> int:
    """The number that :func:`use_labels` would give now; nothing is recorded."""
    uses, newest = _first_uses(catalog, fold)
    before = 0 if newest or fold.certification_round != 0 else len(set(earlier) - {candidate})
    return 1 + max((before + _used_before(uses[product], candidate) for product in fold.product_ids), default=0)


def earlier_uses(catalog: Catalog) -> EarlierUses:
    """All uses of merchants' labels so far, as :func:`catalog_enrichment.training.epochs.folds_of_round` needs them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batches = list(catalog.scan(TABLE, ["attribute", "product_id", "certification_round", "candidate"]))
    table = pa.Table.from_batches(batches).filter(pc.field("certification_round") != GOLD_ROUND) if batches else None
    if table is None or not table.num_rows:
        return EarlierUses()
    certification_round = pc.max(table.column("certification_round")).as_py()
    first = table.group_by("product_id").aggregate([("certification_round", "min")])
    candidates = (
        table.filter(pc.equal(table.column("certification_round"), certification_round))
        .group_by(["attribute", "product_id"])
        .aggregate([("candidate", "count_distinct")])
    )
    most = candidates.group_by("attribute").aggregate([("candidate_count_distinct", "max")])
    return EarlierUses(
        certification_round=certification_round,
        uses={row["attribute"]: row["candidate_count_distinct_max"] for row in most.to_pylist()},
        first_round=dict(
            zip(first["product_id"].to_pylist(), first["certification_round_min"].to_pylist(), strict=True)
        ),
    )


def _used_before(first_use: dict[str, datetime], candidate: str) -> int:
    """How many other candidates used the product's label before ``candidate``."""
    own = first_use.get(candidate)
    return sum(own is None or time < own for time in first_use.values())


def _first_uses(catalog: Catalog, fold: Fold) -> tuple[FirstUses, datetime | None]:
    """The first uses of the products of ``fold``, and the newest use of the attribute; None if it has none.

    Uses of gold samples and of merchants' labels are not each other's: an answer and a merchant's value are two labels.
    """
    import pyarrow.compute as pc

    wanted, newest = set(fold.product_ids), None
    uses: FirstUses = defaultdict(dict)
    for batch in catalog.scan(TABLE):
        rows = batch.filter(pc.equal(batch.column("attribute"), fold.attribute)).to_pylist()
        for row in rows:
            if (row["certification_round"] == GOLD_ROUND) != (fold.certification_round == GOLD_ROUND):
                continue
            time = row["used_at"]
            newest = time if newest is None else max(newest, time)
            if row["product_id"] in wanted:
                of_product = uses[row["product_id"]]
                of_product[row["candidate"]] = min(time, of_product.get(row["candidate"], time))
    return uses, newest
