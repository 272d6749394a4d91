"""The table `runs`, read and written here alone: one row per recorded attempt of a run, keyed by run id and attempt.

An attempt that succeeds writes its row last, so the row says that everything else of the run is stored. An attempt
that is refused or fails leaves a row as well; a killed attempt leaves none. Readers get the succeeded attempts unless
they ask. ``finished_at`` is the order of the runs: it increases strictly from row to row, also where the clock is set
back. At the end are pure functions about what runs wrote, by their rows: a backfill writes nothing itself, and its
numbers are the sums of its chunks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.errors import DataContractError, GateRefused
from catalog_enrichment.failures import described
from catalog_enrichment.masking import masked
from catalog_enrichment.monitoring import logs
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import RunKind, RunStatus, make_run_id, strictly_later

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

    from catalog_enrichment.catalog.lake import Catalog

TABLE = "runs"

ERROR_CHARACTERS = 4000
"""Length to which a stored error message is cut."""

_PLAIN = ("run_id", "parent_run_id", "model_name", "model_version", "config_hash", "input_fingerprint", "counts",
          "started_at")  # fmt: skip
_AS_JSON = ("config", "window", "attributes", "validation")
"""Columns that a :class:`RunRecord` has as they are, and those that are its plain data as JSON."""


@dataclass(kw_only=True, slots=True)
class RunRecord:
    """The facts about one attempt of a run, from its first stage to its row (contract `runs`)."""

    kind: RunKind
    run_id: str = ""
    """The run id; empty until the inputs are known."""
    stages: Stages = field(default_factory=Stages)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    parent_run_id: str | None = None
    """The backfill that a chunk belongs to, or the run that a rollback undoes."""
    model_name: str | None = None
    model_version: str | None = None
    config_hash: str | None = None
    config: dict[str, Any] | None = None
    """The resolved config without its secrets."""
    secrets: Collection[str] = ()
    """Secrets of the config, which an error message must not say."""
    input_fingerprint: str | None = None
    window: dict[str, Any] | None = None
    """The requested slice of the catalog."""
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers that add up (I7), by name; a number per reason is called `quarantined.empty_title`."""
    attributes: dict[str, Any] | None = None
    """Plain data per attribute; for an enrichment `decisions` and `certificates`."""
    validation: dict[str, Any] | None = None
    """The great_expectations result document."""

    def count(self, **numbers: int | Mapping[str, int]) -> None:
        """Set counts: a number by its name, a mapping of reasons to numbers as `name.reason`."""
        for name, number in numbers.items():
            if isinstance(number, Mapping):
                self.counts |= {f"{name}.{reason}": value for reason, value in number.items()}
            else:
                self.counts[name] = number

    def by_reason(self, name: str) -> dict[str, int]:
        """Return reason -> number, for the counts that were set as a mapping under ``name``."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): n for key, n in sorted(self.counts.items()) if key.startswith(prefix)}


def write(
    catalog: Catalog, record: RunRecord, status: RunStatus = RunStatus.SUCCEEDED, error: str | None = None
) -> None:
    """Append the record's row as the run's next attempt: the last write of a run that succeeds.

    A run that has succeeded gets no further row. Only for the job that holds the catalog's write lock: two writers
    would give two attempts the same number. Reads three columns of the whole table, which has a few rows a day.
    """
    known = rows(catalog, ["run_id", "status", "finished_at"])
    earlier = [row["status"] for row in known if row["run_id"] == record.run_id]
    if RunStatus.SUCCEEDED in earlier:
        return
    attempt = len(earlier) + 1
    newest = known[-1]["finished_at"] if known else None
    others = [table for table in contract.TABLES if table != TABLE] if status is RunStatus.SUCCEEDED else []
    row = {
        **{name: getattr(record, name) for name in _PLAIN},
        **{name: as_json(getattr(record, name)) for name in _AS_JSON},
        "attempt": attempt,
        "kind": record.kind.value,
        "status": status.value,
        "seconds": record.stages.seconds,
        "stages": record.stages.rows(),
        "error": error,
        "table_versions": {table: catalog.tables.written_versions(table)[0] for table in others} or None,
        "finished_at": strictly_later(datetime.now(UTC), newest),
    }
    catalog.append_rows(TABLE, [row], f"{record.run_id}#{attempt}")


@contextmanager
def recorded(catalog: Catalog, record: RunRecord, unless: bool = False) -> Iterator[None]:
    """Run a block; if it raises, write a row with the error: `refused` for a GateRefused, else `failed`.

    ``unless``: write no row, as for a dry run. The lines of the log have the run's id from the time when it is known.
    """
    with logs.of_run(lambda: record.run_id):
        try:
            yield
        except Exception as problem:
            if not unless:
                write_unsuccessful(catalog, record, problem)
            raise


@contextmanager
def dropping_checkpoints_if_refused(catalog: Catalog, record: RunRecord) -> Iterator[None]:
    """Drop the checkpoints of a run whose input is refused: it may be another at the next attempt."""
    try:
        yield
    except (DataContractError, GateRefused):
        if record.run_id:
            catalog.checkpoints.drop(record.run_id)
        raise


def resumable_id(catalog: Catalog, table: str, checkpoint: str, run_id: Callable[[int], str]) -> str:
    """Return the id of an import into ``table``, which follows from the table's version before it (``run_id``).

    An import that was killed after its commit is resumed, if what it had compared (``checkpoint``) is still there.
    """
    # version 0 is the empty table
    now, before = (max(version, 0) for version in catalog.tables.written_versions(table, 2))
    killed = run_id(before)
    return killed if catalog.committed(table, killed) and catalog.checkpoints.has(killed, checkpoint) else run_id(now)


def write_unsuccessful(catalog: Catalog, record: RunRecord, problem: Exception) -> None:
    """Write the row of an attempt that ``problem`` ended; where that fails too, add a note to ``problem``.

    An attempt that ended before its run id was known gets an id of its own. Only under the write lock (:func:`write`).
    """
    record.run_id = record.run_id or make_run_id(record.kind, record.config_hash, record.started_at.isoformat())
    status = RunStatus.REFUSED if isinstance(problem, GateRefused) else RunStatus.FAILED
    try:
        error = masked(described(problem), record.secrets)
        write(catalog, record, status, error[:ERROR_CHARACTERS])
    except Exception as unrecorded:  # the first error is to be reported
        problem.add_note(f"This attempt has no row in the table runs: {unrecorded}")


def succeeded(catalog: Catalog) -> DataFrame:
    """Return the rows of the succeeded attempts: at most one per run."""
    from pyspark.sql import functions as F

    return catalog.read(TABLE).where(F.col("status") == RunStatus.SUCCEEDED.value)


def succeeded_ids(catalog: Catalog) -> set[str]:
    """Return the ids of the runs that have succeeded."""
    return {row["run_id"] for row in filter(has_succeeded, rows(catalog, ["run_id", "status", "finished_at"]))}


def rows(catalog: Catalog, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``columns`` (``finished_at`` among them) of all rows, also of attempts that were refused or failed, in the
    order of the runs, without Spark."""
    found = [row for batch in catalog.scan(TABLE, columns) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: row["finished_at"])


def add_attributes(catalog: Catalog, rows: Iterable[dict[str, Any]]) -> None:
    """Set ``attributes`` in ``rows`` (with ``run_id`` and ``finished_at``), without Spark.

    The column is by far the largest of the table: it is never held for all runs at once.
    """
    wanted = {(row["run_id"], row["finished_at"]): row for row in rows}
    for row in wanted.values():
        row["attributes"] = None
    if not wanted:
        return
    for batch in catalog.scan(TABLE, ["run_id", "finished_at", "attributes"]):
        ids, times, texts = batch.columns
        for number, key in enumerate(zip(ids.to_pylist(), times.to_pylist(), strict=True)):
            if key in wanted:
                wanted[key]["attributes"] = texts[number].as_py()


def latest_attempts(catalog: Catalog) -> DataFrame:
    """Return the newest row of every run, whatever its status: a failed attempt may have published before it failed."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy("run_id").orderBy(F.desc("attempt"))
    return catalog.read(TABLE).withColumn("age", F.row_number().over(newest)).where("age = 1").drop("age")


def find(catalog: Catalog, run_id: str) -> dict[str, Any] | None:
    """Return the row of the succeeded attempt of ``run_id``, without Spark; None if there is none."""
    import pyarrow.compute as pc

    for batch in catalog.scan(TABLE):
        of_run = pc.equal(batch.column("run_id"), run_id)
        found = batch.filter(pc.and_(of_run, pc.equal(batch.column("status"), RunStatus.SUCCEEDED.value)))
        if found.num_rows:
            [row] = found.to_pylist(maps_as_pydicts="strict")
            return dict(row)
    return None


def newest(catalog: Catalog, condition: Column) -> Row | None:
    """Return the succeeded run that finished last among those that fulfil ``condition``; None if there is none."""
    from pyspark.sql import functions as F

    return succeeded(catalog).where(condition).orderBy(F.desc("finished_at")).first()


def newest_of(catalog: Catalog, kind: RunKind) -> dict[str, Any] | None:
    """Return the succeeded run of this kind that finished last, without Spark; None if there is none."""
    known = rows(catalog, ["run_id", "kind", "status", "finished_at"])
    of_kind = [row["run_id"] for row in known if row["kind"] == kind.value and has_succeeded(row)]
    return find(catalog, of_kind[-1]) if of_kind else None


def rolled_back(catalog: Catalog, attributes: Sequence[str]) -> dict[str, set[str]]:
    """Return attribute -> ids of the runs whose work on it is undone by a rollback that is itself not undone.

    Without Spark.
    """
    known = rows(catalog, ["run_id", "parent_run_id", "kind", "status", "window", "finished_at"])
    undone: dict[str, set[str]] = {name: set() for name in attributes}
    for row in reversed(known):  # the newest first
        if row["kind"] != RunKind.ROLLBACK.value or row["status"] != RunStatus.SUCCEEDED.value:
            continue
        window = json.loads(row["window"] or "{}")
        only = window.get("attribute")
        for name in attributes if only is None else {only} & set(attributes):
            if row["run_id"] not in undone[name]:
                # a rollback of a model version has no single parent, but the ids of all runs that it undid
                undone[name].update(window.get("run_ids") or [row["parent_run_id"]])
    return {name: run_ids for name, run_ids in undone.items() if run_ids}


def of_succeeded(catalog: Catalog, table: str, model_name: str | None = None) -> DataFrame:
    """Return the rows of ``table`` that succeeded runs wrote, for any model or the model called ``model_name``.

    A run that was killed, refused or failed may have stored rows too; they do not count as done.
    """
    from pyspark.sql import functions as F

    runs = succeeded(catalog)
    if model_name is not None:
        runs = runs.where(F.col("model_name") == model_name)
    return catalog.read(table).join(runs.select("run_id"), "run_id", "left_semi")


def as_json(content: dict[str, Any] | None) -> str | None:
    """Return the text that the columns config, window, attributes and validation have for ``content``."""
    return None if content is None else json.dumps(content, sort_keys=True, default=str)


def has_succeeded(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == RunStatus.SUCCEEDED)


def is_chunk(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of a chunk that succeeded; a rollback has a parent, too: the run that it takes back."""
    return row["kind"] == RunKind.ENRICH and has_succeeded(row) and bool(row["parent_run_id"])


def by_backfill(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return run id of a backfill -> the rows of its chunks that succeeded, in the order of ``rows``."""
    chunks: dict[str, list[dict[str, Any]]] = {}
    for row in filter(is_chunk, rows):
        chunks.setdefault(row["parent_run_id"], []).append(row)
    return chunks


def writers(row: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]] | None:
    """Return the rows whose decisions became values: the row itself, of a backfill its ``chunks``.

    None for a kind of run that writes no values itself, and for an attempt that was refused or failed: its row may
    have decisions all the same, which were made before it ended.
    """
    if not has_succeeded(row):
        return None
    return {RunKind.ENRICH: (row,), RunKind.BACKFILL: chunks}.get(row["kind"])


def attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the row's column `attributes`; {} where it is empty."""
    found: dict[str, Any] = json.loads(row["attributes"] or "{}")
    return found


def decisions(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return attribute -> its numbers, of the row's column `attributes`; {} where there are none."""
    found: dict[str, dict[str, Any]] = attributes(row).get("decisions", {})
    return found


def total(row: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]], name: str) -> int | None:
    """Return a number of the decisions of :func:`writers`, added up over attributes and rows; None without any rows."""
    parts = writers(row, chunks)
    if parts is None:
        return None
    return sum(int(found.get(name, 0)) for part in parts for found in decisions(part).values())
