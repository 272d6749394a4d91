"""Ranges of a real PostgreSQL's table, read by several connections as tasks do, without Spark."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest

from catalog_enrichment.config.remote_sources import PostgresConfig
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest import postgres_tables
from catalog_enrichment.ingest.postgres_tables import TableSnapshot, read_range

from ..postgres_server import PostgresServer, free_port


@pytest.fixture
def uri(postgres: PostgresServer) -> str:
    return postgres.new_database(f"shop-{uuid.uuid4().hex[:8]}")


def run(uri: str, *statements: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


def products(uri: str, count: int = 1000) -> None:
    run(
        uri,
        "CREATE TABLE products (id int, title text, price numeric)",
        f"INSERT INTO products SELECT n, repeat('shirt ', 20) || n, n / 8.0 FROM generate_series(1, {count}) AS n",
    )


@pytest.fixture
def opened() -> Iterator[Any]:
    """A function that opens a snapshot; all are closed in the end."""
    with ExitStack() as snapshots:

        def open_snapshot(uri: str, **config: Any) -> TableSnapshot:
            table = {} if "query" in config else {"table": "products"}
            return snapshots.enter_context(closing(TableSnapshot(uri, PostgresConfig(**table | config))))

        yield open_snapshot


def parts(snapshot: TableSnapshot, name: str = "id") -> list[list[Any]]:
    """The column's values as every task reads them."""
    reading = snapshot.reading
    return [
        [value for batch in read_range(reading, [name], number) for value in batch.column(0).to_pylist()]
        for number in range(len(reading.ranges))
    ]


def flat(snapshot: TableSnapshot, name: str = "id") -> list[Any]:
    return [value for part in parts(snapshot, name) for value in part]


def numbers(*ranges: range) -> list[str]:
    return sorted(str(number) for some in ranges for number in some)


def test_every_row_is_in_one_range_of_pages(uri: str, opened: Any) -> None:
    products(uri)
    found = parts(opened(uri))
    assert sorted(value for part in found for value in part) == numbers(range(1, 1001))
    assert len(found) == 4
    assert min(map(len, found)) > 150


def test_rows_written_moved_and_deleted_meanwhile_are_neither_lost_nor_doubled(uri: str, opened: Any) -> None:
    products(uri)
    snapshot = opened(uri)
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(uri, autocommit=True) as connection:
            new = 10_000
            while not done.is_set():
                new += 1
                moved = "UPDATE products SET title = title || 'x', id = id + 100000 WHERE mod(id, 7) = %s"
                connection.execute(moved, (new % 7,))
                connection.execute("DELETE FROM products WHERE id % 50 = 3")
                connection.execute("INSERT INTO products VALUES (%s, 'new', 1)", (new,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            assert sorted(flat(snapshot)) == numbers(range(1, 1001))
    finally:
        done.set()
        writer.join()
    assert sorted(flat(opened(uri))) != numbers(range(1, 1001))


def test_a_table_cannot_be_emptied_while_it_is_read(uri: str, opened: Any) -> None:
    products(uri, 10)
    snapshot = opened(uri)
    with psycopg.connect(uri, autocommit=True) as other:
        other.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("TRUNCATE products")
        snapshot.close()
        other.execute("TRUNCATE products")


@pytest.mark.parametrize(
    ("key", "count"), [("id", 4), ("title", 4), ("day", 4), ("tag", 4), ("kind", 3), ("nothing", 1)]
)
def test_ranges_of_a_key_of_any_type_have_all_rows_nulls_among_them(
    uri: str, opened: Any, key: str, count: int
) -> None:
    run(
        uri,
        "CREATE TYPE kind AS ENUM ('z', 'a')",
        'CREATE TABLE products (id int, title text COLLATE "C", day date, tag uuid, kind kind, nothing int)',
        """INSERT INTO products SELECT n, 'T''%s' || n, date '2026-01-01' + n, gen_random_uuid(),
        (ARRAY['z', 'a']::kind[])[n % 2 + 1], NULL FROM generate_series(1, 400) AS n""",
        "UPDATE products SET id = id, title = NULL, day = NULL, tag = NULL, kind = NULL WHERE id > 390",
        "CREATE VIEW shown AS SELECT * FROM products",
    )
    found = parts(opened(uri, table="shown", key=key))
    assert sorted(value for part in found for value in part) == numbers(range(1, 401))
    assert len(found) == count
    if count == 4:
        assert min(map(len, found)) >= 90


def test_a_query_is_read_alone_or_by_a_key(uri: str, opened: Any) -> None:
    products(uri, 100)
    query = 'SELECT id, title AS "Title %s" FROM products WHERE id <= 50 -- the first half;'
    assert [len(part) for part in parts(opened(uri, query=query))] == [50]
    assert [len(part) for part in parts(opened(uri, query=query + "\n;", key="id", partitions=2))] == [24, 26]
    assert flat(opened(uri, query='SELECT id AS "a""b.c" FROM products LIMIT 1'), 'a"b.c') == ["1"]


def test_partitioned_tables_and_materialized_views_have_ranges_of_pages(uri: str, opened: Any) -> None:
    run(
        uri,
        "CREATE TABLE products (id int, title text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF products FOR VALUES FROM (0) TO (900)",
        "CREATE TABLE high PARTITION OF products FOR VALUES FROM (900) TO (2000)",
        "INSERT INTO products SELECT n, repeat('x', 200) FROM generate_series(1, 1000) AS n",
        "CREATE MATERIALIZED VIEW shown AS SELECT * FROM products",
    )
    for table in ("products", "shown"):
        found = parts(opened(uri, table=table))
        assert (len(found), sorted(value for part in found for value in part)) == (4, numbers(range(1, 1001)))


def test_a_table_without_rows_is_read_in_one_range(uri: str, opened: Any) -> None:
    run(uri, "CREATE TABLE products (id int)")
    assert parts(opened(uri)) == [[]]


def test_every_type_is_read_as_what_the_server_writes(uri: str, opened: Any) -> None:
    run(
        uri,
        "SET timezone = 'Asia/Tokyo'",
        "CREATE DOMAIN name_text AS varchar(20) CHECK (VALUE <> '')",
        "CREATE TYPE kind AS ENUM ('new', 'used')",
        """CREATE TABLE products (a text[], b jsonb, c bytea, d timestamptz, e numeric(10, 2), f boolean, g kind,
        h name_text, i float8, j bigint, k date, l char(5), m uuid, n timestamp, o int[], p json, q text)""",
        """INSERT INTO products VALUES (ARRAY['Red, "x"', NULL, 'Größe'], '{"a": [1, "ü"]}', '\\x00ff',
        '2026-01-02 03:04:05+09', 12.50, true, 'used', 'n', 0.1, 9007199254740993, 'infinity', 'ab',
        '00000000-0000-0000-0000-00000000000a',
        '2026-01-02 03:04:05', '{{1,2},{3,4}}', '"x"', NULL)""",
        f"ALTER DATABASE \"{uri.rsplit('/', 1)[1]}\" SET timezone = 'Asia/Tokyo'",
    )
    snapshot = opened(uri)
    names = list(snapshot.reading.columns)
    [batch] = list(read_range(snapshot.reading, names, 0))
    assert batch.to_pylist() == [
        {
            "a": '["Red, \\"x\\"",null,"Größe"]', "b": '{"a": [1, "ü"]}', "c": b"\x00\xff",
            "d": "2026-01-01 18:04:05+00", "e": "12.50", "f": "true", "g": "used", "h": "n", "i": "0.1",
            "j": "9007199254740993", "k": "infinity", "l": "ab", "m": "00000000-0000-0000-0000-00000000000a",
            "n": "2026-01-02 03:04:05", "o": "[[1,2],[3,4]]", "p": '"x"', "q": None,
        }
    ]  # fmt: skip
    assert snapshot.reading.columns == {
        "a": "array<string>", "b": "string", "c": "binary", "d": "timestamp", "e": "decimal", "f": "boolean",
        "g": "string", "h": "string", "i": "double", "j": "bigint", "k": "date", "l": "string", "m": "string",
        "n": "timestamp_ntz", "o": "array<int>", "p": "string", "q": "string",
    }  # fmt: skip


def test_large_rows_are_fetched_a_few_at_a_time(uri: str, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(
        uri,
        "CREATE TABLE products (picture bytea)",
        "INSERT INTO products SELECT decode(repeat('ab', 10000), 'hex') FROM generate_series(1, 100)",
    )
    monkeypatch.setattr(postgres_tables, "FETCH_BYTES", 100_000)
    snapshot = opened(uri, partitions=1)
    sizes = [batch.num_rows for batch in read_range(snapshot.reading, ["picture"], 0)]
    assert (sizes[0], sum(sizes), max(sizes[1:])) == (32, 100, 9)
    few = opened(uri, partitions=1, fetch_rows=2).reading
    assert {batch.num_rows for batch in read_range(few, ["picture"], 0)} == {2}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"table": "nosuch"}, r"no table or view 'nosuch' .* Available: \['public.products'\]"),
        ({"table": "products", "key": "Id"}, r"'Id' is no column. Available: \['id', 'price', 'title'\]"),
        ({"query": "SELECT nosuch FROM products"}, r'#query cannot be read: column "nosuch" does not exist'),
        ({"query": "SELEC 1"}, "syntax error"),
        ({"query": "SELECT 1 AS a; DROP TABLE products"}, "syntax error"),
        ({"query": "SELECT 1 AS a, 2 AS a"}, r"several columns called \['a'\]"),
        ({"query": "SELECT '1'::json AS j", "key": "j"}, "could not identify an ordering operator"),
        ({"query": "SELECT * FROM nextval('ids') AS id", "key": "id"}, "cannot execute nextval"),
    ],
)
def test_what_cannot_be_read_is_a_config_error(uri: str, opened: Any, config: dict[str, str], says: str) -> None:
    products(uri, 3)
    run(uri, "CREATE SEQUENCE ids")
    with pytest.raises(ConfigError, match=says):
        opened(uri, **config)


def test_a_query_that_fails_on_a_row_is_a_data_contract_error(uri: str, opened: Any) -> None:
    products(uri, 3)
    snapshot = opened(uri, query="SELECT 1 / (id - 2) AS id FROM products")
    with pytest.raises(DataContractError, match="division by zero"):
        flat(snapshot)


def test_a_user_without_the_right_is_told_so(uri: str, opened: Any) -> None:
    products(uri, 3)
    reader = f"reader_{uri[-8:]}"
    run(uri, f"CREATE ROLE {reader} LOGIN")
    for other, says in (
        (uri.replace("tests@", f"{reader}@"), "permission denied for table products"),
        (uri.replace("tests@", "nobody@"), r"refuses access: .*nobody"),
        (uri.rsplit("/", 1)[0] + "/nosuch", r"refuses access: .*nosuch"),
    ):
        with pytest.raises(ConfigError, match=says):
            opened(other)


def test_a_server_that_is_gone_is_temporary(uri: str, opened: Any, postgres: PostgresServer) -> None:
    with pytest.raises(TemporaryFailure, match="the server does not answer"):
        opened(f"postgresql://tests@127.0.0.1:{free_port()}/shop")
    products(uri, 5000)
    snapshot = opened(uri, partitions=1, fetch_rows=10)
    batches = read_range(snapshot.reading, ["id"], 0)
    next(batches)
    postgres.kill_backends()
    with pytest.raises(TemporaryFailure, match="ended the connection"):
        list(batches)


def test_a_snapshot_that_has_ended_is_temporary_and_says_what_may_be_the_cause(uri: str, opened: Any) -> None:
    products(uri)
    snapshot = opened(uri)
    snapshot.close()
    with pytest.raises(TemporaryFailure, match=r"cannot share the snapshot .* through a pooler.*partitions = 1"):
        flat(snapshot)


def test_a_locked_table_is_temporary(uri: str, opened: Any) -> None:
    products(uri, 3)
    with psycopg.connect(uri) as other:
        other.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TemporaryFailure, match="is locked by another transaction"):
            opened(uri, lock_seconds=1)


def test_the_password_comes_from_the_named_variable_and_is_not_shown(
    uri: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    products(uri, 3)
    with pytest.raises(ConfigError, match="environment variable SHOP_DB is not set"):
        opened(uri, auth_env="SHOP_DB")
    monkeypatch.setenv("SHOP_DB", "hunter2 'quoted' \\ ü")
    snapshot = opened(uri, auth_env="SHOP_DB")
    monkeypatch.delenv("SHOP_DB")
    given = psycopg.conninfo.conninfo_to_dict(snapshot.reading.conninfo)
    assert given["password"] == "hunter2 'quoted' \\ ü"
    assert len(flat(snapshot)) == 3
    assert "hunter2" not in repr(snapshot.reading)
    monkeypatch.setenv("PGPASSWORD", "from libpq")
    assert psycopg.conninfo.conninfo_to_dict(opened(uri).reading.conninfo)["password"] == "from libpq"
    assert "tests@" not in snapshot.shown


def test_the_sessions_cannot_write(uri: str) -> None:
    products(uri, 3)
    connection = postgres_tables.connect(uri, "shown", PostgresConfig(table="products"))
    with connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("DELETE FROM products")


def test_text_of_an_unknown_encoding_is_read(postgres: PostgresServer, opened: Any) -> None:
    name = f"odd-{uuid.uuid4().hex[:8]}"
    encoding = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    run(postgres.uri(), f'CREATE DATABASE "{name}" {encoding}')
    run(
        postgres.uri(name),
        "CREATE TABLE products (id text)",
        "INSERT INTO products SELECT convert_from(decode('4772fc6e', 'hex'), 'SQL_ASCII')",
    )
    assert flat(opened(postgres.uri(name))) == ["Gr\ufffdn"]
