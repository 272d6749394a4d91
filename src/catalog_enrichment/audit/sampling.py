"""audit_sample: draws written values, proposals, suggestions, abstentions or whole products for reviewers.

The probability of every draw is known.

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

A gold sample (`--gold N`) draws N products without a merchant value, whatever models and people said about them, and
asks for the values of all attributes that they lack. Its answers certify and train nothing (catalog.gold_labels).

Proposals are drawn uniformly over the products for which one model version proposed a value, whatever was decided:
people's verdicts on them certify the version's values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import populations
from catalog_enrichment.audit.draw_request import DrawRequest, Population
from catalog_enrichment.audit.items import Item, Purpose, Sample
from catalog_enrichment.audit.populations import ROW
from catalog_enrichment.audit.product_draws import draw_products
from catalog_enrichment.catalog import gold_labels, runs, switches, verdicts
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.records import NOTHING_TO_DO, RunKind, RunStatus, make_run_id, stable_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import DataFrame

    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.context import Context
    from catalog_enrichment.dictionary import Dictionary

__all__ = ["SAME_PRODUCT", "UNIFORM", "DrawRequest", "Population", "audit_sample", "draw"]

UNIFORM, NEAR = "uniform", "near_threshold"

SAME_PRODUCT = "same_product"
"""Stratum of the other values of products that were drawn uniformly; no estimate rests on it."""


def audit_sample(
    context: Context, store: ReviewStore, request: DrawRequest, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Draw a sample into the table `audits` and the review store. Returns the summary.

    The same request on the same catalog is the same sample: started again it adds what is missing, and says so.
    ``config``: options of the commands that it names. Raises DataContractError where there is nothing to draw.
    """
    catalog, stages = context.catalog, Stages(context.say)
    request.check(context.dictionary)
    names = request.names(context.dictionary)
    record = RunRecord(kind=RunKind.SAMPLE, stages=stages, config=context.config.without_secrets())
    record.window = request.identity()
    with runs.recorded(catalog, record):
        catalog.refresh_current_values("catch-up")
        if request.population is Population.PROPOSALS:
            request = replace(request, model_version=_version(catalog, request, names, config))
        if request.population in (Population.PROPOSALS, Population.GOLD):
            request = replace(request, attributes=names)  # another dictionary can give others for the same arguments
        record.window = request.identity()
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
    for line in _in_words(request, rows, status, config):
        context.say(line)
    return {
        "status": status,
        "run_id": record.run_id,
        "sample_id": sample.sample_id,
        "title": sample.title,
        "items": len(rows),
        "products": len({row["product_id"] for row in rows}),
        "drawn": counts,
        "gold_answers": gold_labels.counts(gold_labels.gold_labels(catalog)),
        "seconds": stages.seconds,
    }


def _version(catalog: Catalog, request: DrawRequest, attributes: Sequence[str], config: Sequence[str]) -> str:
    """Return the model version whose proposals are drawn. Raises DataContractError if it has decided nothing."""
    known = populations.versions(catalog, attributes)
    version = request.model_version or (known[-1] if known else None)
    if version in known:
        return version
    wanted = f" of model version {version}" if version else ""
    enrich = command("enrich_catalog", [*config, "--set", f'enrich.model_version="{version or "V"}"'])
    raise DataContractError(
        f"there are no proposals{wanted} for {sorted(attributes)}: "
        f"{f'only versions {known} have' if known else 'no model version has'} decided about them. {enrich} makes "
        f"proposals{'' if version else ' of version V'}; without a certificate it writes nothing"
    )


def _in_words(
    request: DrawRequest, rows: Sequence[Mapping[str, Any]], status: str, config: Sequence[str]
) -> Iterator[str]:
    """Yield lines for people: how much was drawn, and the commands that follow."""
    if status == NOTHING_TO_DO:
        yield "this sample was drawn before; another --seed draws another sample of the same catalog"
    if request.population in (Population.PROPOSALS, Population.GOLD):
        drawn = Counter(row["attribute"] for row in rows if row["stratum"] == UNIFORM)
        counts = ", ".join(f"{name} {number:,}" for name, number in sorted(drawn.items()))
        most = max(row["population"] for row in rows)
        of = f" of {most:,}" if request.population is Population.GOLD or len(drawn) == 1 else ""
        yield f"{len({row['product_id'] for row in rows}):,}{of} products drawn; products per attribute: {counts}"
        if most < request.uniform:
            yield f"{request.uniform:,} products were asked for and there are only {most:,}: all are drawn"
    yield f"next: people judge them on the review page: {command('serve_audit', config)}"
    yield f"then: {command('audit_ingest', config)}"


def _drawn_once(
    catalog: Catalog, dictionary: Dictionary, request: DrawRequest, record: RunRecord
) -> list[dict[str, Any]]:
    """The rows of the table `audits` that the run drew, now or before it was killed, in the order of the draw."""
    if not catalog.committed(verdicts.AUDITS, record.run_id):
        names = request.attributes or tuple(dictionary.attributes)
        rows = _drawn(catalog, dictionary, request, names)
        if not rows:
            raise DataContractError(
                f"there are no {_DRAWN[request.population]} to draw of {sorted(names)}: "
                + _why_nothing(request, names, switches.read(catalog))
            )
        sample_id = stable_hash(record.run_id)[:16]
        now = datetime.now(UTC)
        given = {"sample_id": sample_id, "purpose": request.purpose.value, "drawn_at": now, "run_id": record.run_id}
        catalog.append_rows(verdicts.AUDITS, [_audit_row(row, given) for row in rows], record.run_id)
    found = [row for batch in catalog.scan(verdicts.AUDITS) for row in batch.to_pylist()]
    mine = [row for row in found if row["run_id"] == record.run_id]
    return sorted(mine, key=lambda row: int(row["draw_order"]))


def _drawn(
    catalog: Catalog, dictionary: Dictionary, request: DrawRequest, attributes: Sequence[str]
) -> list[dict[str, Any]]:
    """Draw the rows of `audits`, without the columns that name the sample and the run."""
    match request.population:
        case Population.ACCEPTED:
            rows = populations.accepted(catalog)
        case Population.SUGGESTIONS:
            rows = populations.suggested(catalog, dictionary)
        case Population.ABSTENTIONS:
            rows = populations.abstained(catalog)
        case Population.PROPOSALS:
            return _drawn_proposals(catalog, dictionary, request)
        case Population.GOLD:
            asked = {_pair(row) for row in verdicts.drawn(catalog) if row["purpose"] == Purpose.GOLD.value}
            lacking = populations.unlabelled(catalog, dictionary, attributes, asked)
            return _numbered(draw_products(lacking, request.uniform, f"gold {request.seed}"))
    rows = rows.where(rows["attribute"].isin(list(attributes)))
    rows = rows if request.run_id is None else rows.where(rows["decided_by"] == request.run_id)
    return [row.asDict() for row in draw(rows, request).collect()]


def _drawn_proposals(catalog: Catalog, dictionary: Dictionary, request: DrawRequest) -> list[dict[str, Any]]:
    """Draw products uniformly per attribute, with all their proposals; the highest is in the stratum `uniform`."""
    judged = {_pair(row) for row in verdicts.newest(catalog).values()}
    rows = populations.proposed(catalog, dictionary, request.model_version or "", request.lowest, judged)
    products: list[list[dict[str, Any]]] = []
    for name in request.attributes:
        salt = f"proposals {request.seed} {name}"
        products += draw_products(rows.where(rows["attribute"] == name), request.uniform, salt)
    for of_product in products:
        for row in of_product[1:]:
            row["stratum"] = SAME_PRODUCT
    return _numbered(sorted(products, key=lambda one: stable_hash(request.seed, *_pair(one[0]))))


def _numbered(products: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of ``products`` with their place in the draw; rows without a stratum get `uniform`."""
    rows = [row for of_product in products for row in of_product]
    return [{"stratum": UNIFORM} | dict(row) | {"draw_order": number} for number, row in enumerate(rows)]


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return (row["product_id"], row["attribute"])


_DRAWN = {one: f"{one.value} values" for one in Population} | {
    Population.PROPOSALS: "proposals",
    Population.GOLD: "products without a merchant value",
}


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
        case Population.PROPOSALS:
            why = (
                f"model version {request.model_version} has no proposal with a score of {request.lowest:g} or more for "
                "a product without a value, or people have judged all of them"
            )
        case Population.GOLD:
            why = "merchants give them for every product that can have them, or all were in an earlier gold sample"
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
    ).select(*ROW, "stratum", "draw_order", "probability", "population", "weight", "highest_weight")


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
