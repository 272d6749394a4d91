"""The populations and probabilities of samples: the request, a frame of rows per population, and two draws.

    accepted       model values that readers see
    suggested      open suggestions
    abstained      products whose score was too low; without a value
    unlabelled     products without a merchant value, a row per attribute that they lack; without a value
    proposed       values that a model version proposed, whatever was decided about them

Each row is about a value, or about an attribute of a product without a value. Written values are drawn by
:func:`draw_values`, the samples that certify by :func:`draw_products`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.review_records import Purpose
from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.review_tables import PAIR, Pair
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.precision.units import NOTHING
from catalog_enrichment.reasons import JUDGED, Reason
from catalog_enrichment.records import Cardinality, Decision, Source, stable_hash
from catalog_enrichment.spark.category_filters import applies
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.operations import AuditConfig
    from catalog_enrichment.dictionary import Dictionary

UNIFORM, NEAR = "uniform", "near_threshold"

SAME_PRODUCT = "same_product"
"""Stratum of the other values of products that were drawn uniformly; no estimate rests on it."""

ROW = ("product_id", "attribute", "value", "content_hash", "score", "threshold", "certificate_id", "modality",
       "model_version", "event_id", "decided_by", "reason")  # fmt: skip
"""Columns of `audits` that a population gives."""


class SampledPopulation(StrEnum):
    """The population that a sample is drawn of."""

    ACCEPTED = "accepted"
    """Written values that readers see."""
    SUGGESTIONS = "suggestions"
    """Open suggestions: disagreements with merchants and near misses."""
    ABSTENTIONS = "abstentions"
    """Products without a value whose score was too low."""
    PROPOSALS = "proposals"
    """The values that a model version proposes for products without a value, whatever was decided."""
    GOLD = "gold"
    """Products without a merchant value, with all attributes that they lack."""


_PURPOSES = {
    SampledPopulation.ACCEPTED: Purpose.AUDIT,
    SampledPopulation.SUGGESTIONS: Purpose.LABEL,
    SampledPopulation.ABSTENTIONS: Purpose.LABEL,
    SampledPopulation.PROPOSALS: Purpose.PROPOSALS,
    SampledPopulation.GOLD: Purpose.GOLD,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawRequest:
    """A caller's request to audit_sample."""

    population: SampledPopulation = SampledPopulation.ACCEPTED
    run_id: str | None = None
    """A run: only its values and decisions are drawn. None draws from all."""
    attributes: tuple[str, ...] = ()
    """The attributes to draw; empty for every attribute of the dictionary."""
    uniform: int
    """How many values are drawn per attribute; for proposals how many products per attribute, for a gold sample how
    many products."""
    near: int
    near_share: float
    reviewers: int
    seed: int = 0
    """Another number draws another sample of the same catalog."""
    whole_products: bool = False
    """Also draw the other written values of each product of the uniform stratum."""
    model_version: str | None = None
    """The version whose proposals are drawn; None stands for the version that made the newest decision."""
    lowest: float = 0.0
    """The lowest score of a proposal that is drawn."""

    @classmethod
    def of(cls, config: AuditConfig, **given: Any) -> DrawRequest:
        """Return the request with the config's numbers where ``given`` has None."""
        usual = {name: getattr(config, name) for name in ("uniform", "near", "near_share", "reviewers")}
        return cls(**usual | {name: value for name, value in given.items() if value is not None})

    @property
    def purpose(self) -> Purpose:
        return _PURPOSES[self.population]

    @property
    def draws_products(self) -> bool:
        return self.population in (SampledPopulation.GOLD, SampledPopulation.PROPOSALS)

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"purpose": self.purpose.value}

    def check(self, dictionary: Dictionary) -> None:
        """Raise ConfigError for an unknown attribute or a number that cannot be."""
        if unknown := sorted(set(self.attributes) - set(dictionary.attributes)):
            raise ConfigError(f"{unknown} is not in the dictionary, which has {sorted(dictionary.attributes)}")
        if self.population is SampledPopulation.GOLD and self.uniform < 1:
            raise ConfigError(f"--gold must be at least 1, not {self.uniform}")
        if self.uniform < 1 or self.near < 0 or self.reviewers < 1:
            raise ConfigError("--uniform and --reviewers must be at least 1, --near at least 0")
        if self.whole_products and self.population is not SampledPopulation.ACCEPTED:
            raise ConfigError(f"--whole-products is for written values, not for {self.population.value}")
        if self.run_id and self.draws_products:
            raise ConfigError(
                f"--run is not for {self.population.value}: such a sample is drawn of all products without a value, "
                "and not of those that one run decided"
            )
        if self.population is not SampledPopulation.PROPOSALS and (self.model_version or self.lowest):
            raise ConfigError("--model-version and --lowest are for --of proposals")
        if not 0 <= self.lowest <= 1:
            raise ConfigError(f"--lowest must lie in [0, 1], as scores do, not {self.lowest}")

    def names(self, dictionary: Dictionary) -> tuple[str, ...]:
        """Return the attributes to draw. Raises ConfigError for a gold sample of an attribute that is not enabled."""
        if self.population is not SampledPopulation.GOLD:
            return self.attributes or tuple(dictionary.attributes)
        if off := sorted(set(self.attributes) - set(dictionary.enabled)):
            raise ConfigError(f"{off} is not enabled in the dictionary: nothing is predicted, and nothing to be asked")
        if not dictionary.enabled:
            raise ConfigError("no attribute of the dictionary is enabled: there is nothing to ask for")
        return tuple(name for name in dictionary.enabled if name in (self.attributes or dictionary.enabled))


# --- populations ----------------------------------------------------------------------------------------------------


def accepted(catalog: Catalog) -> DataFrame:
    """Return the model values that readers see, each with the event that asserts it."""
    from pyspark.sql import functions as F

    current = catalog.read("current_values").where(ledger.by_model())
    seen = current.select(*PAIR, "run_id", F.explode("values").alias("value"))
    events = catalog.read("attribute_values").where(ledger.asserted_by_model())
    rows = events.join(seen, [*PAIR, "run_id", "value"], "left_semi")
    return rows.withColumn("decided_by", F.col("run_id")).select(*ROW)


def suggested(catalog: Catalog, dictionary: Dictionary) -> DataFrame:
    """Return the open suggestions."""
    from pyspark.sql import functions as F

    from catalog_enrichment.operations.suggestions import open_suggestions

    key = [*PAIR, "value", "run_id"]
    suggestions = open_suggestions(catalog, dictionary).withColumnRenamed("suggested_value", "value").select(*key)
    rows = catalog.read("predictions").where(F.col("decision") == Decision.SUGGEST.value)
    return _of_predictions(rows.join(suggestions, key, "left_semi"))


def abstained(catalog: Catalog) -> DataFrame:
    """Return the products whose newest decision found the best score too low; the value is empty."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*PAIR).orderBy(F.desc("finished_at"), F.desc("run_id"), "rank")
    best = _decisions(catalog).withColumn("place", F.row_number().over(newest)).where("place = 1")
    judged = [reason.value for reason in JUDGED - {Reason.REFUSED_BY_PERSON}]
    rows = best.where((F.col("decision") == Decision.ABSTAIN.value) & F.col("reason").isin(judged))
    seen = catalog.read("current_values").select(*PAIR)
    rows = _left_to_models(catalog, rows).join(seen, PAIR, "left_anti")
    return _of_predictions(rows).withColumn("value", F.lit(""))


def unlabelled(
    catalog: Catalog, dictionary: Dictionary, attributes: Sequence[str], asked: Collection[Pair]
) -> DataFrame:
    """Return a row per product and attribute for which the merchant gives no value; the value is empty.

    Products that opted out, attributes that do not apply to the product's category, and the pairs ``asked`` are left
    out. Values of models and people make no difference.
    """
    from pyspark.sql import functions as F

    products = catalog.read("products").where(~F.col("opt_out"))
    names = F.array_compact(F.array(*[F.when(applies(dictionary[name]), F.lit(name)) for name in attributes]))
    pairs = products.select("product_id", "content_hash", F.explode(names).alias("attribute"))
    rows = _without(pairs.join(_merchants_pairs(catalog), PAIR, "left_anti"), asked)
    nothing = [F.lit(None).cast("double" if name in ("score", "threshold") else "string").alias(name)
               for name in ROW if name not in (*PAIR, "value", "content_hash")]  # fmt: skip
    return rows.select(*PAIR, F.lit("").alias("value"), "content_hash", *nothing).select(*ROW)


def proposed(
    catalog: Catalog, dictionary: Dictionary, model_version: str, lowest: float, judged: Collection[Pair]
) -> DataFrame:
    """Return the newest proposals of ``model_version`` with a score of at least ``lowest``, whatever was decided.

    Proposals about older content, for products to which the merchant or a person gave a value, and for the pairs
    ``judged`` are left out. For an attribute with one value per product only the top value is returned.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*PAIR).orderBy(F.desc("finished_at"), F.desc("run_id"))
    own = _decisions(catalog).where(F.col("model_version") == model_version)
    rows = own.withColumn("recency", F.dense_rank().over(newest)).where("recency = 1")
    many = [name for name, known in dictionary.attributes.items() if known.cardinality is Cardinality.MANY]
    rows = rows.where(F.col("value") != NOTHING)
    rows = rows.where((F.col("rank") == 1) | F.col("attribute").isin(many)).where(F.col("score") >= lowest)
    rows = _left_to_models(catalog, rows).join(_merchants_pairs(catalog), PAIR, "left_anti")
    return _of_predictions(_without(rows, judged))


def versions(catalog: Catalog, attributes: Sequence[str]) -> list[str]:
    """Return the model versions that have decided about ``attributes``; the version of the newest decision is last."""
    from pyspark.sql import functions as F

    about = _decisions(catalog).where(F.col("attribute").isin(list(attributes)))
    newest = about.groupBy("model_version").agg(F.max(F.struct("finished_at", "run_id")).alias("newest"))
    return [row["model_version"] for row in newest.orderBy("newest").collect()]


def _decisions(catalog: Catalog) -> DataFrame:
    """Return the rows of `predictions` of runs that have succeeded, with ``finished_at`` of the run."""
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    return catalog.read("predictions").join(F.broadcast(finished), "run_id")


def _merchants_pairs(catalog: Catalog) -> DataFrame:
    from pyspark.sql import functions as F

    return catalog.read("current_values").where(F.col("source") == Source.MERCHANT.value).select(*PAIR)


def _left_to_models(catalog: Catalog, rows: DataFrame) -> DataFrame:
    """Return the ``rows`` about the present content of products that did not opt out, where no person gave a value."""
    from pyspark.sql import functions as F

    products = catalog.read("products").where(~F.col("opt_out")).select("product_id", "content_hash")
    rows = rows.join(products, ["product_id", "content_hash"], "left_semi")
    return rows.join(ledger.human_owned(catalog.read("attribute_values")), PAIR, "left_anti")


def _without(rows: DataFrame, pairs: Collection[Pair]) -> DataFrame:
    """Return the ``rows`` that are not about ``pairs``."""
    from pyspark.sql import functions as F

    gone = rows.sparkSession.createDataFrame(sorted(pairs), "product_id string, attribute string")
    return rows.join(F.broadcast(gone), PAIR, "left_anti")


def _of_predictions(rows: DataFrame) -> DataFrame:
    """Return the columns :data:`ROW` of rows of `predictions`."""
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")
    return rows.withColumns({"event_id": nothing, "decided_by": F.col("run_id")}).select(*ROW)


# --- draws ----------------------------------------------------------------------------------------------------------


def draw_products(rows: DataFrame, size: int, salt: str) -> list[list[dict[str, Any]]]:
    """Return all ``rows`` of ``size`` products, or of all products if there are fewer; a list per product.

    A simple random sample of the products without replacement in a random order: each beginning of the draw is a sample
    of the same kind, so that a test may look after every answer. Each row gets ``probability``, with which its product
    was drawn, ``population``, the number of products, and the weights of a uniform draw. Within a product the rows are
    sorted by attribute, then by score, the highest first. Another ``salt`` gives another draw.
    """
    from pyspark.sql import functions as F

    random = F.xxhash64(F.lit(stable_hash(salt)), "product_id")
    with persisted_frames() as persist:
        rows = persist(rows)
        products = rows.select("product_id").distinct()
        population = products.count()
        chosen = products.withColumn("place", random).orderBy("place", "product_id").limit(size)
        found = [row.asDict() for row in rows.join(F.broadcast(chosen), "product_id").collect()]
    found.sort(key=lambda row: (row["place"], row["product_id"], row["attribute"], -(row["score"] or 0), row["value"]))
    drawn: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        del row["place"]
        share = {"probability": min(1.0, size / population), "population": population}
        drawn.setdefault(row["product_id"], []).append(row | share | {"weight": 1.0, "highest_weight": 1.0})
    return list(drawn.values())


def draw_values(rows: DataFrame, request: DrawRequest) -> DataFrame:
    """Return the drawn ``rows`` with stratum, draw_order, probability, population, weight and highest_weight.

    The strata, per attribute:

        uniform          each row with the same probability: a systematic sample in the order of the values, so that
                         every value has its share
        near_threshold   only of written values: further rows of those with the smallest distance between score and
                         threshold, about as many of each value, because errors are most frequent there
        same_product     only for whole products: the other values of the products in the uniform stratum

    The order of the draw is random over the strata.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    def random(*salt: str) -> Column:
        """Return a number of the row by which rows are shuffled."""
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
    if request.population is SampledPopulation.ACCEPTED and request.near:
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
    ).select(*ROW, "stratum", "draw_order", "probability", "population", "weight", "highest_weight")


def _with_near(marked: DataFrame, request: DrawRequest, random: Column) -> DataFrame:
    """Add ``is_near``, for further rows near the threshold, and ``extra``, the probability with which a row that is
    not drawn uniformly is one of them."""
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
    # a uniformly drawn row near the threshold had the same chance as its neighbours to be drawn as a near row
    of_neighbours = Window.partitionBy("attribute", "value")
    near = distance <= F.col("limit")
    neighbours = F.max(F.when(open_near, extra)).over(of_neighbours)
    return placed.withColumns(
        {
            "extra": F.when(near, F.coalesce(neighbours, F.lit(1.0))).otherwise(F.lit(0.0)),
            "is_near": open_near & (F.col("near_place") <= F.col("quota")),
        }
    )
