"""The PostgreSQL sink: applies a step exactly once.

Staging, rows, position and the record of the delivery are one transaction. It goes through only from the position that
the step starts at: a step that was applied, by this job before it was killed or by another job, is not applied again.

A row that the database refuses is left out and named, and all others are applied: a catalog has the ids and values of
many shops. The table has no older value of such a product and attribute either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from catalog_enrichment.delivery import postgres
from catalog_enrichment.delivery.differences import DELETE
from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.delivery.sink import Applied, moved
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from catalog_enrichment.config.operations import DeliveryConfig

LOCK = 0x6361_7461_6C6F_6732
"""Key of the advisory lock of the delivery at work; the schema's name is mixed in."""

_TYPES = ("int8", "bool", "text", "text", "text[]", "float8", "text", "text", "text", "text", "text", "timestamptz")
"""The types of the columns of _STAGE, which are the columns of differences.SCHEMA after a place."""

_ABOUT_A_ROW = ("22", "23", "44", "54", "P0")
"""Classes of SQLSTATE with which a server refuses a row: a character that its encoding lacks, a constraint or trigger
that an administrator added, a key too long for the index."""

_ABOUT_ALL_ROWS = ("23502", "22P03", "22P04")
"""The states among them that no row causes: a null in a column that an administrator added, and a COPY in a form that
the server does not read."""

_ALL_REFUSED = 200
"""Refused rows, with no row taken, after which the cause is not in the rows: a trigger for maintenance, or a missing
reference."""

_STAGE = """
CREATE TEMPORARY TABLE staged (
    place bigint NOT NULL, gone boolean NOT NULL, product_id text NOT NULL, attribute text NOT NULL,
    "values" text[], number double precision, unit text, source text, run_id text, model_version text,
    certificate_id text, asserted_at timestamptz
) ON COMMIT DROP
"""
_MAY_WRITE = """
SELECT session_user, array_agg(role.rolname::text ORDER BY role.rolname)
FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace, pg_roles AS role
WHERE relation.oid = %s::regclass AND pg_has_role(session_user, role.oid, 'MEMBER') AND (
    role.oid IN (relation.relowner, space.nspowner)
    OR has_table_privilege(role.oid, relation.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
    OR has_any_column_privilege(role.oid, relation.oid, 'INSERT, UPDATE'))
"""
"""Returns the roles that may change the table and whose rights the connection has or can take."""
_UPSERT = """
INSERT INTO {schema}.delivered_values AS old
    (product_id, attribute, "values", number, unit, source, run_id, model_version, certificate_id, asserted_at, version)
SELECT product_id, attribute, "values", number, unit, source, run_id, model_version, certificate_id, asserted_at, %s
FROM pg_temp.staged WHERE NOT gone AND place >= %s AND place < %s
ON CONFLICT (product_id, attribute) DO UPDATE SET
    "values" = excluded."values", number = excluded.number, unit = excluded.unit, source = excluded.source,
    run_id = excluded.run_id, model_version = excluded.model_version,
    certificate_id = excluded.certificate_id, asserted_at = excluded.asserted_at, version = excluded.version
WHERE (old."values", old.number, old.unit, old.source, old.run_id, old.model_version, old.certificate_id,
        old.asserted_at)
    IS DISTINCT FROM (excluded."values", excluded.number, excluded.unit, excluded.source, excluded.run_id,
        excluded.model_version, excluded.certificate_id, excluded.asserted_at)
"""
_DELETE = """
DELETE FROM {schema}.delivered_values AS old USING pg_temp.staged AS new
WHERE new.gone AND old.product_id = new.product_id AND old.attribute = new.attribute
"""
_DELETE_OTHERS = """
DELETE FROM {schema}.delivered_values AS old WHERE NOT EXISTS (
    SELECT FROM pg_temp.staged AS new
    WHERE new.product_id = old.product_id AND new.attribute = old.attribute AND NOT new.gone)
"""
_MOVE = """
UPDATE {schema}.position SET catalog_id = %s, version = %s, moved_at = clock_timestamp()
WHERE (catalog_id, version) IS NOT DISTINCT FROM (%s::text, %s::bigint)
"""
_RECORD = """
INSERT INTO {schema}.deliveries (catalog_id, after, version, kind, reason, run_ids, upserted, deleted, skipped)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


def where(config: DeliveryConfig) -> str:
    """See :class:`~catalog_enrichment.delivery.sink.SinkKind`."""
    return postgres.server(config.uri) if config.uri else ""


@contextmanager
def opened(config: DeliveryConfig) -> Iterator[PostgresSink]:
    """See :class:`~catalog_enrichment.delivery.sink.SinkKind`."""
    with postgres.connected(config) as connection:
        yield PostgresSink(connection, config.schema)


def migrate(config: DeliveryConfig) -> tuple[str | None, str]:
    """Make or change the tables, and give the role its rights."""
    with postgres.connected(config, for_migration=True) as connection:
        return postgres.migrate(connection, config.schema, config.role)


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
        role, writers = self._row(_MAY_WRITE, (f"{postgres.quoted(self._schema)}.merchant_values",))
        if writers:
            how = "" if role in writers else f" as a member of {', '.join(writers)}"
            raise ConfigError(
                f"the role {role!r} of delivery.uri may change {self._schema}.merchant_values{how}. A delivery must "
                "not be able to do that: let delivery.uri connect as delivery.role, which must not be superuser, own "
                "the tables or their schema, or be a member of a role that may change merchants' values: also a "
                "NOINHERIT member can take that role's rights, by SET ROLE"
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
            (f"{postgres.quoted(self._schema)}.delivered_values",),
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
                raise moved(since, self.position())
            cursor.execute(_STAGE)
            for batch in batches:
                self._stage(list(_rows(batch, applied)), applied)
            cursor.execute("ANALYZE pg_temp.staged")
            self._upsert(step.version, range(applied.staged), applied)
            cursor.execute(self._sql(_DELETE_OTHERS if step.snapshot else _DELETE))
            applied.deleted = cursor.rowcount
            before = (None, None) if since is None else (since.catalog_id, since.version)
            cursor.execute(self._sql(_MOVE), (step.catalog_id, step.version, *before))
            if cursor.rowcount != 1:
                raise moved(since, None)
            record = (step.catalog_id, step.after, step.version, step.kind, step.snapshot, list(step.run_ids))
            cursor.execute(self._sql(_RECORD), (*record, applied.upserted, applied.deleted, applied.skipped))
        return applied

    def _stage(self, rows: Sequence[_Row], applied: Applied) -> None:
        """Copy the rows to the staging table, in halves if the server refuses one.

        A row that it refuses is staged as a delete, unless it refuses the key too, which no table can have then.
        """
        import psycopg

        try:
            with (
                self._connection.transaction(),
                self._connection.cursor() as cursor,
                cursor.copy("COPY pg_temp.staged FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(_TYPES)
                for row in rows:
                    copy.write_row(row)
        except psycopg.Error as problem:
            why = _why_refused(problem)
            if len(rows) > 1:
                for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                    self._stage(half, applied)
                return
            place, gone, product_id, attribute, *others = rows[0]
            if not gone:
                applied.skip(product_id, attribute, why)
                self._stage([(place, True, product_id, attribute, *[None] * len(others))], applied)

    def _upsert(self, version: int, places: range, applied: Applied) -> None:
        """Write the staged rows with these ``places``, in halves if the server refuses one.

        A row that it refuses becomes a delete.
        """
        import psycopg

        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.execute(self._sql(_UPSERT), (version, places.start, places.stop))
                applied.upserted += cursor.rowcount
        except psycopg.Error as problem:
            why, middle = _why_refused(problem), (places.start + places.stop) // 2
            self._connection.execute("CREATE INDEX IF NOT EXISTS staged_place ON pg_temp.staged (place)")
            if len(places) > 1:
                for half in (range(places.start, middle), range(middle, places.stop)):
                    self._upsert(version, half, applied)
                return
            refused = "UPDATE pg_temp.staged SET gone = true WHERE place = %s RETURNING product_id, attribute"
            product_id, attribute = self._row(refused, (places.start,))
            applied.skip(product_id, attribute, why)
            if not applied.upserted and applied.skipped >= _ALL_REFUSED:
                raise DataContractError(
                    f"the database refuses every row, {applied.skipped:,} so far, the last with: {why}. Nothing was "
                    "applied. Is a trigger or a constraint in the way?"
                ) from problem

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
                f"{postgres.quoted(self._schema)}.position DEFAULT VALUES, and the next delivery is a snapshot"
            )
        return tuple(row)


_Row = tuple[Any, ...]
"""A row to stage: its place, whether it is gone, and the columns of differences.SCHEMA after ``op``."""


def _rows(batch: pa.RecordBatch, applied: Applied) -> Iterator[_Row]:
    """Yield the rows to stage, and count them in ``applied``.

    PostgreSQL can hold no NUL character: a value with one becomes a delete, and a key with one is left out.
    """
    first, columns = applied.staged, [column.to_pylist() for column in batch.columns]
    applied.staged += batch.num_rows
    for place, (op, product_id, attribute, values, *others) in enumerate(zip(*columns, strict=True), start=first):
        gone, nul_in_key = op == DELETE, "\0" in product_id or "\0" in attribute
        if not gone and (nul_in_key or any("\0" in value for value in values or ())):
            applied.skip(product_id, attribute, "PostgreSQL can hold no NUL character")
            gone, values, others = True, None, [None] * len(others)
        if not nul_in_key:
            yield (place, gone, product_id, attribute, values, *others)


def _why_refused(problem: psycopg.Error) -> str:
    """Return the server's answer about a row; raise ``problem`` if it is not about the row alone."""
    state = problem.sqlstate or ""
    if state[:2] not in _ABOUT_A_ROW or state in _ABOUT_ALL_ROWS:
        raise problem
    return (str(problem).splitlines() or [type(problem).__name__])[0]
