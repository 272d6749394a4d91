"""audit_sample and offer_suggestions: put questions for people into the review store.

audit_sample draws written values, proposals, suggestions, abstentions or whole products (:mod:`audit.draws`). The
probability with which a row came into the sample is stored in the table `audits`; estimates weigh by it. Reviewers are
asked in the order of the draw and are not told the stratum. A sample of what one run wrote does not represent all
written values: its verdicts retract and correct, and no alarm, confirmation or new certificate rests on them.

A gold sample (`--gold N`) asks for the values of all attributes that N products lack; its answers certify and train
nothing (catalog.human_labels). Verdicts on proposals certify the values of the model version that made them.

offer_suggestions shows the open suggestions of each shop to its manager.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import draws
from catalog_enrichment.audit.draws import SAME_PRODUCT, UNIFORM, DrawRequest, SampledPopulation, draw_products
from catalog_enrichment.audit.review_records import Item, Purpose, ReviewSample
from catalog_enrichment.catalog import human_labels, review_tables, runs, switches
from catalog_enrichment.catalog.review_tables import PAIR, pair_of
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.operations.suggestions import open_suggestions
from catalog_enrichment.records import NOTHING_TO_DO, RunKind, RunStatus, make_run_id, stable_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from catalog_enrichment.audit.review_store import ReviewStore
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context
    from catalog_enrichment.dictionary import Dictionary

    Row = Mapping[str, Any]

MOST_SUGGESTIONS = 50_000
"""Suggestions in a sample: those with the highest scores. People do not answer more than that before the next run."""

_OF_PRODUCT = ("product_id", "shop_id", "title", "description", "category", "language")


def audit_sample(
    context: Context, store: ReviewStore, request: DrawRequest, config: Sequence[str] = ANY_CONFIG
) -> dict[str, Any]:
    """Draw a sample into the table `audits` and the review store. Return the summary.

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
        if request.population is SampledPopulation.PROPOSALS:
            request = replace(request, model_version=_version(catalog, request, names, config))
        if request.draws_products:
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
        counts = Counter(f"{row['attribute']}.{row['stratum']}" for row in rows)
        drawn = dict(sorted(counts.items()))
        record.count(drawn=drawn)
        runs.write(catalog, record)
    for line in _in_words(request, rows, status == NOTHING_TO_DO, config):
        context.say(line)
    return {
        "status": status,
        "run_id": record.run_id,
        "sample_id": sample.sample_id,
        "title": sample.title,
        "items": len(rows),
        "products": len({row["product_id"] for row in rows}),
        "drawn": drawn,
        "gold_answers": human_labels.gold_counts(human_labels.gold_labels(catalog)),
        "seconds": stages.seconds,
    }


def _version(catalog: Catalog, request: DrawRequest, attributes: Sequence[str], config: Sequence[str]) -> str:
    """Return the model version whose proposals are drawn. Raises DataContractError if it has decided nothing."""
    known = draws.versions(catalog, attributes)
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


def _in_words(request: DrawRequest, rows: Sequence[Row], is_known: bool, config: Sequence[str]) -> Iterator[str]:
    """Yield lines for people: how much was drawn, and the commands that follow. ``is_known``: it was drawn before."""
    if is_known:
        yield "this sample was drawn before; another --seed draws another sample of the same catalog"
    if request.draws_products:
        drawn = Counter(row["attribute"] for row in rows if row["stratum"] == UNIFORM)
        counts = ", ".join(f"{name} {number:,}" for name, number in sorted(drawn.items()))
        most = max(row["population"] for row in rows)
        of = f" of {most:,}" if request.population is SampledPopulation.GOLD or len(drawn) == 1 else ""
        yield f"{len({row['product_id'] for row in rows}):,}{of} products drawn; products per attribute: {counts}"
        if most < request.uniform:
            yield f"{request.uniform:,} products were asked for and there are only {most:,}: all are drawn"
    sample_id = rows[0]["sample_id"]
    export = ["--sample", sample_id, "--export", f"sample-{sample_id}.json"]
    yield f"next: people judge sample {sample_id} on the review page: {command('serve_audit', config)}"
    yield f"  or in Label Studio: {command('label_studio', [*config, *export])}"
    yield f"then: {command('audit_ingest', config)}"


def _drawn_once(
    catalog: Catalog, dictionary: Dictionary, request: DrawRequest, record: RunRecord
) -> list[dict[str, Any]]:
    """Return the rows of `audits` that the run drew, now or before it was killed, in the order of the draw."""
    if not catalog.committed(review_tables.AUDITS, record.run_id):
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
        drawn = [
            {**row, **given, "item_id": Item.id_of(sample_id, row["product_id"], row["attribute"], row["value"])}
            for row in rows
        ]
        catalog.append_rows(review_tables.AUDITS, drawn, record.run_id)
    found = [row for batch in catalog.scan(review_tables.AUDITS) for row in batch.to_pylist()]
    mine = [row for row in found if row["run_id"] == record.run_id]
    return sorted(mine, key=lambda row: int(row["draw_order"]))


def _drawn(
    catalog: Catalog, dictionary: Dictionary, request: DrawRequest, attributes: Sequence[str]
) -> list[dict[str, Any]]:
    """Draw the rows of `audits`, without the columns that name the sample and the run."""
    match request.population:
        case SampledPopulation.ACCEPTED:
            rows = draws.accepted(catalog)
        case SampledPopulation.SUGGESTIONS:
            rows = draws.suggested(catalog, dictionary)
        case SampledPopulation.ABSTENTIONS:
            rows = draws.abstained(catalog)
        case SampledPopulation.PROPOSALS:
            return _drawn_proposals(catalog, dictionary, request)
        case SampledPopulation.GOLD:
            asked = {pair_of(row) for row in review_tables.drawn(catalog) if row["purpose"] == Purpose.GOLD.value}
            lacking = draws.unlabelled(catalog, dictionary, attributes, asked)
            return _numbered(draw_products(lacking, request.uniform, f"gold {request.seed}"))
    rows = rows.where(rows["attribute"].isin(list(attributes)))
    rows = rows if request.run_id is None else rows.where(rows["decided_by"] == request.run_id)
    return [row.asDict() for row in draws.draw_values(rows, request).collect()]


def _drawn_proposals(catalog: Catalog, dictionary: Dictionary, request: DrawRequest) -> list[dict[str, Any]]:
    """Draw products uniformly per attribute, with all their proposals; the highest is in the stratum `uniform`."""
    judged = {pair_of(row) for row in review_tables.newest(catalog).values()}
    rows = draws.proposed(catalog, dictionary, request.model_version or "", request.lowest, judged)
    products: list[list[dict[str, Any]]] = []
    for name in request.attributes:
        salt = f"proposals {request.seed} {name}"
        products += draw_products(rows.where(rows["attribute"] == name), request.uniform, salt)
    for of_product in products:
        for row in of_product[1:]:
            row["stratum"] = SAME_PRODUCT
    return _numbered(sorted(products, key=lambda of_product: stable_hash(request.seed, *pair_of(of_product[0]))))


def _numbered(products: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """Return the rows of ``products`` with their place in the draw; rows without a stratum get `uniform`."""
    rows = [row for of_product in products for row in of_product]
    return [{"stratum": UNIFORM} | dict(row) | {"draw_order": number} for number, row in enumerate(rows)]


_DRAWN = {population: f"{population.value} values" for population in SampledPopulation} | {
    SampledPopulation.PROPOSALS: "proposals",
    SampledPopulation.GOLD: "products without a merchant value",
}


def _why_nothing(request: DrawRequest, attributes: Sequence[str], now: switches.Switches) -> str:
    """Say why there is nothing to draw, and what to do."""
    of_run = f" by run {request.run_id}" if request.run_id else ""
    match request.population:
        case SampledPopulation.ACCEPTED:
            why = (
                f"readers see no value of them that a model wrote{of_run}. What was taken back or rolled back cannot "
                "be drawn: rollback_run of the run that took it back shows it again"
            )
        case SampledPopulation.SUGGESTIONS:
            why = f"no suggestion{of_run} is open: none was made, or people and merchants have answered all"
        case SampledPopulation.ABSTENTIONS:
            why = f"no product's score was too low in its newest decision{of_run}, or people have said what is right"
        case SampledPopulation.PROPOSALS:
            why = (
                f"model version {request.model_version} has no proposal with a score of {request.lowest:g} or more for "
                "a product without a value, or people have judged all of them"
            )
        case SampledPopulation.GOLD:
            why = "merchants give them for every product that can have them, or all were in an earlier gold sample"
    not_on = [
        f"{switch} is {switch.state.value}: {switch.why}"
        for switch in now.entries
        if switch.scope is Scope.CERTIFICATE or switch.attribute in attributes
    ]
    return "; ".join([why, *not_on])


def _sample(request: DrawRequest, rows: Sequence[Row]) -> ReviewSample:
    names = ", ".join(sorted({row["attribute"] for row in rows}))
    of = f"run {request.run_id}" if request.run_id else "the whole catalog"
    return ReviewSample(
        sample_id=rows[0]["sample_id"],
        purpose=request.purpose,
        drawn_at=rows[0]["drawn_at"],
        reviewers=request.reviewers,
        title=f"{request.population.value} of {of}: {names}",
    )


def _items(catalog: Catalog, dictionary: Dictionary, rows: Sequence[Row]) -> list[Item]:
    """Return the questions about the drawn rows, in their order; there are none about products that are gone."""
    from pyspark.sql import functions as F

    products = catalog.read("products")
    ids = products.sparkSession.createDataFrame(
        [(product_id,) for product_id in sorted({row["product_id"] for row in rows})], "product_id string"
    )
    pictures = F.transform(
        "images", lambda image: F.struct(image["uri"].alias("uri"), image["version"].alias("version"))
    )
    found = products.join(F.broadcast(ids), "product_id", "left_semi").select(*_OF_PRODUCT, pictures.alias("images"))
    by_id = {row["product_id"]: row.asDict() for row in found.collect()}
    evidence = _evidence(catalog, rows)
    return [
        _item(dictionary, by_id[row["product_id"]], {**row, "evidence": evidence.get(_decided(row))})
        for row in rows
        if row["product_id"] in by_id
    ]


def _evidence(catalog: Catalog, rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    """Return :func:`_decided` of the drawn rows -> the evidence of these decisions, where they have some.

    It is not in the table `audits`, which has no text of a product and outlives products that are deleted.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F

    drawn = {_decided(row) for row in rows if row["value"]}
    if not drawn:
        return {}
    ids = pa.array(sorted({product_id for _, product_id, *_ in drawn}), pa.string())
    columns = ["run_id", *PAIR, "value", "evidence"]
    decisions = catalog.read("predictions", columns=columns, ids=ids).where(F.col("evidence").isNotNull())
    found = {tuple(row[name] for name in columns[:-1]): row["evidence"] for row in decisions.collect()}
    return {key: found[key] for key in drawn & found.keys()}


def _decided(row: Row) -> tuple[str, ...]:
    """Return the key of the decision that a drawn row is about: run, product, attribute and value."""
    return (row["decided_by"], *pair_of(row), row["value"])


def _item(dictionary: Dictionary, product: Row, row: Row) -> Item:
    """Return the question about a ``row`` with sample_id, attribute, value and perhaps evidence.

    ``product``: the columns of a product that an item has, with pictures in ``images``.
    """
    attribute, value = row["attribute"], row["value"]
    return Item(
        item_id=Item.id_of(row["sample_id"], product["product_id"], attribute, value),
        sample_id=row["sample_id"],
        **{name: product[name] or "" for name in _OF_PRODUCT},
        images=tuple((image["uri"] or "", image["version"] or "") for image in product["images"] or () if image),
        attribute=attribute,
        cardinality=dictionary[attribute].cardinality,
        value=value,
        evidence=row["evidence"] or "",
    )


# --- suggestions ----------------------------------------------------------------------------------------------------


def offer_suggestions(context: Context, store: ReviewStore, shops: Sequence[str] = ()) -> dict[str, Any]:
    """Add a sample of the open suggestions, of all ``shops`` if none is named. Return the job's summary.

    Suggestions of an earlier sample, answered there or not, are left out: a manager is asked once. Without a new
    suggestion nothing is added.
    """
    from pyspark.sql import functions as F

    stages = Stages(context.say)
    with stages("suggestions") as stage:
        rows = open_suggestions(context.catalog, context.dictionary)
        if shops:
            rows = rows.where(F.col("shop_id").isin(list(shops)))
        offered = context.spark.createDataFrame(
            sorted(offered_before(store)), "product_id string, attribute string, suggested_value string"
        )
        rows = rows.join(F.broadcast(offered), ["product_id", "attribute", "suggested_value"], "left_anti")
        products = context.catalog.read("products").select(
            "product_id", "description", "category", "language", "images"
        )
        best = rows.orderBy(F.desc("score"), "product_id", "attribute", "suggested_value").limit(MOST_SUGGESTIONS)
        found = [row.asDict(recursive=True) for row in best.join(products, "product_id").collect()]
        found.sort(key=lambda row: (-row["score"], row["product_id"], row["attribute"], row["suggested_value"]))
        stage.rows_out = len(found)
    sample, items = suggestion_sample(context.dictionary, found, datetime.now(UTC))
    added = bool(items) and store.add_sample(sample, items)
    return {
        "status": RunStatus.SUCCEEDED if added else NOTHING_TO_DO,
        "sample_id": sample.sample_id if items else None,
        "suggestions": len(items),
        "seconds": stages.seconds,
    }


def suggestion_sample(
    dictionary: Dictionary, rows: Sequence[Row], drawn_at: datetime
) -> tuple[ReviewSample, list[Item]]:
    """Return the sample of the suggestions ``rows``, which have the product's columns besides. Its id is a hash of
    products, attributes and values."""
    keys = sorted((row["product_id"], row["attribute"], row["suggested_value"]) for row in rows)
    sample = ReviewSample(
        sample_id=f"suggestions-{stable_hash(keys)[:20]}",
        purpose=Purpose.SUGGESTIONS,
        drawn_at=drawn_at,
        reviewers=1,
        title=f"Open suggestions of {drawn_at:%Y-%m-%d}",
    )
    asked = {"sample_id": sample.sample_id}
    return sample, [_item(dictionary, row, {**row, **asked, "value": row["suggested_value"]}) for row in rows]


def offered_before(store: ReviewStore) -> set[review_tables.Key]:
    """Return product, attribute and value of the suggestions in the store's samples."""
    return {
        (item.product_id, item.attribute, item.value)
        for sample in store.samples()
        if sample.purpose is Purpose.SUGGESTIONS
        for item in store.items(sample.sample_id)
    }
