"""Reads a table, view or query of PostgreSQL in ranges, through several connections that see one snapshot.

The driver opens a transaction, which locks what is read against being dropped or emptied (ACCESS SHARE, as any SELECT
does), and exports its snapshot (pg_export_snapshot). It stays open until everything is read. Every task opens its own
transaction with that snapshot. So rows that others write, move or delete meanwhile are neither lost nor read twice.

The ranges are ranges of disk pages (ctid), in exactly one of which every row of a snapshot is, whatever the key is.
Views and queries have no pages: their ranges are those of a column. The server writes all values but bytea as text, so
that a value that Spark cannot hold, such as the date `infinity`, makes its row unusable and not the import.

psycopg (the extra `postgres`) is imported where it is needed. No Spark here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalog_enrichment import extras
from catalog_enrichment.config.remote_sources import PostgresConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest.postgres_watermark import Watermark, watermark_of

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from psycopg import sql

FETCH_BYTES = 16 * 2**20
"""About the size of the rows that a connection fetches at a time."""
_FIRST_ROWS = 32
_TYPES = {
    "bool": "boolean", "int2": "smallint", "int4": "int", "int8": "bigint", "oid": "bigint", "numeric": "decimal",
    "float4": "float", "float8": "double", "date": "date", "timestamp": "timestamp_ntz", "timestamptz": "timestamp",
    "bytea": "binary",
}  # fmt: skip
"""Name of a type in pg_type -> Spark's name; every other type is a text."""
_OF_ANY_LENGTH = {"character": "bpchar", "bit": "varbit"}
"""Types whose plain name means a length of one -> the same types without a length."""
_WITH_PAGES = ("r", "m", "p")
"""Values of pg_class.relkind for tables, materialized views and partitioned tables."""
_SETTINGS = {
    "timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "iso_8601", "extra_float_digits": "1",
}  # fmt: skip
"""Settings of every connection, so that the server always writes texts in the same form."""
_PASSING = ("starting up", "shutting down", "too many", "remaining connection slots", "recovery", "not yet accepting")
"""Parts of the messages of a server that refuses a connection now and may accept it later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableReading:
    """The range of rows that a task reads, and how it connects."""

    conninfo: str = field(repr=False)
    """How to connect, with the password."""
    shown: str
    """Server, database and table, for messages and for the rows' origin."""
    columns: dict[str, str]
    """All columns of the table or query -> Spark's name of their type, without precision: `array<string>`."""
    source: str
    """The SQL that follows FROM."""
    ranges: tuple[str, ...]
    """The SQL condition of each task. Every row fulfils exactly one of them."""
    snapshot: str | None
    """The snapshot that the driver has exported; None for a single range, whose transaction has its own."""
    config: PostgresConfig
    changed: str = "true"
    """The SQL condition of the rows that are read."""

    def select(self, names: Sequence[str], number: int) -> str:
        """Return the statement that reads ``names`` of range ``number``: everything but bytea as text."""
        from psycopg import sql

        columns = sql.SQL(", ").join(_as_text(name, self.columns[name]) for name in names)
        parts = (sql.SQL(_literal(text)) for text in (self.source, self.ranges[number], self.changed))
        return sql.SQL("SELECT {} FROM {} WHERE ({}) AND ({})").format(columns, *parts).as_string(None)


def _literal(text: str) -> Any:
    return text  # psycopg's type for SQL that is not typed into the program


def _as_text(name: str, kind: str) -> sql.Composable:
    from psycopg import sql

    column = sql.Identifier(name)
    if kind == "binary":
        return column
    template = "array_to_json({})::text" if kind.startswith("array<") else "{}::text"
    return sql.SQL(template).format(column)


class TableSnapshot:
    """The driver's transaction, which holds the snapshot and the locks until :meth:`close`."""

    def __init__(self, uri: str, config: PostgresConfig, watermark: str = "") -> None:
        """Connect, and find columns and ranges, and the newest time in the column ``watermark``.

        Raises ConfigError for a table, key, watermark or query that cannot be read, and for a server that refuses
        access, and TemporaryFailure for a server that does not answer.
        """
        self._config, self._column = config, watermark
        self.watermark: Watermark | None = None
        """None without a column."""
        self.shown = _shown(uri, config)
        self._connection = connect(_conninfo(uri, config), self.shown, config, repeatable=False)
        try:
            with explained(self.shown):
                self.reading = self._look()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the transaction. Tasks that are still reading may fail."""
        self._connection.close()

    def _look(self) -> TableReading:
        connection, config = self._connection, self._config
        # the transaction stays open for longer than a setting of the server may allow
        _set(connection, "idle_in_transaction_session_timeout", "0")
        if connection.info.server_version >= 170000:
            _set(connection, "transaction_timeout", "0")
        source, kind, oid = _source(connection, config)
        columns = _columns(connection, source)  # locks everything that is read, before the snapshot is taken
        if config.key and config.key not in columns:
            raise ConfigError(f"source.postgres.key: {config.key!r} is no column. Available: {sorted(columns)}")
        if self._column:  # before the snapshot, which has so all rows up to it
            self.watermark = watermark_of(connection, source, columns, self._column)
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        ranges = _ranges(connection, config, source, oid if kind in _WITH_PAGES else None)
        reading = TableReading(
            conninfo=_with_password(connection.info), shown=self.shown, columns=columns, source=source,
            ranges=tuple(ranges), snapshot=row[0] if row and len(ranges) > 1 else None, config=config,
        )  # fmt: skip
        if reading.snapshot:
            connect(reading.conninfo, self.shown, config, snapshot=reading.snapshot).close()
        return reading


def read_range(reading: TableReading, names: Sequence[str], number: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a range in Arrow batches of about :data:`FETCH_BYTES`: text, bytea as binary.

    Runs on executors. Raises TemporaryFailure where the server ends the connection, ConfigError where the query fails.
    """
    import pyarrow as pa

    types = {name: pa.binary() if reading.columns[name] == "binary" else pa.string() for name in names}
    schema = pa.schema(types)
    connection = connect(reading.conninfo, reading.shown, reading.config, snapshot=reading.snapshot)
    with explained(reading.shown), connection, connection.cursor("catalog_enrichment", binary=True) as cursor:
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            _set(connection, "client_encoding", "SQL_ASCII")  # or the server refuses what is no UTF-8
        cursor.execute(_literal(reading.select(names, number)))
        rows = cursor.fetchmany(min(_FIRST_ROWS, reading.config.fetch_rows))
        while rows:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield batch
            row_bytes = max(1, batch.nbytes // batch.num_rows)
            rows = cursor.fetchmany(max(1, min(reading.config.fetch_rows, FETCH_BYTES // row_bytes)))


def connect(
    conninfo: str, shown: str, config: PostgresConfig, *, repeatable: bool = True, snapshot: str | None = None
) -> psycopg.Connection[Any]:
    """Open a connection in a read-only transaction.

    It sees its own snapshot, or ``snapshot``, or, if it is not ``repeatable``, a new one with every statement.
    """
    _psycopg()
    import psycopg

    with explained(shown):
        connection = psycopg.connect(
            conninfo,
            client_encoding="utf8",
            connect_timeout=config.connect_seconds,
            prepare_threshold=None,  # poolers between here and the server do not know prepared statements
            keepalives_idle=30,
            tcp_user_timeout=60_000,
            application_name="catalog_enrichment",
        )
    try:
        connection.read_only = True
        level = psycopg.IsolationLevel
        connection.isolation_level = level.REPEATABLE_READ if repeatable else level.READ_COMMITTED
        for name in ("text", "varchar", "bpchar", "name"):
            connection.adapters.register_loader(name, _lenient_text())
        if snapshot is not None:
            _take(connection, snapshot, shown)
        with explained(shown):
            for name, value in _SETTINGS.items():
                _set(connection, name, value)
            _set(connection, "lock_timeout", f"{config.lock_seconds}s")
    except BaseException:
        connection.close()
        raise
    return connection


def _take(connection: psycopg.Connection[Any], snapshot: str, shown: str) -> None:
    from psycopg import errors, sql

    try:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    except (errors.InvalidParameterValue, errors.UndefinedObject, errors.FeatureNotSupported) as problem:
        raise TemporaryFailure(
            f"{shown}: a connection cannot share the snapshot of the first one ({_first_line(problem)}). That one has "
            "ended, or the connections of source.path reach different servers, for example through a pooler: name one "
            "server, or set source.postgres.partitions = 1"
        ) from None


def _lenient_text() -> Any:
    """Return a loader for texts of a database without a known encoding (SQL_ASCII), which need not be UTF-8."""
    from psycopg.adapt import Loader
    from psycopg.pq import Format

    class LenientText(Loader):
        format = Format.BINARY

        def load(self, data: Any) -> str:
            return bytes(data).decode("utf-8", "replace")

    return LenientText


def _set(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    connection.execute("SELECT set_config(%s, %s, true)", (name, value))


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise ConfigError(
            'source.format = "postgres" needs psycopg, on the driver and on all executors: ' + extras.remedy("psycopg")
        ) from None
    return psycopg


def _conninfo(uri: str, config: PostgresConfig) -> str:
    _psycopg()
    from psycopg.conninfo import make_conninfo

    if not config.auth_env:
        return uri
    password = os.environ.get(config.auth_env, "")
    if not password:
        raise ConfigError(f"source.postgres.auth_env: the environment variable {config.auth_env} is not set")
    return make_conninfo(uri, password=password)


def _with_password(info: psycopg.ConnectionInfo) -> str:
    """Return how this connection was opened, with its password: tasks have neither the driver's environment nor its
    `~/.pgpass`."""
    from psycopg.conninfo import make_conninfo

    ours = ("client_encoding", "connect_timeout", "keepalives_idle", "tcp_user_timeout", "application_name")
    given = {name: value for name, value in info.get_parameters().items() if name not in ours}
    given |= {"host": info.host, "port": str(info.port)}  # the host that answered, of several
    return make_conninfo("", **given, **({"password": info.password} if info.password else {}))


def _shown(uri: str, config: PostgresConfig) -> str:
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2] or "local"
    return f"postgresql://{host}{parts.path}#{config.table.strip() or 'query'}"


def _source(connection: psycopg.Connection[Any], config: PostgresConfig) -> tuple[str, str, int | None]:
    """Return the SQL that follows FROM, pg_class.relkind (empty for a query), and the table's oid."""
    from psycopg import sql

    if config.query:
        return f"({config.query.strip().rstrip(';')}\n) AS source", "", None  # a comment may end the query
    found = """SELECT c.relkind::text, n.nspname, c.relname, c.oid::bigint FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)"""
    row = connection.execute(found, (config.table.strip(),)).fetchone()
    if row is None or row[0] not in (*_WITH_PAGES, "v", "f"):
        names = connection.execute(
            """SELECT table_schema || '.' || table_name FROM information_schema.tables
            WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1 LIMIT 50"""
        ).fetchall()
        raise ConfigError(
            f"source.postgres.table: there is no table or view {config.table!r} that this user may see. "
            f"Available: {[name for (name,) in names]}"
        )
    kind, schema, name, oid = row
    return sql.Identifier(schema, name).as_string(connection), kind, oid


def _columns(connection: psycopg.Connection[Any], source: str) -> dict[str, str]:
    """Return all columns of what is read, and lock every table that it needs."""
    cursor = connection.execute(_literal(f"SELECT * FROM {source} LIMIT 0"))
    described = [(column.name, column.type_code) for column in cursor.description or ()]
    names = [name for name, _ in described]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"source.postgres.query has several columns called {twice}: give them names with AS")
    types = """WITH RECURSIVE base AS (
            SELECT oid AS given, oid FROM pg_catalog.pg_type WHERE oid = ANY(%s::bigint[]::oid[])
            UNION ALL
            SELECT base.given, t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid
            WHERE t.typtype = 'd')
        SELECT base.given::bigint, t.typname, e.typname FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid
        LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' WHERE t.typtype <> 'd'"""
    rows = connection.execute(types, ([oid for _, oid in described],)).fetchall()
    known = {
        oid: f"array<{_TYPES.get(item, 'string')}>" if item else _TYPES.get(name, "string") for oid, name, item in rows
    }
    return {name: known.get(oid, "string") for name, oid in described}


def _ranges(connection: psycopg.Connection[Any], config: PostgresConfig, source: str, oid: int | None) -> list[str]:
    """Return at most `partitions` conditions, of which every row fulfils exactly one."""
    if config.partitions == 1:
        return ["true"]
    if config.key:
        return _key_ranges(connection, config, source)
    return ["true"] if oid is None else _page_ranges(connection, oid, config.partitions)


def _page_ranges(connection: psycopg.Connection[Any], oid: int, partitions: int) -> list[str]:
    """Return ranges of disk pages, each in every partition; the last has no end, as the table may have grown."""
    sizes = """SELECT max(pg_relation_size(c.oid)) / current_setting('block_size')::bigint FROM pg_catalog.pg_class c
        WHERE c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass))"""
    row = connection.execute(sizes, {"oid": oid}).fetchone()
    pages = int(row[0] or 0) if row else 0
    starts = sorted({pages * number // partitions for number in range(1, partitions)} - {0})
    return _between("ctid", [f"'({start},0)'::tid" for start in starts])


def _key_ranges(connection: psycopg.Connection[Any], config: PostgresConfig, source: str) -> list[str]:
    """Return ranges of the key with about as many rows each; rows without a key are in the first range."""
    from psycopg import sql

    key = sql.Identifier(config.key)
    shares = [number / config.partitions for number in range(1, config.partitions)]
    quantiles = sql.SQL(
        "SELECT q::text, pg_typeof(q)::text FROM (SELECT unnest(percentile_disc({}::float8[]) WITHIN GROUP "
        "(ORDER BY {})) AS q FROM {}) AS quantiles WHERE q IS NOT NULL"
    ).format(sql.Literal(shares), key, sql.SQL(_literal(source)))
    rows = connection.execute(quantiles).fetchall()
    starts = [
        sql.SQL("{}::").format(sql.Literal(text)).as_string(connection) + _OF_ANY_LENGTH.get(kind, kind)
        for text, kind in dict.fromkeys(rows)
    ]
    name = key.as_string(connection)
    ranges = _between(name, starts)
    return ranges if ranges == ["true"] else [f"({ranges[0]} OR {name} IS NULL)", *ranges[1:]]


def _between(column: str, starts: Sequence[str]) -> list[str]:
    """Return conditions for the rows below the first start, between two starts, and from the last start on."""
    if not starts:
        return ["true"]
    inner = [f"{column} >= {low} AND {column} < {high}" for low, high in pairwise(starts)]
    return [f"{column} < {starts[0]}", *inner, f"{column} >= {starts[-1]}"]


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turn psycopg's errors in a block into errors of this package."""
    psycopg = _psycopg()
    try:
        yield
    except psycopg.Error as problem:
        raise _explained(shown, problem) from None


def _explained(shown: str, problem: Exception) -> CatalogEnrichmentError:
    """Return the error to raise for psycopg's. An error without a code happened as a connection was opened or lost."""
    import psycopg

    said, code = _first_line(problem), str(getattr(problem, "sqlstate", None) or "")
    if code in ("42P01", "42703", "42601", "42501") or code[:2] in ("42", "3F", "25", "0A"):
        return ConfigError(f"{shown} cannot be read: {said}. Check source.postgres and the user's rights")
    if code[:2] == "22":
        return DataContractError(f"{shown}: the query fails on a row: {said}. Nothing was imported")
    if code in ("28P01", "28000", "3D000") or (
        not code and "FATAL" in str(problem) and not any(part in str(problem) for part in _PASSING)
    ):
        return ConfigError(f"{shown}: the server refuses access: {said}. Check source.path and the password")
    if code == "55P03":
        return TemporaryFailure(f"{shown} is locked by another transaction: {said}. Run again when that has ended")
    if not code and not isinstance(problem, psycopg.OperationalError):
        return ConfigError(f"{shown}: {said}")
    return TemporaryFailure(f"{shown}: the server does not answer or ended the connection: {said}. Run again later")


def _first_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__)[:300]
