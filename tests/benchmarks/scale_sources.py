"""What an import of 1% of a source costs, against the first: a Delta table by its change data feed, PostgreSQL by a
watermark.

    python tests/benchmarks/scale_sources.py --products 1000000 --sources delta postgres
    python tests/benchmarks/scale_sources.py --products 20000                                  (a try)

The products are those of scale_world.py. Spark's session is started before the first step. Each source has a catalog of
its own in one process; the last line is one JSON object: seconds, stages and peak memory of every step, and the ratio.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import scale_world as world
from benchmark import arguments, print_json
from scale import CHANGED, MEMORY, Steps

from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import open_context
from catalog_enrichment.ingest.job import import_products

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from postgres_server import PostgresServer

LIMIT = 0.10
"""Most seconds of an import of 1%, as a share of the first."""

Change = Callable[[], None]
"""Changes 1% of the products of a source."""


def delta_source(root: Path, products: int) -> tuple[str, Change]:
    """Return the config's lines of a Delta table with the products, and a function that changes 1% of them."""
    from deltalake import DeltaTable, write_deltalake

    place, feed = str(root / "table"), {"delta.enableChangeDataFeed": "true"}
    for table in _tables(root):
        write_deltalake(place, table, mode="append", configuration=feed)

    def change() -> None:
        every = round(1 / CHANGED)
        table = DeltaTable(place)
        table.update(updates={"title": "concat(title, ' new')"}, predicate=f"number % {every} = 0")

    return 'format = "delta"\npath = "table"\nread_changes = true', change


def postgres_source(root: Path, products: int) -> tuple[str, Change]:
    """Return the same for a table of a PostgreSQL server, which is started here."""
    import psycopg

    server = PostgresServer(root / "server")
    server.start()
    uri = server.new_database("shop")
    columns = "number bigint, updated_at timestamptz, " + ", ".join(
        f"{name} text"
        for name in ("product_id", "title", "description", "shop", "category", "picture", *world.ATTRIBUTES)
    )
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE products ({columns})")  # type: ignore[call-overload]
        for table in _tables(root):
            names = ", ".join(table.column_names)
            with connection.cursor() as cursor, cursor.copy(f"COPY products ({names}) FROM STDIN") as copy:  # type: ignore[call-overload]
                for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                    copy.write_row(row)
        connection.execute("CREATE INDEX ON products (updated_at)")

    def change() -> None:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(
                "UPDATE products SET title = title || ' new', updated_at = now() WHERE mod(number, %s) = 0",
                [round(1 / CHANGED)],
            )

    lines = f'format = "postgres"\npath = "{uri}"\nwatermark = "updated_at"\n[source.postgres]\ntable = "products"'
    return lines, change


def _tables(root: Path) -> list[pa.Table]:
    """Return the snapshot's files, with the product's number as a column, as mapped tables."""
    tables = []
    for file in sorted((root / world.SOURCE).glob("*.parquet")):
        table = pq.read_table(file)
        numbers = [int(name[1:]) for name in table["product_id"].to_pylist()]
        tables.append(table.append_column("number", pa.array(numbers, pa.int64())))
    return tables


SOURCES = {"delta": delta_source, "postgres": postgres_source}


def measure(name: str, products: int, root: Path) -> dict[str, Any]:
    """Return what the first import, an import of 1% and one without changes cost."""
    world.write_config(root, MEMORY)
    world.write_snapshot(root, products)
    lines, change = SOURCES[name](root, products)
    whole = world.CONFIG.replace('format = "parquet"\npath = "feed"', lines)
    (root / "config.toml").write_text(whole)
    config = load_config(root / "config.toml", [f"spark.driver_memory={MEMORY}"])
    step = Steps(products)
    context = step("session", lambda: open_context(config, "scale_sources"))
    step("warm_up", lambda: context.spark.range(1000).selectExpr("sum(id)").collect())
    step("import_first", lambda: import_products(context))
    change()
    changed = step("import_changes", lambda: import_products(context))
    step("import_unchanged", lambda: import_products(context))
    ratio = step.costs["import_changes"]["seconds"] / step.costs["import_first"]["seconds"]
    counts = {key: changed[key] for key in ("read", "read_because", "products", "changed")}
    return {"steps": step.costs, "import_changes": counts, "ratio": round(ratio, 3)}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--sources", nargs="+", choices=sorted(SOURCES), default=sorted(SOURCES))
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for name in args.sources:
        root = Path(tempfile.mkdtemp(prefix="scale-sources-"))
        root.chmod(0o755)  # the server runs as another user
        found[name] = measure(name, args.products, root)
        shutil.rmtree(root, ignore_errors=True)
    print_json({"products": args.products, "limit": LIMIT, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
