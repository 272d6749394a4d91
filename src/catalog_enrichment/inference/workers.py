"""What the workers of a run can compute in. They are asked, since the driver may be another kind of machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from catalog_enrichment.inference.udf import task_device
from catalog_enrichment.models import compute_types
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

TASKS_PER_CORE = 2
"""Tasks that ask, so that every executor very likely gets one. One that gets none looks itself when it scores."""


def refusals_of(spark: SparkSession) -> compute_types.WhyNot:
    """Return the function that says why a worker cannot compute in the number type of a compute type.

    The workers are asked when it is first called for another type than fp32, which every machine computes in, and once
    per Spark session; with a local master the driver is the worker, and no job runs.
    """

    def why_not(compute_type: str) -> str:
        numbers = compute_types.numbers_of(compute_type)
        return _refusals(spark).get(numbers, "") if numbers == compute_types.BF16 else ""

    return why_not


@cache
def _refusals(spark: SparkSession) -> dict[str, str]:
    """Return number type -> why a worker cannot compute in it."""
    mode = api_mode.of(spark)
    return dict(own_refusals()) if mode.runs_here() else ask(spark, TASKS_PER_CORE * mode.parallelism())


def ask(spark: SparkSession, tasks: int) -> dict[str, str]:
    """Return what the machines of so many tasks refuse; of several reasons for a number type, the first by name."""
    answers = spark.range(0, tasks, 1, tasks).mapInArrow(_answer, "numbers string, reason string").distinct().collect()
    return dict(sorted(((row["numbers"], row["reason"]) for row in answers), reverse=True))


def _answer(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield what this machine refuses, one batch for each of ``batches``: the task of :func:`ask`."""
    import pyarrow as pa

    for _ in batches:
        columns = list(zip(*own_refusals(), strict=True)) or [(), ()]
        yield pa.RecordBatch.from_arrays([pa.array(list(c), pa.string()) for c in columns], ["numbers", "reason"])


def own_refusals() -> Iterator[tuple[str, str]]:
    """Yield the number types that this machine cannot compute in, with the reason."""
    device = task_device()
    for numbers in compute_types.FASTEST_FIRST:
        if problem := compute_types.why_not(numbers, device):
            yield numbers, problem
