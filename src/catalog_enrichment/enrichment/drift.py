"""Drift in every run: scores per stratum against those of certification (PRECISION, After deployment).

Compared are the products that the run scored and that have no merchant's value, by attribute, modality path, language
and first-level category, with the model version's drift.json. A stratum beyond the bounds of the config section [drift]
is paused by this run: its decisions abstain with the reason `paused`, and a row of `switches` keeps it so. A version of
an older release has no reference, and nothing is compared.

The switch rows are written after the run's row in `runs`, which names them; where a run is killed between the two the
next one writes them. Before the row they would make the run, started again, another one. A stratum that somebody moved
after the run had begun is left as it is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs, switches
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches, stratum_name
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.inference import udf
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS
from catalog_enrichment.precision.drift import IMAGE, MASKED, MIN_MASKED, TEXT, Share, StratumScores, drifted
from catalog_enrichment.records import Modality, RunKind, RunStatus
from catalog_enrichment.report.withheld import DRIFT
from catalog_enrichment.spark.frames import with_ids

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.audit import DriftConfig
    from catalog_enrichment.context import Context
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection
    from catalog_enrichment.registry.model_registry import ResolvedModel

WHO = "drift check"

Strata = dict[tuple[str, str], StratumScores]
"""(attribute, stratum) -> its scores."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What a run found."""

    compared: int = 0
    """Strata with a reference and enough products in it and in the run."""
    strata: int = 0
    """Those that the run scored."""
    pauses: tuple[Switch, ...] = ()
    """Those that were not paused before."""

    def to_dict(self) -> dict[str, Any]:
        pauses = [{"attribute": one.attribute, "stratum": one.target, "why": one.why} for one in self.pauses]
        return {"compared": self.compared, "strata": self.strata, "pauses": pauses}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], run_id: str) -> Drift:
        pauses = [_pause(row["attribute"], row["stratum"], row["why"]) for row in content.get("pauses", [])]
        given = tuple(replace(one, run_id=run_id) for one in pauses)
        return cls(content.get("compared", 0), content.get("strata", 0), given)


def check(context: Context, request: RunRequest, selection: Selection, scored: DataFrame) -> Drift:
    """The strata of ``scored`` that have drifted; nothing without a reference."""
    bounds = context.config.drift
    reference = read_reference(request.model) if bounds.enabled else {}
    if not reference:
        return Drift()
    now = strata(scored, request.model)
    both = {key: (reference[key], now[key]) for key in sorted(reference.keys() & now.keys())}
    large = [key for key, pair in both.items() if min(one.products for one in pair) >= bounds.min_products]
    names = [name for name in MASKED if any(name in reference[key].masked for key in large)]
    if bounds.masked_products and names:
        for key, changes in _masked(context, request, selection, scored, names).items():
            if key in both:
                both[key] = (both[key][0], replace(both[key][1], masked=changes))
    return Drift(len(large), len(now), new_pauses(both, request.overrides.switches, bounds))


def new_pauses(
    both: Mapping[tuple[str, str], tuple[StratumScores, StratumScores]], now: Switches, bounds: DriftConfig
) -> tuple[Switch, ...]:
    """The strata to pause; ``both``: their scores in the reference and in the run.

    Not those that are paused or off already: the newest row of `switches` counts, and a pause would let stand again
    what a person switched off.
    """
    not_on = {one.key for one in now.of(Scope.STRATUM, State.PAUSED, State.OFF)}
    found = []
    for (attribute, stratum), (before, after) in both.items():
        reasons = drifted(before, after, bounds)
        pause = _pause(attribute, stratum, "; ".join(reasons))
        if reasons and pause.key not in not_on:
            found.append(pause)
    return tuple(found)


def write(catalog: Catalog, found: Drift, run_id: str, begun: datetime) -> None:
    """Write the pauses of a finished run that began at ``begun``, once.

    Not those of strata that were moved since: the newest row counts, and it is that of a person who may have switched
    the stratum off, or looked at it and left it on.
    """
    if found.pauses:
        moved = {one.key for one in switches.history(catalog) if one.at is not None and one.at >= begun}
        pauses = [replace(one, run_id=run_id) for one in found.pauses if one.key not in moved]
        switches.write(catalog, pauses, f"{run_id}#{DRIFT}")


def write_missing_pauses(catalog: Catalog) -> None:
    """Write the pauses of the newest finished run, if it was killed before it could."""
    known = runs.rows(catalog, ["run_id", "kind", "status", "started_at", "finished_at"])
    done = [row for row in known if row["kind"] == RunKind.ENRICH.value and row["status"] == RunStatus.SUCCEEDED.value]
    if done:
        runs.add_attributes(catalog, done[-1:])
        run_id, content = done[-1]["run_id"], json.loads(done[-1]["attributes"] or "{}").get(DRIFT) or {}
        write(catalog, Drift.from_dict(content, run_id), run_id, done[-1]["started_at"])


def refuse_if_drifted(summary: Mapping[str, Any]) -> None:
    """Raises GateRefused, with the whole summary, if the run paused a stratum. Everything else of it is published."""
    if lines := summary.get("drifted"):
        raise GateRefused(
            "the scores have drifted, and nothing new is written there until set_switch says otherwise; everything "
            "else was published:\n  - " + "\n  - ".join(lines),
            summary,
        )


def read_reference(model: ResolvedModel) -> Strata:
    """The reference of the model's certificates."""
    from catalog_enrichment.models import artifact

    paths = {one.compute_type for one in model.certificates}
    return {
        (row["attribute"], stratum_name(row["modality"], one["language"], one["category"])): StratumScores(
            products=one["products"],
            accepted=one.get("accepted"),
            histogram=tuple(one["histogram"]),
            masked={name: Share(*numbers) for name, numbers in one["masked"].items()},
        )
        for row in artifact.read_drift(model.artifact)
        if row["compute_type"] in paths
        for one in row["strata"]
    }


def strata(scored: DataFrame, model: ResolvedModel) -> Strata:
    """The scores of a run, of the products to fill. One query; its result has few rows per stratum."""
    from pyspark.sql import functions as F

    from catalog_enrichment.enrichment.withheld import stratum

    accepted = F.lit(False)
    for one in model.certificates:
        if one.threshold is not None:
            same = (F.col("attribute") == one.attribute) & (F.col("modality") == one.modality.value)
            in_pool = F.col("value").isin(list(one.values))
            accepted = accepted | (same & in_pool & (F.col("score") >= one.threshold))
    rows = _unlabelled(scored).withColumns({"accepted": accepted, "stratum": stratum()})
    products = rows.groupBy("product_id", "attribute", "stratum").agg(
        F.max("score").alias("top"), F.max("accepted").alias("accepted")
    )
    number = F.least(F.floor(F.col("top") * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int")
    counts = products.groupBy("attribute", "stratum", number.alias("bin"), "accepted").count()
    found: Strata = {}
    bins: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * HISTOGRAM_BINS)
    for row in counts.collect():
        key, number_of = (row["attribute"], row["stratum"]), row["count"]
        bins[key][row["bin"]] += number_of
        before = found.get(key, StratumScores(0, 0, ()))
        accepted_now = (before.accepted or 0) + (number_of if row["accepted"] else 0)
        found[key] = StratumScores(before.products + number_of, accepted_now, tuple(bins[key]))
    return found


def _unlabelled(scored: DataFrame) -> DataFrame:
    """A row per candidate of the products and pending attributes without a merchant's value."""
    from pyspark.sql import functions as F

    names = ("product_id", "content_hash", "modality", "language", "category")
    rows = scored.where(F.col("error").isNull()).select(
        *names, "pending", "merchant_attributes", F.explode("candidates").alias("one")
    )
    given = F.size(F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array())) > 0
    return (
        rows.select(*names, "pending", "merchant_attributes", "one.attribute", "one.value", "one.rank", "one.score")
        .where(F.array_contains("pending", F.col("attribute")) & ~given)
        .select(*names, "attribute", "value", "rank", "score")
    )


def _masked(
    context: Context, request: RunRequest, selection: Selection, scored: DataFrame, names: Sequence[str]
) -> dict[tuple[str, str], dict[str, Share]]:
    """(attribute, stratum) -> modality of ``names`` -> products of a sample whose top value changes without it."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    from catalog_enrichment.enrichment.withheld import stratum

    config = context.config
    with_picture = _unlabelled(scored).where((F.col("modality") == Modality.BOTH.value) & (F.col("rank") == 1))
    order = (F.xxhash64(F.lit("masked"), "product_id"), "product_id")
    sample = with_picture.select("product_id").distinct().orderBy(*order).limit(config.drift.masked_products)
    ids = sample.toArrow()["product_id"].combine_chunks()
    if len(ids) < MIN_MASKED:
        return {}
    some = with_ids(context.spark, pa.array(ids))
    top = with_picture.join(some, "product_id").withColumn("stratum", stratum())
    before = {(row["product_id"], row["attribute"]): row for row in top.collect()}
    content = selection.source.select("product_id", "content_hash", "title", "description", "images")
    products = content.join(some, "product_id")
    shipped = udf.ship(context.spark, request.model.artifact, request.model.artifact_hash, request.model.numbers)
    found: defaultdict[tuple[str, str], dict[str, Share]] = defaultdict(dict)
    for name in names:
        without_image = products.withColumn("images", F.filter("images", lambda _: F.lit(False)))
        masked = without_image if name == IMAGE else products
        again = udf.scored(masked, shipped, config.pictures(), config.enrich.forward_rows, name == TEXT)
        if name == TEXT:  # a picture that can be read no more, or not now, would leave nothing to score by
            again = again.where(F.col("modality") == Modality.BOTH.value)
        rows = again.select("product_id", F.explode("candidates").alias("one")).where("one.rank = 1")
        changes: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
        for row in rows.select("product_id", "one.attribute", "one.value").collect():
            was = before.get((row["product_id"], row["attribute"]))
            if was is not None:
                changes[was["attribute"], was["stratum"]].append(was["value"] != row["value"])
        for key, changed in changes.items():
            found[key][name] = Share(sum(changed), len(changed))
    return dict(found)


def _pause(attribute: str, stratum: str, why: str) -> Switch:
    return Switch(
        scope=Scope.STRATUM, attribute=attribute, target=stratum, state=State.PAUSED, who=WHO, why=why or "drift"
    )
