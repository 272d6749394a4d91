"""Tells others that a job has ended: metrics for Prometheus, a lineage event. `command.py` calls it once per job.

The job is over by then: a file that cannot be written or a server that does not answer is a warning, and the exit code
stays.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment import masking
from catalog_enrichment.monitoring import logs

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.monitoring.metrics import Outcome

_LOOKS_ONLY = frozenset({"compare_runs", "explain_value", "list_empty", "list_runs"})
"""Jobs that change nothing and are started by people: they say nothing about what is scheduled."""


def report(config: Config, outcome: Outcome) -> None:
    """Write and push the metrics, write and post the lineage event, as far as the config asks for them.

    Not called for a job that only answered a question (a dry run, an estimate), however it ended.
    """
    asked = config.metrics.folder or config.metrics.push_url or config.lineage.file or config.lineage.url
    if not asked or outcome.job in _LOOKS_ONLY:
        return
    from catalog_enrichment.monitoring import lineage, metrics

    with_run = replace(outcome, run=_run(config, outcome))
    for tell in (metrics.write, metrics.push, lineage.write, lineage.post):
        try:
            tell(config, with_run)
        except Exception as problem:
            message = masking.masked(f"{type(problem).__name__}: {problem}", config.secrets())
            logs.say(f"warning: {tell.__module__.rpartition('.')[2]}: nothing was told to others: {message}")


def _run(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return the newest row, in the table `runs`, of the run that the summary names; empty if there is none."""
    run_id = outcome.summary.get("run_id")
    if not run_id:
        return {}
    from catalog_enrichment.catalog import runs
    from catalog_enrichment.catalog.lake import Catalog

    try:
        catalog = Catalog.of(config)  # asks an object store whether it answers
        columns = ["run_id", "parent_run_id", "kind", "status", "model_name", "model_version", "counts", "finished_at"]
        rows = [row for row in runs.rows(catalog, columns) if row["run_id"] == run_id][-1:]
        runs.add_attributes(catalog, rows)
    except Exception as problem:
        logs.say(f"warning: the row of {run_id} in the table runs cannot be read: {type(problem).__name__}: {problem}")
        return {}
    return {**rows[0], "attributes": json.loads(rows[0]["attributes"] or "{}")} if rows else {}
