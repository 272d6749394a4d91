"""Backfill: the pipeline over a chosen slice, in chunks that are runs of their own, with an estimate first.

To resume a backfill, start it again: a chunk that is done has nothing to do, a chunk that was killed reads its
checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment import outcomes, pipeline
from catalog_enrichment.enrichment.fingerprints import fingerprint
from catalog_enrichment.enrichment.outcomes import REASONS_KEY
from catalog_enrichment.enrichment.request import RunRequest, RuntimeOverrides, Window
from catalog_enrichment.enrichment.select import read_ledger, select_products
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Stage, Stages, add_seconds
from catalog_enrichment.reasons import STOPPED_KEY
from catalog_enrichment.records import NOTHING_TO_DO, RunKind, RunStatus, add_counts, make_run_id, shortened
from catalog_enrichment.spark import category_filters
from catalog_enrichment.spark.frames import persisted_frames, streamed

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import ResolvedModel

_COUNTED = ("products", "predicted", "skipped")


def backfill(context: Context, model: ResolvedModel, window: Window, dry_run: bool = False) -> dict[str, Any]:
    """Estimate, then enrich chunk by chunk. Returns the merged summary with an entry per chunk."""
    catalog = context.catalog
    request = RunRequest.of(context.config, context.dictionary, model, window, RuntimeOverrides.read(catalog))
    record = request.record(context.config, Stages(context.say), parent_run_id=None)
    record.kind = RunKind.BACKFILL
    summaries: list[dict[str, Any]] = []
    resumed = False
    with runs.recorded(catalog, record, unless=dry_run):
        expected = estimate(context, model, window)
        _identify(record, catalog, request)
        for number, chunk in enumerate(_chunks(catalog, window, context.config.backfill.chunk_products), 1):
            context.say(f"chunk {number} of {expected['chunks']}")
            summaries.append(pipeline.enrich(context, model, chunk, parent_run_id=record.run_id, dry_run=dry_run))
            earlier = _earlier_attempt(catalog, record.run_id, chunk, summaries[-1])
            resumed = resumed or earlier is not None
            _add_chunk(record, earlier or summaries[-1])
    merged = _merged(summaries)
    if resumed and not dry_run and runs.find(catalog, record.run_id) is None:
        merged["status"] = RunStatus.SUCCEEDED  # it was killed after its last chunk
    if merged["status"] == RunStatus.SUCCEEDED:
        runs.write(catalog, record)
    names = ("run_id", "status", "products", "predicted")
    return merged | {
        "run_id": record.run_id,
        "model_version": model.version,
        "estimate": expected,
        "chunks": [{name: summary[name] for name in names} for summary in summaries],
    }


# --- the slice and its estimate --------------------------------------------------------------------------------------


def window_of(config: Config) -> Window:
    """Return the slice that the section `backfill` names. Raises ConfigError if its file of ids cannot be read."""
    section = config.backfill
    ids = list(section.product_ids)
    if section.product_ids_file:
        file = config.path(section.product_ids_file)
        if not file.is_file():
            raise ConfigError(f"backfill.product_ids_file: no such file: {file}")
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as problem:
            raise ConfigError(f"backfill.product_ids_file: {file} is not UTF-8: {problem}") from None
        ids += [line.strip() for line in lines if line.strip()]
    return Window(
        categories=tuple(section.categories),
        updated_from=section.updated_from,
        updated_until=section.updated_until,
        product_ids=tuple(ids),
    )


def estimate(context: Context, model: ResolvedModel, window: Window) -> dict[str, Any]:
    """Return what a backfill of ``window`` would take: products, chunks, and seconds at the rate of the newest run.

    Raises ConfigError for a category that no product is in (a misspelled category would pass as a slice of 0 products),
    and for product ids of which the catalog has none.
    """
    config, catalog = context.config, context.catalog
    _require_known(context, window)
    with Stages(context.say)("estimate") as stage, persisted_frames() as persist:
        request = RunRequest.of(config, context.dictionary, model, window, RuntimeOverrides.read(catalog))
        selection = select_products(catalog, request, read_ledger(catalog), persist)
        rate = products_per_second(catalog)
        stage.rows_in, stage.rows_out = selection.seen, selection.rows
    chunks = max(1, math.ceil(selection.seen / config.backfill.chunk_products))
    seconds = round(selection.rows / rate) if rate else None
    context.say(
        f"estimate: {selection.rows:,} of {selection.seen:,} products to score in {chunks} chunk(s), "
        + (f"about {seconds:,} s at {rate:,.1f} products/s" if rate else "no earlier run to take a rate from")
    )
    return {
        "products": selection.seen,
        "to_score": selection.rows,
        "skipped_reasons": selection.skipped,
        "chunks": chunks,
        "seconds": seconds,
        "products_per_second": rate,
    }


def _require_known(context: Context, window: Window) -> None:
    products = context.catalog.read("products", columns=["product_id", "category"])
    category_filters.require_known(products, window.categories, "backfill.categories")
    if not window.product_ids:
        return
    asked = len(set(window.product_ids))
    known = Window(product_ids=window.product_ids).select(products).count()
    if not known:
        raise ConfigError(
            f"backfill.product_ids: the catalog has none of the {asked:,} products asked for, for example "
            f"{window.product_ids[0][:100]!r}"
        )
    if known < asked:
        context.say(f"warning: {asked - known:,} of the {asked:,} product ids are not in the catalog")


def _chunks(catalog: Catalog, window: Window, size: int) -> list[Window]:
    """Return the slices of ``window`` with ``size`` products each, the last with the rest: ranges of product ids.

    The tables' files are sorted by product, so that a chunk reads and writes the few files of its range. The same
    products make the same chunks. The driver sees all ids in order and keeps the first of each chunk.
    """
    ids = window.select(catalog.read("products", columns=["product_id", "category", "updated_at"]))
    starts, seen = [""], 0
    for batch in streamed(ids.select("product_id").orderBy("product_id")):
        starts += batch.column(0)[-seen % size :: size].to_pylist()
        seen += batch.num_rows
    first = ["", *starts[2:]]  # the first chunk begins before the first product
    return [
        replace(window, chunk=(number, len(first)), first_id=start, before_id=end)
        for number, (start, end) in enumerate(zip(first, [*first[1:], ""], strict=True))
    ]


def products_per_second(catalog: Catalog) -> float | None:
    """Return scored products per second, over all stages, of the newest succeeded run that scored any; else None."""
    from pyspark.sql import functions as F

    row = runs.newest(catalog, F.col("counts")["predicted"] > 0)
    if row is None or not row["seconds"]:
        return None
    seconds = max(sum(row["seconds"].values()), 1e-3)
    return round(float(row["counts"]["predicted"] / seconds), 2)


# --- the backfill's own row ------------------------------------------------------------------------------------------


def _identify(record: RunRecord, catalog: Catalog, request: RunRequest) -> None:
    """Set the fingerprint and the id that all chunks of this slice share, also when it is started again half done.

    The id is that of the last finished backfill if it had the same inputs; else it also covers that id, so that inputs
    that change back make another backfill.
    """
    from pyspark.sql import functions as F

    record.input_fingerprint = fingerprint(request.window.select(catalog.read("products")))
    inputs = (record.config_hash, record.model_name, record.model_version, record.input_fingerprint)
    same_slice = F.col("window") == runs.as_json(record.window)
    last = runs.newest(catalog, (F.col("kind") == RunKind.BACKFILL.value) & same_slice)
    names = ("config_hash", "model_name", "model_version", "input_fingerprint")
    if last is not None and tuple(last[name] for name in names) == inputs:
        record.run_id = last["run_id"]
    else:
        last_id = None if last is None else last["run_id"]
        record.run_id = make_run_id(RunKind.BACKFILL, request.window.as_dict(), *inputs, last_id)


def _earlier_attempt(
    catalog: Catalog, backfill_id: str, chunk: Window, summary: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the numbers for :func:`_add_chunk` of a chunk that a killed attempt of this backfill has done already."""
    from pyspark.sql import functions as F

    if summary["status"] != NOTHING_TO_DO:
        return None
    same = (F.col("parent_run_id") == backfill_id) & (F.col("window") == runs.as_json(chunk.as_dict()))
    row = runs.newest(catalog, same)
    if row is None:
        return None
    skipped = sum(number for name, number in row["counts"].items() if name.startswith("skipped."))
    return {name: row["counts"][name] for name in ("products", "predicted")} | {
        "skipped": skipped,
        "seconds": row["seconds"],
    }


def _add_chunk(record: RunRecord, summary: dict[str, Any]) -> None:
    """Add a chunk's counts and seconds to the backfill's record."""
    record.count(**{name: record.counts.get(name, 0) + summary[name] for name in _COUNTED})
    record.stages.done += [Stage(name, seconds=seconds) for name, seconds in summary["seconds"].items()]


def _merged(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of the whole backfill: the chunks' counts and seconds added up."""
    statuses = {summary["status"] for summary in summaries}
    added = ("skipped_reasons", "quarantined", "waiting")
    listed = ("paused", "drifted")
    return {
        **{name: sum(summary[name] for summary in summaries) for name in _COUNTED},
        "status": RunStatus.SUCCEEDED if RunStatus.SUCCEEDED in statuses else min(statuses),
        **{name: add_counts(*(summary[name] for summary in summaries)) for name in added},
        "attributes": _decisions([summary["attributes"] for summary in summaries]),
        **{name: shortened(sorted({line for summary in summaries for line in summary[name]})) for name in listed},
        STOPPED_KEY: {name: why for summary in summaries for name, why in summary[STOPPED_KEY].items()},
        "seconds": add_seconds(*(summary["seconds"] for summary in summaries)),
    }


def _decisions(chunks: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return attribute -> its numbers of decisions, added up over the chunks."""
    kinds = ("written", "values_written", "suggested", "abstained", "retracted")
    numbers: dict[str, list[dict[str, Any]]] = {}
    for chunk in chunks:
        for name, found in chunk.items():
            numbers.setdefault(name, []).append(found)
    return {
        name: {
            **add_counts(*({kind: of[kind] for kind in kinds} for of in found)),
            REASONS_KEY: outcomes.added(*(of.get(REASONS_KEY, {}) for of in found)),
        }
        for name, found in sorted(numbers.items())
    }
