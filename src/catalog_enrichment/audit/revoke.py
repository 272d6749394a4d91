"""Takes back what a certificate allowed (`rollback_run --certificate ID`), and switches the certificate off.

Every value that stands under it is retracted, by whichever run it was written; readers see what they saw before, as
after a rollback. The certificate is off from then on: the next run decides these values again and writes none under it.
`rollback_run --run-id` of this run brings the values back; set_switch switches the certificate on again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs, switches
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, Op, Reason, RunKind, RunStatus, make_run_id

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog


def revoke(
    catalog: Catalog, certificate_id: str, who: str, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Switch the certificate off and retract every value that stands under it. Returns the summary.

    Raises ConfigError for a certificate under which nothing was ever written.
    """
    stages = Stages(say)
    record = RunRecord(kind=RunKind.REVOKE, stages=stages)
    record.window = {"certificate_id": certificate_id, "by": who}
    with runs.recorded(catalog, record, unless=dry_run):
        with stages("plan") as stage:
            events = catalog.read("attribute_values")
            _require_written(events, certificate_id)
            record.run_id = make_run_id(RunKind.REVOKE, certificate_id, _earlier(catalog, record))
            planned = _planned(catalog, events, certificate_id, record)
            counts = {row["attribute"]: row["count"] for row in planned.groupBy("attribute").count().collect()}
            record.count(events=counts)
            stage.rows_out = sum(counts.values())
        status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if counts else NOTHING_TO_DO
        if not dry_run:
            why = "what it had allowed was taken back"
            off = Switch(scope=Scope.CERTIFICATE, target=certificate_id, state=State.OFF, who=who, why=why)
            switches.write(catalog, [off])
        if status == RunStatus.SUCCEEDED:
            with stages("publish") as stage:
                stage.rows_out = catalog.append("attribute_values", planned, record.run_id)
                catalog.refresh_current_values(record.run_id, planned)
            runs.write(catalog, record)
        catalog.drop_checkpoints(record.run_id)
    summary = {"run_id": record.run_id, "certificate_id": certificate_id, "events": counts}
    return {"status": status, **summary, "seconds": stages.seconds}


def _planned(catalog: Catalog, events: DataFrame, certificate_id: str, record: RunRecord) -> DataFrame:
    """The retract events, computed once; of a run that is resumed after its commit, those committed."""
    from pyspark.sql import functions as F

    if catalog.committed("attribute_values", record.run_id):
        return events.where(F.col("run_id") == record.run_id)
    catalog.drop_checkpoints(record.run_id)  # a plan that was never carried out may be out of date
    stamp = ledger.RunStamp(record.run_id, None, None, ledger.next_asserted_at(events, record.started_at))
    active = ledger.active(events).where(F.col("certificate_id") == certificate_id)
    gone = active.withColumn("contradiction", F.lit(Reason.SWITCHED_OFF.value))
    return catalog.checkpoint(record.run_id, "events", ledger.retract(gone, stamp))


def _earlier(catalog: Catalog, record: RunRecord) -> int:
    """How many finished runs took the same back: a part of the next one's id."""
    from pyspark.sql import functions as F

    mine = F.get_json_object("window", "$.certificate_id") == (record.window or {})["certificate_id"]
    return int(runs.succeeded(catalog).where((F.col("kind") == RunKind.REVOKE.value) & mine).count())


def _require_written(events: DataFrame, certificate_id: str) -> None:
    from pyspark.sql import functions as F

    written = events.where(F.col("op") == Op.ASSERT.value)
    if not written.where(F.col("certificate_id") == certificate_id).limit(1).count():
        known = written.groupBy("certificate_id").agg(F.max("asserted_at").alias("at")).orderBy(F.desc("at")).limit(5)
        raise ConfigError(
            f"nothing was written under certificate {certificate_id!r}. The newest certificates with values: "
            f"{[row['certificate_id'] for row in known.collect()]}"
        )
