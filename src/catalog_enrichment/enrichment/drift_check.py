"""Drift in every run: scores per stratum against those of certification (PRECISION, After deployment).

The check compares the products that the run scored and that have no merchant's value, by attribute, modality path,
language and first-level category, with the model version's drift.json. The run pauses a stratum beyond the bounds of
the config section [drift]: its decisions abstain with the reason `paused`, and a row of `switches` keeps it so.

The switch rows are written after the run's row in `runs`, which names them; where a run is killed between the two the
next run writes them. Before the row they would make the run, started again, another run. A stratum that somebody moved
after the run had begun is left as it is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs, switches
from catalog_enrichment.catalog.review_tables import pair_of
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches, stratum_name
from catalog_enrichment.enrichment import score
from catalog_enrichment.enrichment.policy import stratum
from catalog_enrichment.models import version_files
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS
from catalog_enrichment.precision.drift import IMAGE, MASKED, MIN_MASKED, TEXT, Share, StratumScores, drifted
from catalog_enrichment.reasons import DRIFT_KEY
from catalog_enrichment.records import ANY_VALUE, Modality, RunKind
from catalog_enrichment.spark.frames import bin_of, with_ids

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.operations import DriftConfig
    from catalog_enrichment.context import Context
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection
    from catalog_enrichment.registry.model_registry import ResolvedModel

WHO = "drift check"

Stratum = tuple[str, str]
"""(attribute, switches.stratum_name)."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The result of a run's drift check."""

    compared: int = 0
    """Strata with a reference and enough products in it and in the run."""
    strata: int = 0
    """Strata that the run scored."""
    pauses: tuple[Switch, ...] = ()
    """Strata that have drifted and were not paused before."""

    def to_dict(self) -> dict[str, Any]:
        pauses = [{"attribute": pause.attribute, "stratum": pause.target, "why": pause.why} for pause in self.pauses]
        return {"compared": self.compared, "strata": self.strata, "pauses": pauses}


def check(context: Context, request: RunRequest, selection: Selection, scored: DataFrame) -> Drift:
    """Return the strata of ``scored`` that have drifted; nothing without a reference."""
    bounds = context.config.drift
    reference = read_reference(request.model) if bounds.enabled else {}
    if not reference:
        return Drift()
    now = strata(scored, request.model)
    both = {key: (reference[key], now[key]) for key in sorted(reference.keys() & now.keys())}
    large = [key for key, pair in both.items() if min(scores.products for scores in pair) >= bounds.min_products]
    names = [name for name in MASKED if any(name in reference[key].masked for key in large)]
    if bounds.masked_products and names:
        for key, changes in _masked(context, request, selection, scored, names).items():
            if key in both:
                both[key] = (both[key][0], replace(both[key][1], masked=changes))
    return Drift(len(large), len(now), new_pauses(both, request.switches, bounds))


def new_pauses(
    both: Mapping[Stratum, tuple[StratumScores, StratumScores]], now: Switches, bounds: DriftConfig
) -> tuple[Switch, ...]:
    """Return the pauses of the strata that have drifted; ``both``: their scores in the reference and in the run.

    Not of strata that are paused or off already: the newest row of `switches` counts, and a pause would make active
    again what a person switched off.
    """
    not_on = {switch.key for switch in now.of(Scope.STRATUM, State.PAUSED, State.OFF)}
    found = []
    for (attribute, name), (before, after) in both.items():
        reasons = drifted(before, after, bounds)
        pause = _pause(attribute, name, "; ".join(reasons))
        if reasons and pause.key not in not_on:
            found.append(pause)
    return tuple(found)


def write_pauses(catalog: Catalog, pauses: Sequence[Switch], run_id: str, begun: datetime) -> None:
    """Write the pauses of a finished run that began at ``begun``, once.

    Not of strata that were moved since: the newest row counts, and it is that of a person who may have switched the
    stratum off, or looked at it and left it on.
    """
    if pauses:
        moved = {switch.key for switch in switches.history(catalog) if switch.at is not None and switch.at >= begun}
        left = [replace(pause, run_id=run_id) for pause in pauses if pause.key not in moved]
        switches.write(catalog, left, f"{run_id}#{DRIFT_KEY}")


def write_missing_pauses(catalog: Catalog) -> None:
    """Write the pauses of the newest finished run, if it was killed before it could."""
    known = runs.rows(catalog, ["run_id", "kind", "status", "started_at", "finished_at"])
    done = [row for row in filter(runs.has_succeeded, known) if row["kind"] == RunKind.ENRICH.value]
    if done:
        last = done[-1]
        runs.add_attributes(catalog, [last])
        found = json.loads(last["attributes"] or "{}").get(DRIFT_KEY) or {}
        pauses = [_pause(row["attribute"], row["stratum"], row["why"]) for row in found.get("pauses", [])]
        write_pauses(catalog, pauses, last["run_id"], last["started_at"])


def _pause(attribute: str, name: str, why: str) -> Switch:
    return Switch(
        scope=Scope.STRATUM, attribute=attribute, target=name, state=State.PAUSED, who=WHO, why=why or "drift"
    )


# --- the scores of strata --------------------------------------------------------------------------------------------


def read_reference(model: ResolvedModel) -> dict[Stratum, StratumScores]:
    """Return the scores at certification, on the compute types of the model's certificates."""
    compute_types = {certificate.compute_type for certificate in model.certificates}
    return {
        (row["attribute"], stratum_name(row["modality"], given["language"], given["category"])): StratumScores(
            products=given["products"],
            accepted=given.get("accepted"),
            histogram=tuple(given["histogram"]),
            masked={name: Share(*numbers) for name, numbers in given["masked"].items()},
        )
        for row in version_files.read_drift(model.artifact)
        if row["compute_type"] in compute_types
        for given in row["strata"]
    }


def strata(scored: DataFrame, model: ResolvedModel) -> dict[Stratum, StratumScores]:
    """Return the scores of a run, of the unlabelled products. One query; its result has few rows per stratum."""
    from pyspark.sql import functions as F

    accepted = F.lit(False)
    for certificate in model.certificates:
        if certificate.threshold is not None:
            of_path = F.col("modality") == certificate.modality.value
            in_pool = F.lit(ANY_VALUE in certificate.values) | F.col("value").isin(list(certificate.values))
            passes = of_path & in_pool & (F.col("score") >= certificate.threshold)
            accepted = accepted | ((F.col("attribute") == certificate.attribute) & passes)
    rows = _unlabelled(scored).withColumns({"accepted": accepted, "stratum": stratum()})
    products = rows.groupBy("product_id", "attribute", "stratum").agg(
        F.max("score").alias("top"), F.max("accepted").alias("accepted")
    )
    counts = products.groupBy("attribute", "stratum", bin_of("top", HISTOGRAM_BINS), "accepted").count().collect()
    bins: defaultdict[Stratum, list[int]] = defaultdict(lambda: [0] * HISTOGRAM_BINS)
    accepted_products: defaultdict[Stratum, int] = defaultdict(int)
    for row in counts:
        key = (row["attribute"], row["stratum"])
        bins[key][row["bin"]] += row["count"]
        accepted_products[key] += row["count"] if row["accepted"] else 0
    return {key: StratumScores(sum(of), accepted_products[key], tuple(of)) for key, of in bins.items()}


def _unlabelled(scored: DataFrame) -> DataFrame:
    """Return a row per candidate of the products and pending attributes without a merchant's value."""
    from pyspark.sql import functions as F

    names = ("product_id", "content_hash", "modality", "language", "category")
    given = F.size(F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array())) > 0
    rows = scored.where(F.col("error").isNull()).select(
        *names, "pending", "merchant_attributes", F.inline("candidates")
    )
    rows = rows.where(F.array_contains("pending", F.col("attribute")) & ~given)
    return rows.select(*names, "attribute", "value", "rank", "score")


def _masked(
    context: Context, request: RunRequest, selection: Selection, scored: DataFrame, names: Sequence[str]
) -> dict[Stratum, dict[str, Share]]:
    """Return stratum -> modality of ``names`` -> products of a sample whose top value changes without it."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    config = context.config
    with_picture = _unlabelled(scored).where((F.col("modality") == Modality.BOTH.value) & (F.col("rank") == 1))
    order = (F.xxhash64(F.lit("masked"), "product_id"), "product_id")
    sample = with_picture.select("product_id").distinct().orderBy(*order).limit(config.drift.masked_products)
    ids = sample.toArrow()["product_id"].combine_chunks()
    if len(ids) < MIN_MASKED:
        return {}
    some = with_ids(context.spark, pa.array(ids))
    top = with_picture.join(some, "product_id").withColumn("stratum", stratum())
    before = {pair_of(row): row for row in top.collect()}
    content = selection.source.select("product_id", "content_hash", "title", "description", "images")
    products = content.join(some, "product_id")
    proposer, asked = request.model.proposer, score.asked_of(context.catalog, request.model, config)
    found: defaultdict[Stratum, dict[str, Share]] = defaultdict(dict)
    for name in names:
        without_image = products.withColumn("images", F.filter("images", lambda _: F.lit(False)))
        masked = without_image if name == IMAGE else products
        again = proposer.propose(masked, replace(asked, without_text=name == TEXT))
        if name == TEXT:  # a picture that can be read no more, or not now, would leave nothing to score by
            again = again.where(F.col("modality") == Modality.BOTH.value)
        changes: defaultdict[Stratum, list[bool]] = defaultdict(list)
        for row in again.select("product_id", F.inline("candidates")).where("rank = 1").collect():
            was = before.get(pair_of(row))
            if was is not None:
                is_same = context.dictionary.is_same(was["attribute"], was["value"], row["value"])
                changes[was["attribute"], was["stratum"]].append(not is_same)
        for key, changed in changes.items():
            found[key][name] = Share(sum(changed), len(changed))
    return dict(found)
