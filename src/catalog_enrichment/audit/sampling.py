"""audit_sample: draws written values, suggestions or abstentions for reviewers, with known probabilities.

Of written values there are two strata, per attribute:

    uniform          of all values that readers see (or that one run wrote and they still see), each with the same
                     probability: a systematic sample in the order of the values, so that every value has its share
    near_threshold   further ones of those with the smallest distance between score and threshold, about as many of
                     each value, because errors are most frequent there

Asked for whole products, the other values of every product drawn uniformly come too (`same_product`): recertification
of an attribute with several values needs all values of a product. Estimates and alarms leave them out.

The probability with which a row came into the sample is stored with it; estimates weigh by it. The order of the draw is
random over both strata, and reviewers are asked in this order without being told the stratum.

A sample of what one run wrote is no sample of everything: its verdicts retract and correct, and no alarm, confirmation
or new certificate rests on them.

Suggestions and abstentions are drawn uniformly, for labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.items import Item, Purpose, Sample
from catalog_enrichment.catalog import ledger, runs, switches, verdicts
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.records import (
    JUDGED,
    NOTHING_TO_DO,
    Decision,
    Op,
    Reason,
    RunKind,
    RunStatus,
    Source,
    make_run_id,
    stable_hash,
)
from catalog_enrichment.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.audit import AuditConfig
    from catalog_enrichment.context import Context
    from catalog_enrichment.dictionary import Dictionary

UNIFORM, NEAR = "uniform", "near_threshold"

SAME_PRODUCT = "same_product"
"""Stratum of the other values of products that were drawn uniformly; no estimate rests on it."""

_ROW = ("product_id", "attribute", "value", "content_hash", "score", "threshold", "certificate_id", "modality",
        "model_version", "event_id", "decided_by", "reason")  # fmt: skip


class Population(StrEnum):
    """What a sample is drawn of."""

    ACCEPTED = "accepted"
    """Written values that readers see."""
    SUGGESTIONS = "suggestions"
    """Open suggestions: disagreements with merchants and near misses."""
    ABSTENTIONS = "abstentions"
    """Products without a value whose score was too low."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawRequest:
    """What was asked for."""

    population: Population = Population.ACCEPTED
    run_id: str | None = None
    """Only what this run wrote or decided; None: all."""
    attributes: tuple[str, ...] = ()
    """None: every attribute of the dictionary."""
    uniform: int
    near: int
    near_share: float
    reviewers: int
    seed: int = 0
    """Another one draws another sample of the same catalog."""
    whole_products: bool = False
    """Also the other written values of each product of the uniform stratum."""

    @classmethod
    def of(cls, config: AuditConfig, **given: Any) -> DrawRequest:
        """The config's numbers where ``given`` has None."""
        usual = {name: getattr(config, name) for name in ("uniform", "near", "near_share", "reviewers")}
        return cls(**usual | {name: value for name, value in given.items() if value is not None})

    @property
    def purpose(self) -> Purpose:
        return Purpose.AUDIT if self.population is Population.ACCEPTED else Purpose.LABEL

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"purpose": self.purpose.value}

    def check(self, dictionary: Dictionary) -> None:
        """Raises ConfigError for an unknown attribute or a number that cannot be."""
        if unknown := sorted(set(self.attributes) - set(dictionary.attributes)):
            raise ConfigError(f"{unknown} is not in the dictionary, which has {sorted(dictionary.attributes)}")
        if self.uniform < 1 or self.near < 0 or self.reviewers < 1:
            raise ConfigError("--uniform and --reviewers must be at least 1, --near at least 0")
        if self.whole_products and self.population is not Population.ACCEPTED:
            raise ConfigError(f"--whole-products is for written values, not for {self.population.value}")


def audit_sample(context: Context, store: ReviewStore, request: DrawRequest) -> dict[str, Any]:
    """Draw a sample into the table `audits` and the review store. Returns the summary.

    The same request on the same catalog is the same sample: started again it adds what is missing, and says so.
    Raises DataContractError where there is nothing to draw.
    """
    catalog, stages = context.catalog, Stages(context.say)
    request.check(context.dictionary)
    record = RunRecord(kind=RunKind.SAMPLE, stages=stages, config=context.config.without_secrets())
    record.window = request.identity()
    with runs.recorded(catalog, record):
        catalog.refresh_current_values("catch-up")
        versions = {name: catalog.version(name) for name in ("products", "attribute_values", "predictions")}
        record.run_id = make_run_id(RunKind.SAMPLE, request.identity(), versions)
        status: str = NOTHING_TO_DO if record.run_id in runs.succeeded_ids(catalog) else RunStatus.SUCCEEDED
        with stages("draw") as stage:
            rows = _drawn_once(catalog, context.dictionary, request, record)
            stage.rows_out = len(rows)
        sample = _sample(request, rows)
        with stages("items"):
            store.add_sample(sample, _items(catalog, context.dictionary, rows))
        counts = _counts(rows)
        record.count(drawn=counts)
        runs.write(catalog, record)
    return {
        "status": status,
        "run_id": record.run_id,
        "sample_id": sample.sample_id,
        "title": sample.title,
        "items": len(rows),
        "drawn": counts,
        "seconds": stages.seconds,
    }


def _drawn_once(
    catalog: Catalog, dictionary: Dictionary, request: DrawRequest, record: RunRecord
) -> list[dict[str, Any]]:
    """The rows of the table `audits` that the run drew, now or before it was killed, in the order of the draw."""
    if not catalog.committed(verdicts.AUDITS, record.run_id):
        names = request.attributes or tuple(dictionary.attributes)
        rows = draw(_population(catalog, dictionary, request, names), request).collect()
        if not rows:
            raise DataContractError(
                f"there are no {request.population.value} values to draw of {sorted(names)}: "
                + _why_nothing(request, names, switches.read(catalog))
            )
        sample_id = stable_hash(record.run_id)[:16]
        now = datetime.now(UTC)
        given = {"sample_id": sample_id, "purpose": request.purpose.value, "drawn_at": now, "run_id": record.run_id}
        catalog.append_rows(verdicts.AUDITS, [_audit_row(row.asDict(), given) for row in rows], record.run_id)
    found = [row for batch in catalog.scan(verdicts.AUDITS) for row in batch.to_pylist()]
    mine = [row for row in found if row["run_id"] == record.run_id]
    return sorted(mine, key=lambda row: int(row["draw_order"]))


def _why_nothing(request: DrawRequest, attributes: Sequence[str], now: switches.Switches) -> str:
    """Why there is nothing to draw, and what to do, for people."""
    of_run = f" by run {request.run_id}" if request.run_id else ""
    match request.population:
        case Population.ACCEPTED:
            why = (
                f"readers see no value of them that a model wrote{of_run}. What was taken back or rolled back cannot "
                "be drawn: rollback_run of the run that took it back shows it again"
            )
        case Population.SUGGESTIONS:
            why = f"no suggestion{of_run} is open: none was made, or people and merchants have answered all"
        case Population.ABSTENTIONS:
            why = f"no product's score was too low in its newest decision{of_run}, or people have said what is right"
    not_on = [
        f"{one} is {one.state.value}: {one.why}"
        for one in now.entries
        if one.scope is Scope.CERTIFICATE or one.attribute in attributes
    ]
    return "; ".join([why, *not_on])


def _audit_row(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    item_id = Item.id_of(given["sample_id"], row["product_id"], row["attribute"], row["value"])
    return {**row, **given, "item_id": item_id}


def _sample(request: DrawRequest, rows: Sequence[Mapping[str, Any]]) -> Sample:
    names = ", ".join(sorted({row["attribute"] for row in rows}))
    of = f"run {request.run_id}" if request.run_id else "the whole catalog"
    return Sample(
        sample_id=rows[0]["sample_id"],
        purpose=request.purpose,
        drawn_at=rows[0]["drawn_at"],
        reviewers=request.reviewers,
        title=f"{request.population.value} of {of}: {names}",
    )


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Attribute and stratum -> rows."""
    counts: dict[str, int] = {}
    for row in rows:
        name = f"{row['attribute']}.{row['stratum']}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


# --- populations: the columns of _ROW, one row per value ------------------------------------------------------------


def _population(catalog: Catalog, dictionary: Dictionary, request: DrawRequest, attributes: Sequence[str]) -> DataFrame:
    from pyspark.sql import functions as F

    match request.population:
        case Population.ACCEPTED:
            rows = _accepted(catalog)
        case Population.SUGGESTIONS:
            rows = _suggested(catalog, dictionary)
        case Population.ABSTENTIONS:
            rows = _abstained(catalog)
    rows = rows.where(F.col("attribute").isin(list(attributes)))
    return rows if request.run_id is None else rows.where(F.col("decided_by") == request.run_id)


def _accepted(catalog: Catalog) -> DataFrame:
    """The model values that readers see, each with the event that asserts it."""
    from pyspark.sql import functions as F

    current = catalog.read("current_values").where(F.col("source") == Source.MODEL.value)
    seen = current.select("product_id", "attribute", "run_id", F.explode("values").alias("value"))
    is_assert = (F.col("op") == Op.ASSERT.value) & (F.col("source") == Source.MODEL.value)
    events = catalog.read("attribute_values").where(is_assert)
    rows = events.join(seen, ["product_id", "attribute", "run_id", "value"], "left_semi")
    return rows.withColumn("decided_by", F.col("run_id")).select(*_ROW)


def _suggested(catalog: Catalog, dictionary: Dictionary) -> DataFrame:
    from pyspark.sql import functions as F

    from catalog_enrichment.operations.suggestions import open_suggestions

    suggested = open_suggestions(catalog, dictionary).select(
        "product_id", "attribute", F.col("suggested_value").alias("value"), "run_id"
    )
    key = ["product_id", "attribute", "value", "run_id"]
    rows = catalog.read("predictions").where(F.col("decision") == Decision.SUGGEST.value)
    return _of_predictions(rows.join(suggested, key, "left_semi"))


def _abstained(catalog: Catalog) -> DataFrame:
    """Products whose newest decision found the best score too low; the value is empty: the reviewer gives it."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    newest = Window.partitionBy("product_id", "attribute").orderBy(F.desc("finished_at"), F.desc("run_id"), "rank")
    decisions = catalog.read("predictions").join(F.broadcast(finished), "run_id")
    best = decisions.withColumn("place", F.row_number().over(newest)).where("place = 1")
    judged = [reason.value for reason in JUDGED - {Reason.REFUSED_BY_PERSON}]
    rows = best.where((F.col("decision") == Decision.ABSTAIN.value) & F.col("reason").isin(judged))
    products = catalog.read("products").where(~F.col("opt_out")).select("product_id", "content_hash")
    events = catalog.read("attribute_values")
    rows = rows.join(products, ["product_id", "content_hash"], "left_semi")
    rows = rows.join(ledger.left_to_people(events), ["product_id", "attribute"], "left_anti")
    seen = catalog.read("current_values").select("product_id", "attribute")
    return _of_predictions(rows.join(seen, ["product_id", "attribute"], "left_anti")).withColumn("value", F.lit(""))


def _of_predictions(rows: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")
    return rows.withColumns({"event_id": nothing, "decided_by": F.col("run_id")}).select(*_ROW)


# --- the draw -------------------------------------------------------------------------------------------------------


def draw(rows: DataFrame, request: DrawRequest) -> DataFrame:
    """``rows`` that are drawn, with stratum, draw_order, probability, population, weight and highest_weight."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    def random(*salt: str) -> Any:
        """A number of the row in the order of which rows are shuffled."""
        return F.xxhash64(F.lit(stable_hash(request.seed, *salt)), "product_id", "attribute", "value")

    of_attribute = Window.partitionBy("attribute")
    place = F.row_number().over(of_attribute.orderBy("value", random("place"), "product_id"))
    start = F.pmod(F.xxhash64(F.lit(stable_hash(request.seed, "start")), "attribute"), F.lit(2**31)) / 2**31
    every = F.col("rows") / F.least(F.col("rows"), F.lit(request.uniform))
    counted = rows.withColumn("rows", F.count("*").over(of_attribute)).withColumn("place", place)
    # systematic: the places at which the running number of draws grows by one
    grows = F.floor(F.col("place") / every + start) > F.floor((F.col("place") - 1) / every + start)
    share = F.least(F.lit(1.0), F.lit(request.uniform) / F.col("rows"))
    marked = counted.withColumns({"is_uniform": grows, "share": share.cast("double")})
    if request.population is Population.ACCEPTED and request.near:
        marked = _with_near(marked, request, random("near"))
    else:
        marked = marked.withColumns({"is_near": F.lit(False), "extra": F.lit(0.0)})
    probability = F.col("share") + (1 - F.col("share")) * F.col("extra")
    of_certificate = Window.partitionBy("attribute", "certificate_id")
    marked = marked.withColumn("probability", probability).withColumns(
        {"population": F.count("*").over(of_certificate), "expected": F.sum("probability").over(of_certificate)}
    )
    of_product = Window.partitionBy("product_id", "attribute")
    also = F.max("is_uniform").over(of_product) if request.whole_products else F.lit(False)
    marked = marked.withColumn("is_also", also)
    drawn = marked.where(F.col("is_uniform") | F.col("is_near") | F.col("is_also"))
    order = Window.orderBy(random("order"), "product_id", "attribute", "value")
    return drawn.withColumns(
        {
            "stratum": F.when(F.col("is_uniform"), UNIFORM).when(F.col("is_near"), NEAR).otherwise(SAME_PRODUCT),
            "weight": F.col("expected") / (F.col("population") * F.col("probability")),
            "highest_weight": F.col("expected") / (F.col("population") * F.col("share")),
            "draw_order": F.row_number().over(order) - 1,
        }
    ).select(*_ROW, "stratum", "draw_order", "probability", "population", "weight", "highest_weight")


def _with_near(marked: DataFrame, request: DrawRequest, random: Any) -> DataFrame:
    """Adds ``is_near``, further rows near the threshold, and ``extra``, with which probability a row is one of them
    that is not drawn uniformly."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    distance = F.col("score") - F.coalesce("threshold", F.lit(0.0))
    limits = marked.groupBy("attribute").agg(
        F.percentile_approx(distance, request.near_share, 10_000).alias("limit"),
        F.countDistinct("value").alias("values"),
    )
    joined = marked.join(F.broadcast(limits), "attribute")
    open_near = ~F.col("is_uniform") & (distance <= F.col("limit"))
    of_value = Window.partitionBy("attribute", "value", open_near.alias("open_near"))
    quota = F.greatest(F.lit(1), F.round(F.lit(request.near) / F.col("values")).cast("int"))
    place = F.row_number().over(of_value.orderBy(random, "product_id"))
    candidates, extra = F.count("*").over(of_value), F.least(F.lit(1.0), F.col("quota") / F.col("candidates"))
    placed = joined.withColumns({"quota": quota, "near_place": place, "candidates": candidates})
    # a uniformly drawn row near the threshold had the same chance as its neighbours to come in as one of the others
    of_neighbours = Window.partitionBy("attribute", "value")
    near = distance <= F.col("limit")
    neighbours = F.max(F.when(open_near, extra)).over(of_neighbours)
    return placed.withColumns(
        {
            "extra": F.when(near, F.coalesce(neighbours, F.lit(1.0))).otherwise(F.lit(0.0)),
            "is_near": open_near & (F.col("near_place") <= F.col("quota")),
        }
    )


# --- the questions --------------------------------------------------------------------------------------------------


def _items(catalog: Catalog, dictionary: Dictionary, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    """The questions about the drawn rows, in their order; of products that are gone there is none."""
    from pyspark.sql import functions as F

    products = catalog.read("products")
    ids = products.sparkSession.createDataFrame(
        [(one,) for one in sorted({row["product_id"] for row in rows})], "product_id string"
    )
    names = ("product_id", "shop_id", "title", "description", "category", "language")
    pictures = F.transform("images", lambda one: F.struct(one["uri"].alias("uri"), one["version"].alias("version")))
    found = products.join(F.broadcast(ids), "product_id", "left_semi").select(*names, pictures.alias("images"))
    by_id = {row["product_id"]: row for row in found.collect()}
    items = []
    for row in rows:
        if (product := by_id.get(row["product_id"])) is None:
            continue
        items.append(
            Item(
                item_id=row["item_id"],
                sample_id=row["sample_id"],
                **{name: product[name] or "" for name in names},
                images=tuple((one["uri"] or "", one["version"] or "") for one in product["images"] or ()),
                attribute=row["attribute"],
                cardinality=dictionary[row["attribute"]].cardinality,
                value=row["value"],
            )
        )
    return items
