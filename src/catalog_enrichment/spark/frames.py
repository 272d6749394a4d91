"""Work on DataFrames that jobs share: caching, ids of products that every task gets, the size of workers' batches, rows
that the driver streams, bins of scores, and the largest of many groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

FEW_PRODUCTS = 500_000
"""Most ids of products that the driver holds and every task gets: about 50 MB."""

FEW_IN_QUERY = 100
"""Most ids of products that are part of a query; more are sent to the tasks."""

Persist = Callable[["DataFrame"], "DataFrame"]
"""Persists a DataFrame and returns it."""


@contextmanager
def persisted_frames() -> Iterator[Persist]:
    """Give a function that persists DataFrames; they are unpersisted when the block ends, also by an error."""
    frames: list[DataFrame] = []

    def persist(frame: DataFrame) -> DataFrame:
        persisted = api_mode.of(frame.sparkSession).persist(frame)
        frames.append(persisted)
        return persisted

    try:
        yield persist
    finally:
        for frame in frames:
            frame.unpersist()


@contextmanager
def arrow_batch_rows(spark: SparkSession, rows: int) -> Iterator[None]:
    """Run a block whose plans give Python workers at most ``rows`` rows per Arrow batch."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    mode, before = api_mode.of(spark), spark.conf.get(name, "")
    changed = mode.set(name, rows)
    try:
        yield
    finally:
        if changed:
            mode.set(name, str(before))


def empty_frame(spark: SparkSession, schema: StructType) -> DataFrame:
    """Return no rows with the columns of ``schema``. Spark sees that there are none, and leaves out joins to them."""
    columns = ", ".join(f"CAST(NULL AS {field.dataType.simpleString()}) AS `{field.name}`" for field in schema)
    return spark.sql(f"SELECT {columns} LIMIT 0")


def few_ids(products: DataFrame) -> pa.Array | None:
    """Return the distinct ``product_id`` of ``products``; None if they are more than :data:`FEW_PRODUCTS`."""
    ids = products.select("product_id").distinct().limit(FEW_PRODUCTS + 1).toArrow()["product_id"].combine_chunks()
    return None if len(ids) > FEW_PRODUCTS else ids


def with_ids(spark: SparkSession, ids: pa.Array) -> DataFrame:
    """Return a frame with the column ``product_id``, which joins send to every task."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    return F.broadcast(spark.createDataFrame(pa.table({"product_id": ids}), "product_id string"))


def about_products(frame: DataFrame, ids: pa.Array) -> DataFrame:
    """Return the rows of ``frame`` about the products ``ids``. Spark leaves out row groups that have none of them."""
    import pyarrow.compute as pc
    from pyspark.sql import functions as F

    if len(ids) <= FEW_IN_QUERY:
        return frame.where(F.col("product_id").isin(ids.to_pylist()))
    span = pc.min_max(ids).as_py()
    inside = frame.where(F.col("product_id").between(span["min"], span["max"]))
    return inside.join(with_ids(frame.sparkSession, ids), "product_id", "left_semi").select(*frame.columns)


def streamed(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ``frame`` in order, in Arrow batches on the driver, which holds two partitions at a time."""
    import pyarrow as pa

    for row in frame.mapInArrow(_packed, "batch binary").toLocalIterator(prefetchPartitions=True):
        with pa.ipc.open_stream(row["batch"]) as packed:
            yield packed.read_next_batch()


def _packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield every batch in Arrow's stream format, as one row: the task of :func:`streamed`."""
    import pyarrow as pa

    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["batch"])


def bin_of(name: str, bins: int) -> Column:
    """Return as the column ``bin`` in which of ``bins`` equal bins of [0, 1] a column is, from 0; 1 is in the last."""
    from pyspark.sql import functions as F

    return F.least(F.floor(F.col(name) * bins), F.lit(bins - 1)).cast("int").alias("bin")


def largest_groups(groups: DataFrame, limit: int, *first: Column, by: str) -> DataFrame:
    """Return the ``limit`` groups of each ``by`` with most ``size``, equal sizes by ``name``.

    ``first``: orders that go before. ``groups``: ``by``, ``name`` and ``size``, one row per group. Every task drops
    what is not among the largest of its own groups, so that the driver gets few rows however many groups there are.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy(by).orderBy(*first, F.desc("size"), "name")
    return groups.withColumn("place", F.row_number().over(order)).where(F.col("place") <= limit).drop("place")
