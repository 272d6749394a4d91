"""Which products a run scores: the window asked for, less what needs no scoring (I5, I7).

:func:`select_products` decides it from top to bottom; :mod:`pending` says which attributes of a product are open.

A run settles its window but for what it leaves open: decisions that are tried again after a while, and values that wait
under the provisional cap. Until a product, the ledger, the config or the model version changes, another run would
decide nothing else. Imports mark the products that they changed, so the next run looks at these and at what was left
open (:class:`IncrementalScope`), and its cost follows the change. It looks at all products where the last run

    had another request    another model version, config or window; a backfill or a rollback came after it
    left products over     beyond `enrich.max_products`
    is not the last        to have written to the ledger: a person did, or a run that was killed; not an import, whose
                           events are about products that it removed or added
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment import contract
from catalog_enrichment.catalog import gone_products, runs
from catalog_enrichment.catalog.ledger import ActiveValues, LedgerState
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment import fingerprints, pending, policy
from catalog_enrichment.enrichment.request import RequestIdentity, RunRequest
from catalog_enrichment.reasons import SEEN_BY_TRYING, Reason
from catalog_enrichment.records import RunKind, make_run_id
from catalog_enrichment.spark import category_filters
from catalog_enrichment.spark.frames import empty_frame, few_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import EnrichConfig
    from catalog_enrichment.spark.frames import Persist

READY = "ready"

_CAN_BE_SCORED = (READY, Reason.ALREADY_SCORED.value)
"""Statuses of products that could be scored, if values of theirs wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The products that a run scores, and the values that it retracts without a decision."""

    run_id: str
    ready: DataFrame
    """The products to score, with ``pending``, the attributes to decide; without texts and pictures."""
    rows: int = 0
    """Number of these products."""
    source: DataFrame
    """Products with texts and pictures, those of ``ready`` among them."""
    scope: IncrementalScope | None
    """The products looked at; None: all products of the window."""
    seen: int
    """Products in the window: rows + the sum of ``skipped``."""
    skipped: Mapping[str, int]
    """Reason -> products of the window that are not scored."""
    fingerprint: str = ""
    """Hash of everything about these products that a decision rests on."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Attribute -> values of the window's products that wait under the provisional cap and are not decided again."""
    left_open: int = 0
    """Products that a later run may have to look at although nothing has changed."""
    active: ActiveValues
    """The active values of the products looked at, persisted."""
    retracted: DataFrame
    """The active values of the window's products to retract without a decision (:mod:`policy`)."""
    retractions: int = 0
    """Number of these values."""

    def identify(self, record: RunRecord) -> str:
        """Set the record's run id and counts of the selection; returns the run id."""
        record.input_fingerprint, record.run_id = self.fingerprint, self.run_id
        record.count(products=self.seen, skipped=self.skipped, left_open=self.left_open)
        return self.run_id


def read_ledger(catalog: Catalog) -> LedgerState:
    """Return the newest version of the ledger, for the whole run."""
    version = catalog.version("attribute_values")
    return LedgerState(version, catalog.read("attribute_values", version))


def select_products(catalog: Catalog, request: RunRequest, state: LedgerState, persist: Persist) -> Selection:
    """Select every product of the window that is new, changed, or has an attribute this model version has not decided.

    Values that wait under the provisional cap are decided again where there is room for them. A run that committed to
    the ledger and was killed before its row in `runs` is found again: it looks at the values that were active before
    it (I5).
    """
    columns = [name for name in contract.columns("products") if name not in ("images", "title", "description")]
    products = request.window.select(catalog.read("products", columns=columns))
    scope = incremental_scope(catalog, request.identity(), products)
    if scope is not None and not len(scope.ids):
        return _nothing(scope, state, request.window.select(catalog.read("products")))
    ids = scope.ids if scope else few_ids(products) if request.window.is_part() else None
    looked_at = request.window.select(catalog.read("products", columns=columns, ids=ids))
    status = pending.with_pending(catalog, looked_at, request.scope(), ids)
    status = persist(status.withColumn("status", _status(request.rules)))
    if scope is None:  # else the last run was the last to write to the ledger: none was killed after it had
        for run_id in _unfinished(catalog, request.identity().window, state):
            selection = _selected(catalog, request, state.before(run_id), status, None, ids, persist)
            if selection.run_id == run_id:
                return selection
    return _selected(catalog, request, state, status, scope, ids, persist)


def _unfinished(catalog: Catalog, window: str | None, state: LedgerState) -> list[str]:
    """Return the runs that committed to the ledger and were killed before their row in `runs`, and that a run of
    ``window`` may be.

    A run of the same window that has succeeded since and left no product over has decided what they had decided: none
    of them is looked for any more.
    """
    columns = ("run_id", "kind", "status", "window", "counts", "finished_at")
    succeeded = [row for row in runs.rows(catalog, columns) if runs.has_succeeded(row)]
    over = max((row["finished_at"] for row in succeeded if row["kind"] == RunKind.ENRICH.value
                and row["window"] == window and not _left_over(row)), default=None)  # fmt: skip
    killed = state.totals.asserted_at.keys() - {row["run_id"] for row in succeeded}
    return sorted(
        run_id
        for run_id in killed
        if run_id.startswith(RunKind.ENRICH.value) and (over is None or state.totals.asserted_at[run_id] > over)
    )


def _left_over(row: Mapping[str, Any]) -> bool:
    """Return whether a run, by its row in `runs`, left products over that were more than `enrich.max_products`."""
    return bool(dict(row["counts"] or {}).get(f"skipped.{Reason.OVER_LIMIT.value}"))


def _nothing(scope: IncrementalScope, state: LedgerState, products: DataFrame) -> Selection:
    """Return the selection in a window without a product to look at; ``products``: all of it, for the columns."""
    from pyspark.sql import functions as F

    no_events = state.events.limit(0)
    return Selection(
        run_id=make_run_id(RunKind.ENRICH, "nothing"),
        ready=products.limit(0).withColumn("pending", F.array().cast("array<string>")),
        source=products,
        scope=scope,
        seen=scope.others,
        skipped={Reason.UNCHANGED.value: scope.others} if scope.others else {},
        active=ActiveValues(state.version, no_events),
        retracted=no_events.withColumn("contradiction", F.lit(None).cast("string")),
    )


def _selected(
    catalog: Catalog,
    request: RunRequest,
    state: LedgerState,
    status: DataFrame,
    scope: IncrementalScope | None,
    ids: pa.Array | None,
    persist: Persist,
) -> Selection:
    """Return the selection by the values that are active in ``state``; ``status``: the products looked at; ``ids``:
    theirs, where they are few."""
    from pyspark.sql import functions as F

    most = request.window.max_products
    active = _active(catalog, state, ids, persist)
    active = replace(active, events=persist(active.events))
    # the last run of an incremental scope had the same dictionary
    may_be_removed = scope is None and bool(state.totals.asserted_at)
    retracted = persist(policy.to_retract(active.events, status, request, may_be_removed))
    retractions, retracted_hash = fingerprints.counted(retracted, F.xxhash64("event_id", "contradiction"))
    if not retractions:  # nothing to join to, in all that follows
        retracted = empty_frame(retracted.sparkSession, retracted.schema)
    counts, waiting = _status_counts(status), dict[str, int]()
    if counts.any_waiting:
        status, waiting = _with_room(status, state.active().without(retracted).events, request, persist)
        counts = _status_counts(status)
    ready, rows, inputs = status.where(F.col("status") == READY), counts.ready, counts.fingerprint
    skipped = dict(counts.skipped)
    if 0 < most < rows:
        ready = ready.orderBy(F.desc_nulls_last("updated_at"), "product_id").limit(most)
        skipped[Reason.OVER_LIMIT.value] = rows - most
        rows, inputs = fingerprints.counted(ready, fingerprints.input_hash())
    if scope and scope.others:
        skipped[Reason.UNCHANGED.value] = scope.others
    run_id = request.run_id(inputs, state.totals.human_events, *([retracted_hash] if retractions else []))
    return Selection(
        run_id=_unused(catalog, request, state, retracted, run_id),
        ready=ready,
        rows=rows,
        source=request.window.select(catalog.read("products", ids=ids)),
        scope=scope,
        seen=rows + sum(skipped.values()),
        skipped=dict(sorted(skipped.items())),
        fingerprint=inputs,
        waiting=waiting,
        left_open=skipped.get(Reason.OVER_LIMIT.value, 0) + counts.tried_again,
        active=active,
        retracted=retracted,
        retractions=retractions,
    )


def _active(catalog: Catalog, state: LedgerState, ids: pa.Array | None, persist: Persist) -> ActiveValues:
    if ids is None:
        return state.active()
    return state.active_among(catalog.read("attribute_values", state.version, ids=ids), persist)


def _status(rules: EnrichConfig) -> Column:
    """Return READY, or why the product is not scored."""
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


class _StatusCounts(NamedTuple):
    ready: int
    fingerprint: str
    """Hash of the ready products."""
    skipped: Mapping[str, int]
    tried_again: int
    """Products with decisions that are tried again later."""
    any_waiting: bool
    """Values of products that could be scored wait under the provisional cap."""


def _status_counts(status: DataFrame) -> _StatusCounts:
    """Count the products of all statuses, in one query."""
    from pyspark.sql import functions as F

    groups = status.groupBy("status").agg(
        *fingerprints.sums(fingerprints.input_hash()),
        F.count_if("tried_again").alias("tried_again"),
        F.max(F.size("waiting") > 0).alias("any_waiting"),
    )
    rows = {row["status"]: row for row in groups.collect()}
    ready = rows.get(READY)
    return _StatusCounts(
        ready=ready["rows"] if ready else 0,
        fingerprint=fingerprints.hash_of(ready),
        skipped={name: row["rows"] for name, row in rows.items() if name != READY},
        tried_again=sum(row["tried_again"] for row in rows.values()),
        any_waiting=any(rows[name]["any_waiting"] for name in _CAN_BE_SCORED if name in rows),
    )


def _with_room(
    status: DataFrame, active: DataFrame, request: RunRequest, persist: Persist
) -> tuple[DataFrame, dict[str, int]]:
    """Return ``status`` with the waiting values pending that there is room for, and the numbers of the others."""
    from pyspark.sql import functions as F

    could_be_scored = status.where(F.col("status").isin(*_CAN_BE_SCORED))
    waiting = could_be_scored.select("product_id", F.inline("waiting"))
    marked = persist(policy.with_room(waiting, active, request.cap))
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


def _unused(catalog: Catalog, request: RunRequest, state: LedgerState, retracted: DataFrame, run_id: str) -> str:
    """Return ``run_id``, or the next id that follows from it if a run of that id is over.

    It has succeeded, and its work was rolled back; or it was killed, and what it landed must not be published any more.
    ``retracted``: the values that the run retracts without a decision.
    """
    finished = runs.succeeded_ids(catalog)
    while run_id in finished or not policy.may_resume(catalog, request, state, retracted, run_id):
        run_id = make_run_id(RunKind.ENRICH, run_id, "again")
    return run_id


# --- the products since the last run ---------------------------------------------------------------------------------


class LastRun(NamedTuple):
    """The last run with the same request."""

    run_id: str
    imports: list[str]
    """Ids of the imports before it."""
    left_open: bool
    """It left something to look at again although nothing has changed."""
    whole_catalog: bool
    """Its window was the whole catalog."""
    table_versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class IncrementalScope:
    """The products of a window that have changed since the last run, or were left open."""

    ids: pa.Array
    """Their ``product_id``."""
    others: int
    """The number of other products in the window."""
    last: LastRun
    removed: bool = False
    """Products of the catalog were removed since."""


_DECIDE_NOTHING = (*(kind.value for kind in gone_products.REMOVING), RunKind.MAINTAIN.value, RunKind.SAMPLE.value)


def incremental_scope(catalog: Catalog, request: RequestIdentity, products: DataFrame) -> IncrementalScope | None:
    """Return which of ``products``, those of the window asked for, to look at; None: all of them."""
    columns = ("run_id", "kind", "status", "counts", "table_versions", "finished_at")
    succeeded = [*filter(runs.has_succeeded, runs.rows(catalog, (*columns, *RequestIdentity._fields)))]
    last = last_run(succeeded, request, partial(gone_products.ledger_changed_by_others, catalog))
    if last is None:
        return None
    # the imports also of products that an import wrote before it was killed
    by_import = {row["imported_by"]: row["count"] for row in products.groupBy("imported_by").count().collect()}
    since = tuple(sorted(run_id for run_id in by_import if run_id not in last.imports))
    chosen = products.where(_imported_by(since)).select("product_id")
    if last.left_open:
        chosen = chosen.union(products.select("product_id").join(_left_open(catalog), "product_id", "left_semi"))
    ids = few_ids(chosen)
    if ids is None:
        return None
    others = sum(by_import.values()) - len(ids)
    removed = gone_products.products_removed(catalog, last.table_versions["products"], succeeded)
    return IncrementalScope(ids, others, last, removed)


def last_run(
    succeeded: Iterable[Mapping[str, Any]], request: RequestIdentity, ledger_changed: Callable[[int], bool]
) -> LastRun | None:
    """Return the last run, if it had the same request and nobody has written to the ledger since; else None.

    ``succeeded``: rows of the contract `runs`, in any order; ``ledger_changed``: says whether a run that counts has
    written to the ledger since a version of it.
    """
    rows = sorted(succeeded, key=lambda row: row["finished_at"])
    last = next((row for row in reversed(rows) if row["kind"] not in _DECIDE_NOTHING), None)
    if last is None or last["kind"] != RunKind.ENRICH.value:
        return None
    same_request = tuple(last[name] for name in RequestIdentity._fields) == request
    versions, counts = dict(last["table_versions"] or {}), dict(last["counts"] or {})
    version = versions.get("attribute_values")
    if not same_request or version is None or _left_over(last) or ledger_changed(version):
        return None
    imports = [row for row in rows if row["kind"] == RunKind.IMPORT.value]
    before = [row["run_id"] for row in imports if row["finished_at"] < last["finished_at"]]
    whole = request.window == runs.as_json({})
    return LastRun(last["run_id"], before, counts["left_open"] > 0, whole, versions)


def _imported_by(imports: Iterable[str]) -> Column:
    from pyspark.sql import functions as F

    return F.col("imported_by").isin(*imports)


def _left_open(catalog: Catalog) -> DataFrame:
    """Return ``product_id`` of the products with a decision that can be open still; some may be settled since."""
    from pyspark.sql import functions as F

    reasons = [reason.value for reason in (*SEEN_BY_TRYING, Reason.NO_ANSWER, Reason.PROVISIONAL_CAP)]
    return catalog.read("predictions").where(F.col("reason").isin(reasons)).select("product_id").distinct()
