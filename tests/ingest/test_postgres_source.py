"""Imports from a real PostgreSQL, by Spark."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

from ..postgres_server import PostgresServer
from .shop import Shop

SOURCE: dict[str, Any] = {
    "format": "postgres",
    "min_volume_ratio": 0.0,
    "postgres": {"table": "products", "partitions": 3, "auth_env": "SHOP_DB"},
    "mapping": {
        "product_id": "id", "category": "tags", "image_uris": "pictures", "image_bytes": "photo", "opt_out": "hidden",
        "updated_at": "changed", "attributes": {"color": "colours", "usage": "details"},
    },
}  # fmt: skip
TABLE = """CREATE TABLE products (id bigint, title text, tags text[], pictures text[], photo bytea, hidden boolean,
    changed timestamptz, colours text[], details jsonb)"""
ROWS = """INSERT INTO products SELECT n, repeat('Shirt ', 30) || n, ARRAY['Apparel', 'Shirts'],
    ARRAY['https://cdn.example/' || n || '.jpg'], CASE WHEN n = 7 THEN '\\x00ff'::bytea END, n % 2 = 0,
    '2026-01-02 03:04:05+00', ARRAY['Red', 'Blue'], '["Wool"]' FROM generate_series(1, 500) AS n"""


class PostgresShop(Shop):
    def __init__(self, spark: Any, folder: Path, uri: str) -> None:
        super().__init__(spark, folder, SOURCE | {"path": uri}, sample=0)
        self.uri = uri

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.uri, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture
def shop(spark: Any, tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresShop:
    monkeypatch.setenv("SHOP_DB", "hunter2-of-the-shop")
    shop = PostgresShop(spark, tmp_path, postgres.new_database(f"import-{uuid.uuid4().hex[:8]}"))
    shop.sql(TABLE, ROWS)
    return shop


def test_a_table_is_imported_in_ranges_while_others_write_and_bad_rows_are_quarantined(shop: PostgresShop) -> None:
    shop.sql(
        "UPDATE products SET changed = 'infinity' WHERE id = 3",
        "UPDATE products SET title = NULL WHERE id = 4",
        "UPDATE products SET id = NULL WHERE id = 5",
    )
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(shop.uri, autocommit=True) as connection:
            while not done.is_set():
                connection.execute("UPDATE products SET title = title || '.' WHERE mod(id, 5) = 0")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        imported = shop.imported()
    finally:
        done.set()
        writer.join()
    assert imported["products"] == 500 == imported["new"] + sum(imported["quarantined"].values())
    assert imported["quarantined"] == {"empty_title": 1, "missing_id": 1, "unparseable_row": 1}
    assert any("is read in 3 ranges of one snapshot" in line for line in shop.said)
    products = shop.products()
    assert len(products) == 497
    seven = products["7"]
    assert (seven["category"], seven["opt_out"], products["8"]["opt_out"]) == ("Apparel/Shirts", False, True)
    assert seven["updated_at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert seven["merchant_attributes"] == {"color": ["Red", "Blue"], "usage": ["Wool"]}
    assert [image["uri"] for image in seven["images"]] == [None, "https://cdn.example/7.jpg"]
    assert seven["images"][0]["version"] == hashlib.sha256(b"\x00\xff").hexdigest()
    origin = f"postgresql://{shop.uri.split('@')[1]}#products"
    assert {(row["source_uri"], row["row_number"]) for row in shop.rows("quarantine")} == {(origin, None)}
    stored = json.dumps([shop.rows("runs"), shop.rows("quarantine")], default=str) + "".join(shop.said)
    assert "hunter2" not in stored

    with psycopg.connect(shop.uri) as connection:
        left = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'catalog_enrichment'")
        assert left.fetchone() == (0,)


@pytest.mark.slow
def test_rows_that_were_imported_before_change_nothing(shop: PostgresShop) -> None:
    shop.imported()
    again = shop.imported()
    assert (again["status"], again["products"], again["unchanged"]) == ("nothing_to_do", 500, 500)
    shop.sql("UPDATE products SET title = 'Other' WHERE id = 9")
    assert shop.imported(postgres={"key": "id"})["changed"] == 1
    shop.sql("UPDATE products SET title = 'Another' WHERE id IN (9, 90)")
    done = shop.imported(postgres={"query": "SELECT * FROM products WHERE id < 50 -- %", "table": ""})
    assert (done["changed"], done["products"]) == (1, 49)


def test_only_rows_with_a_new_time_are_read_with_a_watermark_also_those_of_a_late_commit(shop: PostgresShop) -> None:
    marked = {"watermark": "changed", "watermark_overlap": 60.0}
    shop.sql("UPDATE products SET changed = NULL WHERE id = 3", "UPDATE products SET changed = 'infinity' WHERE id = 4")
    first = shop.imported(**marked)
    assert (first["read"], first["read_because"], first["products"]) == ("all", "no import before", 500)
    again = shop.imported(**marked)
    assert (again["status"], again["read"], again["run_id"]) == ("nothing_to_do", "changes", None)
    # all other rows have the newest time
    assert again["products"] == 500
    shop.sql(
        "UPDATE products SET changed = now() - interval '10 days' WHERE id BETWEEN 5 AND 399",
        "DELETE FROM products WHERE id = 8",
    )
    shop.sql("UPDATE products SET title = 'New', changed = now() - interval '30 minutes' WHERE id = 9")
    assert shop.imported(**marked)["changed"] == 395 - 1
    late = "UPDATE products SET title = 'Late', changed = now() - interval '{} seconds' WHERE id = {}"
    shop.sql(late.format(30 * 60 + 30, 10), late.format(30 * 60 + 90, 11))
    done = shop.imported(**marked)
    # 9 again, the one that is late, the one without a time, and the one in the future, which is in quarantine
    assert (done["read"], done["changed"], done["products"]) == ("changes", 1, 4)
    assert done["read_because"].startswith("rows whose changed is at most 60 s older than ")
    assert done["read_because"].endswith(", and rows without one")
    products = shop.products()
    assert [products[name]["title"][:5] for name in ("9", "10", "11")] == ["New", "Late", "Shirt"]
    assert "8" in products
    shop.sql("UPDATE products SET changed = changed - interval '1 year'")
    older = shop.imported(**marked)
    assert (older["read"], older["read_because"]) == ("all", "the newest changed is older than at the last import")
    assert shop.products()["11"]["title"] == "Late"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "complaint"),
    [("modified", "'modified' is no column"), ("hidden", "is of the type boolean; a timestamp")],
)
def test_a_watermark_that_is_no_column_of_times_is_refused(shop: PostgresShop, column: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        shop.imported(watermark=column)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ({"title": "name"}, r"'name' does not exist. Available columns: \['changed', 'colours'"),
        ({"title": "tags"}, "has type array<string>, which cannot feed title"),
        ({"product_id": "changed"}, "has type timestamp, which cannot feed product_id"),
    ],
)
def test_a_missing_column_and_a_column_of_a_wrong_type_are_refused(
    shop: PostgresShop, mapping: dict[str, str], complaint: str
) -> None:
    with pytest.raises(DataContractError, match=complaint):
        shop.imported(mapping=mapping)


@pytest.mark.slow
def test_a_server_that_ends_meanwhile_is_temporary_and_nothing_is_written(
    shop: PostgresShop, postgres: PostgresServer
) -> None:
    others = "title, tags, pictures, photo, hidden, changed, colours, details"
    shop.sql(
        "CREATE FUNCTION slow(n bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT n FROM pg_sleep(0.05)'",
        f"CREATE VIEW slowly AS SELECT slow(id) AS id, {others} FROM products",
    )
    timer = threading.Timer(4, postgres.kill_backends)
    timer.start()
    with pytest.raises(TemporaryFailure, match="the server does not answer or ended the connection"):
        shop.imported(postgres={"table": "slowly"})
    timer.join()
    assert shop.catalog.version("products") == -1
    [row] = shop.rows("runs")
    assert (row["status"], row["error"].split(":")[0]) == ("failed", "TemporaryFailure")
