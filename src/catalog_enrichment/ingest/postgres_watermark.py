"""The watermark of a table of PostgreSQL: a column with the time of each row's last change. No Spark.

A transaction may commit rows whose time is older than that of rows which were seen before. So an import reads again
what is at most `source.watermark_overlap` older than the newest time of the last import. Times that lie in the future
do not count as the newest: with one of them no later change would be seen. Rows without a time are read every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

_TYPES = {
    "timestamp": ("timestamptz", "now()"),
    "timestamp_ntz": ("timestamp", "localtimestamp"),
    "date": ("date", "current_date"),
}
"""Spark's name of a type -> PostgreSQL's, and the server's time in it."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """The watermark of a table or query at one moment."""

    column: str
    type: str
    """PostgreSQL's name of the column's type."""
    newest: str | None
    """The newest time that is not in the future, as ISO text in UTC; None if no row has one."""
    has_nulls: bool
    """True if a row has no time."""

    def changed_since(self, newest: str, overlap: float) -> str:
        """Return the SQL condition of rows without a time, and of those from ``overlap`` s before ``newest`` on."""
        from psycopg import sql

        condition = sql.SQL(
            "{column} >= {newest}::" + self.type + " - make_interval(secs => {overlap}) OR {column} IS NULL"
        )
        return condition.format(
            column=sql.Identifier(self.column), newest=sql.Literal(newest), overlap=sql.Literal(float(overlap))
        ).as_string(None)


def watermark_of(connection: psycopg.Connection[Any], source: str, columns: dict[str, str], column: str) -> Watermark:
    """Return the watermark of ``source`` (the SQL that follows FROM); ``columns``: name -> Spark's name of its type.

    Raises ConfigError for a column that does not exist, or whose type is none of times.
    """
    from psycopg import sql

    if column not in columns:
        raise ConfigError(f"source.watermark: {column!r} is no column. Available: {sorted(columns)}")
    if columns[column] not in _TYPES:
        raise ConfigError(
            f"source.watermark: {column!r} is of the type {columns[column]}; a timestamp or a date is needed"
        )
    kind, now = _TYPES[columns[column]]
    name, table = sql.Identifier(column), sql.SQL(_literal(source))
    newest = sql.SQL("SELECT max({0})::text FROM {1} WHERE {0} <= " + now).format(name, table)
    nulls = sql.SQL("SELECT EXISTS (SELECT 1 FROM {1} WHERE {0} IS NULL)").format(name, table)
    found = [connection.execute(query).fetchone() for query in (newest, nulls)]
    values = [row[0] if row else None for row in found]
    return Watermark(column, kind, values[0], bool(values[1]))


def _literal(text: str) -> Any:
    return text  # psycopg's type for SQL that is not typed into the program
