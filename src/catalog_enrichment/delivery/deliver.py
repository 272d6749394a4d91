"""Delivers what readers see to the sink of `[delivery]`, such as a PostgreSQL database: every commit once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.delivery import feed, iceberg_sink, postgres_sink
from catalog_enrichment.delivery.differences import DELETE
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.delivery.sink import Sink, SinkKind
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunStatus, add_counts, within_bytes

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog


KINDS: Mapping[str, SinkKind] = {"postgres": postgres_sink, "iceberg": iceberg_sink}
"""`delivery.sink` -> the module that implements it."""


@contextmanager
def open_sink(config: DeliveryConfig, kind: str = "") -> Iterator[Sink]:
    """Open and check the sink of a kind, by default `delivery.sink`.

    Raises ConfigError, DataContractError or TemporaryFailure if it cannot be used.
    """
    with KINDS[kind or config.sink].opened(config) as sink:
        sink.check()
        yield sink


def deliver_values(
    catalog: Catalog, config: DeliveryConfig, snapshot: bool = False, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Apply every step that the sink has not had; returns the job's summary.

    A step is committed before the next step begins: a job that runs after a killed job goes on after its last step.
    ``snapshot``: write everything again, and delete what is not in the catalog.
    """
    stages = Stages(say)
    with open_sink(config) as sink:
        start = since = sink.position()
        with stages("plan") as stage:
            found = feed.steps(catalog, None if snapshot else since, config.merge_after)
            if snapshot:
                found = [replace(step, snapshot="it was asked for") for step in found]
            stage.note = f"{len(found):,} steps from {since or 'nothing'}"
        totals: dict[str, int] = {"staged": 0, "upserted": 0, "deleted": 0, "skipped": 0}
        skipped: list[dict[str, str]] = []
        with stages("deliver") as stage:
            for step in found:
                if dry_run:
                    totals = add_counts(totals, _counted(catalog, step, say))
                    continue
                applied = sink.apply(step, since, step.changes(catalog))
                since = step.position
                totals = add_counts(totals, applied.numbers())
                skipped += applied.skipped_rows
                say(_line(step, applied.numbers()))
            stage.count(rows_in=totals["staged"], rows_out=totals["upserted"] + totals["deleted"])
    if skipped:
        named = "; ".join(f"{row['attribute']} of {row['product_id']!r}: {row['why']}" for row in skipped[:5])
        say(
            f"warning: {totals['skipped']:,} rows were left out, because the sink refuses them ({named}). A row is "
            "tried again when it changes, and by deliver_values --snapshot"
        )
    status: str = RunStatus.SUCCEEDED if found else NOTHING_TO_DO
    return {
        "status": DRY_RUN if dry_run else status,
        "sink": config.sink,
        "where": KINDS[config.sink].where(config),
        "since": str(start) if start else None,
        "position": str(since) if since else None,
        "steps": len(found),
        "snapshot": next((step.snapshot for step in found if step.snapshot), None),
        **totals,
        "skipped_rows": within_bytes(skipped),
        "seconds": stages.seconds,
    }


def migrate(config: DeliveryConfig, say: Say = to_stderr) -> dict[str, Any]:
    """Make or change the tables of the sink; returns the job's summary."""
    kind = KINDS[config.sink]
    before, after = kind.migrate(config)
    place = kind.where(config)
    say(f"the tables in {place}: revision {before or 'none'} -> {after}")
    of_tables = {"revision_before": before, "revision": after}
    return {"status": RunStatus.SUCCEEDED, "sink": config.sink, "where": place, **of_tables}


def _counted(catalog: Catalog, step: Step, say: Say) -> dict[str, int]:
    """Count the rows of the step, and say them. The sink may have some of them already."""
    rows = deletes = 0
    for batch in step.changes(catalog):
        rows += batch.num_rows
        deletes += batch.column("op").to_pylist().count(DELETE)
    counts = {"staged": rows, "upserted": rows - deletes, "deleted": deletes}
    say(f"would deliver {_line(step, counts)}")
    return counts


def _line(step: Step, counts: dict[str, int]) -> str:
    made_by = ", ".join(step.run_ids[:3]) + (f" and {len(step.run_ids) - 3} more" if len(step.run_ids) > 3 else "")
    why = f" ({step.snapshot})" if step.snapshot else ""
    return (
        f"{step.kind} to version {step.version}{why}: {counts['upserted']:,} upserted, {counts['deleted']:,} deleted"
        f"{f'; by {made_by}' if made_by else ''}"
    )
