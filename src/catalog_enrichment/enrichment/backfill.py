"""Backfill: the pipeline over a chosen slice, in chunks that are runs of their own, with an estimate first.

Resumable without bookkeeping: a chunk that is done finds nothing to do, one that was killed finds its checkpoints.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.enrichment import pipeline, steps
from catalog_enrichment.enrichment.select import Window, fingerprint, select_work
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import SUCCEEDED, RunKind, add_counts, make_run_id

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import ResolvedModel


def window_of(config: Config) -> Window:
    """The slice that the config's ``backfill`` section names. Raises ConfigError if its id file cannot be read."""
    section = config.backfill
    ids = list(section.product_ids)
    if section.product_ids_file:
        file = config.path(section.product_ids_file)
        if not file.is_file():
            raise ConfigError(f"backfill.product_ids_file: no such file: {file}")
        ids += [line.strip() for line in file.read_text().splitlines() if line.strip()]
    return Window(
        categories=tuple(section.categories),
        updated_from=section.updated_from,
        updated_until=section.updated_until,
        product_ids=tuple(ids),
    )


def estimate(context: Context, model: ResolvedModel, window: Window) -> dict[str, Any]:
    """What a backfill of ``window`` would take: products, chunks, and seconds at the rate of the last runs."""
    with context.stages("estimate") as stage:
        work = select_work(context, model, window)
        rate = _products_per_second(context)
        stage.rows_in, stage.rows_out = work.seen, work.rows
    chunks = max(1, math.ceil(work.seen / context.config.backfill.chunk_products))
    seconds = round(work.rows / rate) if rate else None
    found = {"products": work.seen, "to_score": work.rows, "skipped_reasons": work.skipped, "chunks": chunks}
    context.stages.say(
        f"estimate: {work.rows:,} of {work.seen:,} products to score in {chunks} chunk(s), "
        + (f"about {seconds:,} s at {rate:,.1f} products/s" if rate else "no earlier run to take a rate from")
    )
    return found | {"seconds": seconds, "products_per_second": rate}


def backfill(context: Context, model: ResolvedModel, window: Window, dry_run: bool = False) -> dict[str, Any]:
    """Estimate, then enrich chunk by chunk. Returns the merged summary with one entry per chunk."""
    expected = estimate(context, model, window)
    parent = _parent_id(context, model, window)
    started = datetime.now(UTC)
    done: list[dict[str, Any]] = []
    for number in range(expected["chunks"]):
        chunk = replace(window, chunk=(number, expected["chunks"]))
        context.stages.say(f"chunk {number + 1} of {expected['chunks']}")
        done.append(pipeline.enrich(context, model, chunk, parent_run_id=parent, dry_run=dry_run))
    merged = _merged(done)
    if merged["status"] == SUCCEEDED:
        row = {
            "run_id": parent,
            "kind": RunKind.BACKFILL.value,
            "status": SUCCEEDED,
            "model_name": model.name,
            "model_version": model.version,
            "window": json.dumps(window.as_dict()),
            "counts": {name: merged[name] for name in ("products", "predicted", "skipped")},
            "seconds": context.stages.seconds,
            "started_at": started,
            "finished_at": datetime.now(UTC),
        }
        context.catalog.append_rows("runs", [row], parent)
    return merged | {
        "run_id": parent,
        "model_version": model.version,
        "estimate": expected,
        "chunks": [{name: one[name] for name in ("run_id", "status", "products", "predicted")} for one in done],
        "seconds": context.stages.seconds,
    }


def _parent_id(context: Context, model: ResolvedModel, window: Window) -> str:
    """The id that all chunks of this slice share, also when the backfill is taken up again half done."""
    from pyspark.sql import functions as F

    products = window.select(context.catalog.read("products"))
    whole = fingerprint(products.withColumn("pending", F.array()))
    return make_run_id(RunKind.BACKFILL, window.as_dict(), steps.config_hash(context), model.name, model.version, whole)


def _merged(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    statuses = {chunk["status"] for chunk in chunks}
    attributes = sorted({name for chunk in chunks for name in chunk["attributes"]})
    counted = ("written", "suggested", "abstained")
    per_attribute = {
        name: add_counts(
            *(
                {key: chunk["attributes"][name][key] for key in counted}
                for chunk in chunks
                if name in chunk["attributes"]
            )
        )
        for name in attributes
    }
    total = add_counts(*({key: chunk[key] for key in ("products", "predicted", "skipped")} for chunk in chunks))
    return total | {
        "status": SUCCEEDED if SUCCEEDED in statuses else min(statuses),
        "skipped_reasons": add_counts(*(chunk["skipped_reasons"] for chunk in chunks)),
        "quarantined": add_counts(*(chunk["quarantined"] for chunk in chunks)),
        "attributes": per_attribute,
    }


def _products_per_second(context: Context) -> float | None:
    """Scored products per second of the newest finished run that scored any."""
    from pyspark.sql import functions as F

    runs = context.catalog.read("runs").where(F.col("counts")["predicted"] > 0)
    row = runs.orderBy(F.desc("finished_at")).select("counts", "seconds").first()
    if row is None or not row["seconds"]:
        return None
    seconds = max(sum(row["seconds"].values()), 1e-3)
    return round(float(row["counts"]["predicted"] / seconds), 2)
