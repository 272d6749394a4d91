"""The PostgreSQL sink: applies a step exactly once.

Staging, rows, position and the record of the delivery are one transaction. It goes through only from the position that
the step starts at: a step that was applied, by this job before it was killed or by another job, is not applied again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from catalog_enrichment.delivery import postgres
from catalog_enrichment.delivery.differences import DELETE
from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

LOCK = 0x6361_7461_6C6F_6732
"""Key of the advisory lock of the delivery at work; the schema's name is mixed in."""

_TYPES = ("bool", "text", "text", "text[]", "text", "text", "text", "text", "timestamptz")
"""The types of the columns of _STAGE, which are the columns of differences.SCHEMA."""

_STAGE = """
CREATE TEMPORARY TABLE staged (
    gone boolean NOT NULL, product_id text NOT NULL, attribute text NOT NULL, "values" text[], source text,
    run_id text, model_version text, certificate_id text, asserted_at timestamptz
) ON COMMIT DROP
"""
_UPSERT = """
INSERT INTO {schema}.delivered_values AS old
    (product_id, attribute, "values", source, run_id, model_version, certificate_id, asserted_at, version)
SELECT product_id, attribute, "values", source, run_id, model_version, certificate_id, asserted_at, %s
FROM pg_temp.staged WHERE NOT gone
ON CONFLICT (product_id, attribute) DO UPDATE SET
    "values" = excluded."values", source = excluded.source, run_id = excluded.run_id,
    model_version = excluded.model_version, certificate_id = excluded.certificate_id,
    asserted_at = excluded.asserted_at, version = excluded.version
WHERE (old."values", old.source, old.run_id, old.model_version, old.certificate_id, old.asserted_at)
    IS DISTINCT FROM (excluded."values", excluded.source, excluded.run_id, excluded.model_version,
        excluded.certificate_id, excluded.asserted_at)
"""
_DELETE = """
DELETE FROM {schema}.delivered_values AS old USING pg_temp.staged AS new
WHERE new.gone AND old.product_id = new.product_id AND old.attribute = new.attribute
"""
_DELETE_OTHERS = """
DELETE FROM {schema}.delivered_values AS old WHERE NOT EXISTS (
    SELECT FROM pg_temp.staged AS new WHERE new.product_id = old.product_id AND new.attribute = old.attribute)
"""
_MOVE = """
UPDATE {schema}.position SET catalog_id = %s, version = %s, moved_at = clock_timestamp()
WHERE (catalog_id, version) IS NOT DISTINCT FROM (%s::text, %s::bigint)
"""
_RECORD = """
INSERT INTO {schema}.deliveries (catalog_id, after, version, kind, reason, run_ids, upserted, deleted, skipped)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(slots=True)
class Applied:
    """The rows that a step changed in the table; a row is a product's attribute."""

    staged: int = 0
    """All changes of the step."""
    upserted: int = 0
    deleted: int = 0
    skipped: int = 0
    """Rows whose product id or attribute PostgreSQL cannot hold (a NUL character)."""
    examples: list[str] = field(default_factory=list)
    """Some ids of skipped rows."""

    def numbers(self) -> dict[str, int]:
        return {name: number for name, number in asdict(self).items() if name != "examples"}


class PostgresSink:
    """The tables of ``schema``, over a connection with autocommit.

    Its methods raise psycopg's errors: use it inside :func:`postgres.connected`.
    """

    def __init__(self, connection: psycopg.Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def check(self) -> None:
        """Raise unless the tables are those of this program, and the role can change no merchant's value.

        DataContractError for a schema of another revision, ConfigError for a role with too many rights.
        """
        postgres.require_newest(self._connection, self._schema)
        rights = "INSERT, UPDATE, DELETE, TRUNCATE"
        asked = "SELECT current_user, has_table_privilege(%s, %s) OR has_any_column_privilege(%s, 'INSERT, UPDATE')"
        table = f"{self._schema}.merchant_values"
        role, may_write = self._row(asked, (table, rights, table))
        if may_write:
            raise ConfigError(
                f"the role {role!r} of delivery.uri may change {table}. A delivery must not be able to do that: "
                "let delivery.uri connect as delivery.role, which must neither own the tables nor be superuser"
            )

    def position(self) -> Position | None:
        """Return the position of what the table holds; None if nothing was delivered yet."""
        row = self._row(self._sql("SELECT catalog_id, version FROM {schema}.position"))
        return None if row[0] is None else Position(row[0], row[1])

    def status(self) -> dict[str, Any]:
        """Return when the position was moved, and how many rows the table has, by the planner's estimate."""
        moved_at, rows = self._row(
            self._sql("SELECT moved_at, (SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass)"
                      " FROM {schema}.position"),
            (f"{self._schema}.delivered_values",),
        )  # fmt: skip
        return {"moved_at": None if moved_at is None else moved_at.isoformat(), "about_rows": max(0, rows or 0)}

    def apply(self, step: Step, since: Position | None, batches: Iterable[pa.RecordBatch]) -> Applied:
        """Apply the ``batches`` of ``step`` to a table at the position ``since``, in one transaction.

        Raises TemporaryFailure, with nothing applied, if another delivery is at work or has moved the position.
        """
        applied = Applied()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            self._lock()
            if self.position() != since:
                raise _moved(since, self.position())
            cursor.execute(_STAGE)
            with cursor.copy("COPY pg_temp.staged FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(_TYPES)
                for row in _rows(batches, applied):
                    copy.write_row(row)
            cursor.execute("ANALYZE pg_temp.staged")
            cursor.execute(self._sql(_DELETE_OTHERS if step.snapshot else _DELETE))
            applied.deleted = cursor.rowcount
            cursor.execute(self._sql(_UPSERT), (step.version,))
            applied.upserted = cursor.rowcount
            before = (None, None) if since is None else (since.catalog_id, since.version)
            cursor.execute(self._sql(_MOVE), (step.catalog_id, step.version, *before))
            if cursor.rowcount != 1:
                raise _moved(since, None)
            record = (step.catalog_id, step.after, step.version, step.kind, step.snapshot, list(step.run_ids))
            cursor.execute(self._sql(_RECORD), (*record, applied.upserted, applied.deleted, applied.skipped))
        return applied

    def _lock(self) -> None:
        """Lock deliveries until the transaction ends. Raises TemporaryFailure if another delivery has the lock."""
        # a lock of the transaction, not of the session: connection pools hand sessions on
        asked = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, %s))"
        if not self._row(asked, (self._schema, LOCK))[0]:
            raise TemporaryFailure(
                f"another delivery to the schema {self._schema} is at work; nothing was applied. Run again when "
                "it is done"
            )

    def _sql(self, text: str) -> Any:
        from psycopg import sql

        return sql.SQL(text).format(schema=sql.Identifier(self._schema))

    def _row(self, query: Any, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        row = self._connection.execute(query, values).fetchone()
        if row is None:
            raise DataContractError(
                f"the table position in schema {self._schema} has no row: restore it with INSERT INTO "
                f"{self._schema}.position DEFAULT VALUES, and the next delivery is a snapshot"
            )
        return tuple(row)


def _moved(since: Position | None, found: Position | None) -> TemporaryFailure:
    now = f", now it is at {found}" if found else ""
    return TemporaryFailure(
        f"the table was at position {since or 'none'} when this delivery began{now}: another delivery moved it. "
        "Nothing was applied; run again"
    )


def _rows(batches: Iterable[pa.RecordBatch], applied: Applied) -> Iterator[tuple[Any, ...]]:
    """Yield the rows to stage, and count them in ``applied``.

    A NUL character, which PostgreSQL cannot hold, is replaced in a value; a row with a NUL in its key is left out.
    """
    for batch in batches:
        for op, product_id, attribute, values, *others in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            applied.staged += 1
            if "\0" in product_id or "\0" in attribute:
                applied.skipped += 1
                if len(applied.examples) < 5:
                    applied.examples.append(f"{product_id!r} {attribute!r}")
                continue
            clean = None if values is None else [value.replace("\0", "�") for value in values]
            yield (op == DELETE, product_id, attribute, clean, *others)
