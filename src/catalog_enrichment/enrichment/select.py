"""Which products a run scores, and for which attributes: the window asked for, less what needs no scoring (I5, I7).

What is pending: :mod:`catalog_enrichment.enrichment.pending`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract, resources
from catalog_enrichment.catalog import category_filters, runs
from catalog_enrichment.catalog.ledger import ActiveValues, LedgerState
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment import landed, pending, provisional_cap, since_last_run
from catalog_enrichment.enrichment.since_last_run import IncrementalScope
from catalog_enrichment.enrichment.withdrawn import values_off
from catalog_enrichment.enrichment.withdrawn import withdrawn as without_decision
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import Reason, RunKind, make_run_id, stable_hash
from catalog_enrichment.spark.frames import FEW_PRODUCTS
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config, EnrichConfig
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.spark.frames import Persist

READY = "ready"

_WAITING_STATUSES = (READY, Reason.ALREADY_SCORED.value)
"""Statuses of products that could be scored, if values of theirs wait."""

_KEY = ["product_id", "content_hash"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The products that a run looks at."""

    status: DataFrame
    """With what is pending and why they are skipped, persisted."""
    changed: IncrementalScope | None
    """None: all of the window."""

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        request: RunRequest,
        products: DataFrame,
        changed: IncrementalScope | None,
        persist: Persist,
    ) -> Candidates:
        status = pending.with_pending(catalog, products, request.scope(), changed.of if changed else None)
        return cls(persist(status.withColumn("status", _status(request.rules))), changed)


@dataclass(frozen=True, slots=True)
class Selection:
    """The products of a run."""

    ready: DataFrame
    """Those to score, with ``pending``, the attributes to decide; without texts and pictures."""
    source: DataFrame
    """Products with texts and pictures, those of ``ready`` among them."""
    partitions: int
    """For scoring; 0: two per core."""
    rows: int
    """How many they are."""
    changed: IncrementalScope | None
    """What was looked at; None: all products of the window."""
    seen: int
    """Products in the window: rows + the sum of ``skipped``."""
    skipped: dict[str, int]
    """Reason -> products of the window that are not scored."""
    fingerprint: str
    """Hash of everything about these products that a decision rests on."""
    waiting: dict[str, int]
    """Attribute -> values of the window's products that wait under the provisional cap and are not decided again."""
    active: ActiveValues
    """The values of the products looked at that stand, persisted."""
    left_open: int
    """Products that a later run may have to look at although nothing has changed."""
    withdrawn: DataFrame
    """Active values of the window's products to retract without a decision (:mod:`withdrawn`)."""
    withdrawals: int
    """How many they are."""
    run_id: str

    @classmethod
    def nothing(cls, changed: IncrementalScope, state: LedgerState, products: DataFrame) -> Selection:
        """Of a window without any product to look at; ``products``: all of it, which gives the columns."""
        from pyspark.sql import functions as F

        return cls(
            ready=products.limit(0).withColumn("pending", F.array().cast("array<string>")),
            source=products,
            partitions=0,
            rows=0,
            changed=changed,
            seen=changed.others,
            skipped={Reason.UNCHANGED.value: changed.others} if changed.others else {},
            left_open=0,
            fingerprint=stable_hash(),
            waiting={},
            active=ActiveValues(state.version, state.events.limit(0)),
            withdrawn=state.events.limit(0).withColumn("contradiction", F.lit(None).cast("string")),
            withdrawals=0,
            run_id=make_run_id(RunKind.ENRICH, "nothing"),
        )

    @property
    def products(self) -> DataFrame:
        """Those to score, with everything."""
        return self.with_pictures(self.ready, self.rows)

    def with_pictures(self, ready: DataFrame, rows: int) -> DataFrame:
        """``ready``, all of it or about ``rows`` of it, with everything; partitioned for scoring."""
        return _with_pictures(self.source, ready.select(*_KEY, "pending"), rows, self.partitions)

    def identify(self, record: RunRecord) -> str:
        """Set the record's run id and counts of the selection; returns the run id."""
        record.input_fingerprint, record.run_id = self.fingerprint, self.run_id
        record.count(products=self.seen, skipped=self.skipped, left_open=self.left_open)
        return self.run_id


def read_ledger(catalog: Catalog) -> LedgerState:
    """The newest version of the ledger, for the whole run."""
    version = catalog.version("attribute_values")
    return LedgerState(version, catalog.read("attribute_values", version))


def select_products(catalog: Catalog, request: RunRequest, state: LedgerState, persist: Persist) -> Selection:
    """Every product of the window that is new, changed, or has an attribute this model version has not decided.

    Looked at is what changed since the last run, or was left open (:mod:`since_last_run`). Values that wait under the
    provisional cap are decided again where there is room for them. A run that committed to the ledger and was killed
    before its row in `runs` is found again: it looks at the values that stood before it (I5).
    """
    columns = [name for name in contract.columns("products") if name not in ("images", "title", "description")]
    products = request.window.select(catalog.read("products", columns=columns))
    changed = since_last_run.changed(catalog, request.identity(), products)
    if changed is None:
        candidates = Candidates.of(catalog, request, products, None, persist)
        finished = runs.succeeded_ids(catalog)
        for run_id in sorted(one for one in state.totals.run_ids - finished if one.startswith(RunKind.ENRICH.value)):
            selection = _select(catalog, request, state.before(run_id), candidates, persist)
            if selection.run_id == run_id:
                return selection
    elif changed.number:  # the last run was the last to write to the ledger: none was killed after it had
        candidates = Candidates.of(catalog, request, changed.among(products), changed, persist)
    else:
        return Selection.nothing(changed, state, request.window.select(catalog.read("products")))
    return _select(catalog, request, state, candidates, persist)


def _select(
    catalog: Catalog, request: RunRequest, state: LedgerState, candidates: Candidates, persist: Persist
) -> Selection:
    """The selection by the values that stand in ``state``."""
    from pyspark.sql import functions as F

    window, status, changed = request.window, candidates.status, candidates.changed
    active = state.standing_of(changed.of, persist) if changed else state.active()
    active = replace(active, events=persist(active.events))
    withdrawn = without_decision(active.events, status, request.rules, request.enabled, request.attributes)
    withdrawn = persist(values_off(active.events, status, withdrawn, request.overrides.switches))
    withdrawals, retracted = _count_and_hash(withdrawn)
    counts, open_later, any_waiting = _status_counts(status)
    waiting: dict[str, int] = {}
    if any_waiting:
        all_standing = state.active().without(withdrawn).events
        status, waiting = _open_where_room(status, all_standing, request, persist)
        counts, open_later, _ = _status_counts(status)
    ready = status.where(F.col("status") == READY)
    rows = counts.pop(READY, 0)
    if 0 < window.max_products < rows:
        ready = ready.orderBy(F.desc_nulls_last("updated_at"), "product_id").limit(window.max_products)
        counts[Reason.OVER_LIMIT.value] = rows - window.max_products
        rows = window.max_products
    if changed and changed.others:
        counts[Reason.UNCHANGED.value] = changed.others
    products = window.select(catalog.read("products"))
    products = changed.among(products) if changed else products
    inputs = fingerprint(ready, "pending", "earlier_runs")
    run_id = request.run_id(inputs, state.totals.human_events, *([retracted] if withdrawals else []))
    return Selection(
        ready=ready,
        source=products,
        partitions=request.rules.partitions,
        rows=rows,
        changed=changed,
        seen=rows + sum(counts.values()),
        skipped=dict(sorted(counts.items())),
        left_open=counts.get(Reason.OVER_LIMIT.value, 0) + open_later,
        fingerprint=inputs,
        waiting=waiting,
        active=active,
        withdrawn=withdrawn,
        withdrawals=withdrawals,
        run_id=_unused(catalog, request, state.active().events, run_id),
    )


def _unused(catalog: Catalog, request: RunRequest, active: DataFrame, run_id: str) -> str:
    """``run_id``, or the next id that follows from it if a run of that id is over.

    It has succeeded, and what it did was rolled back; or it was killed, and what it landed must not be published any
    more.
    """
    finished = runs.succeeded_ids(catalog)
    while run_id in finished or landed.void(catalog, run_id, request.model.certificates, active, request.cap):
        run_id = make_run_id(RunKind.ENRICH, run_id, "again")
    return run_id


def _count_and_hash(events: DataFrame) -> tuple[int, str]:
    """How many ledger events there are, and a hash of them and of the reason to retract them."""
    from pyspark.sql import functions as F

    row_hash = F.xxhash64("event_id", "contradiction")
    row = events.agg(F.count("*"), F.sum(row_hash.cast("decimal(38,0)")), F.bit_xor(row_hash)).first()
    return (int(row[0]), stable_hash(*(str(value) for value in row))) if row else (0, "")


def _status_counts(status: DataFrame) -> tuple[dict[str, int], int, bool]:
    """Status -> products; how many products have decisions that are tried again later; and whether values of products
    that could be scored wait under the provisional cap."""
    from pyspark.sql import functions as F

    groups = status.groupBy("status").agg(
        F.count("*").alias("products"),
        F.count_if("tried_again").alias("tried_again"),
        F.max(F.size("waiting") > 0).alias("any_waiting"),
    )
    rows = groups.collect()
    any_waiting = any(row["any_waiting"] for row in rows if row["status"] in _WAITING_STATUSES)
    return {row["status"]: row["products"] for row in rows}, sum(row["tried_again"] for row in rows), any_waiting


def _open_where_room(
    status: DataFrame, active: DataFrame, request: RunRequest, persist: Persist
) -> tuple[DataFrame, dict[str, int]]:
    """``status`` with those waiting values pending that there is room for, and the values that go on waiting."""
    from pyspark.sql import functions as F

    could_be_scored = status.where(F.col("status").isin(*_WAITING_STATUSES))
    waiting = could_be_scored.select("product_id", F.explode("waiting").alias("one")).select("product_id", "one.*")
    claims, room = provisional_cap.waiting_claims(waiting, active, request.cap)
    fitting = provisional_cap.fitting(claims, room, request.cap).withColumn("fits", F.lit(True))
    marked = persist(claims.join(fitting, ["product_id", "attribute"], "left"))
    counts = marked.groupBy("attribute").agg(
        F.sum(F.when(F.col("fits"), 0).otherwise(F.col("values"))).alias("waiting"), F.count("fits").alias("opened")
    )
    rows = counts.orderBy("attribute").collect()
    if any(row["opened"] for row in rows):
        opened = marked.where("fits").groupBy("product_id").agg(F.collect_set("attribute").alias("opened"))
        pending = F.array_union("pending", F.coalesce("opened", F.array().cast("array<string>")))
        status = status.join(opened, "product_id", "left").withColumn("pending", F.array_sort(pending))
        status = persist(status.withColumn("status", _status(request.rules)))
    return status, {row["attribute"]: row["waiting"] for row in rows if row["waiting"]}


def check_products(selection: Selection, config: Config) -> dict[str, Any]:
    """The great_expectations document of the selected products. Raises DataContractError, naming what failed."""
    suite = resources.locate(config.enrich.snapshot_suite, config.path("."))
    report = check_snapshot(selection.products.drop("images"), suite, {"min_rows": 1})
    if not report.success:
        failures = "\n  - ".join(report.failures)
        raise DataContractError(f"the products fail {suite.name}; nothing was written:\n  - {failures}")
    return report.document


def fingerprint(products: DataFrame, *more: str) -> str:
    """Hash of a set of products, whatever the order of the rows. Text and pictures: content_hash.

    ``more``: further columns to cover, arrays of strings.
    """
    from pyspark.sql import functions as F

    merchant_values = F.to_json(F.array_sort(F.map_entries("merchant_attributes")))
    lists = [F.to_json(F.col(name)) for name in more]
    row_hash = F.xxhash64(*_KEY, "shop_id", "category", "language", merchant_values, *lists)
    row = products.agg(F.count("*"), F.sum(row_hash.cast("decimal(38,0)")), F.bit_xor(row_hash)).first()
    return stable_hash(*(str(value) for value in row or ()))


def _with_pictures(products: DataFrame, ready: DataFrame, rows: int, partitions: int) -> DataFrame:
    """``products`` whose key is among the ``rows`` keys of ``ready``, in partitions for scoring (0: two per core).

    Pictures are shuffled at most once, and where few products of the window are ready only theirs: their keys are
    broadcast, and the shuffle comes after the join; it brings equal contents to one task, which scores them once. Too
    many keys to broadcast are joined in the partitions that the scoring needs, so that the join's shuffle is the only
    one; every picture of the window takes part in it.
    """
    from pyspark.sql import functions as F

    count = partitions or 2 * products.sparkSession.sparkContext.defaultParallelism
    if rows <= FEW_PRODUCTS:
        return products.join(F.broadcast(ready), _KEY).repartition(count, "content_hash")
    # with fewer partitions than Spark's setting it would shuffle both sides, pictures and all, once more
    count = max(count, int(str(products.sparkSession.conf.get("spark.sql.shuffle.partitions"))))
    return products.repartition(count, *_KEY).join(ready.repartition(count, *_KEY).hint("shuffle_hash"), _KEY)


def _status(rules: EnrichConfig) -> Column:
    """READY, or why the product is not scored."""
    from pyspark.sql import functions as F

    not_applicable = (F.size("applicable") == 0) | category_filters.below(rules.disabled_categories)
    return (
        F.when(F.col("opt_out"), Reason.OPTED_OUT.value)
        .when(F.col("shop_id").isin(rules.disabled_shops), Reason.SHOP_DISABLED.value)
        .when(not_applicable, Reason.NOT_APPLICABLE.value)
        .when(F.col("refused"), Reason.ALREADY_QUARANTINED.value)
        .when(F.size("pending") == 0, Reason.ALREADY_SCORED.value)
        .otherwise(READY)
    )
