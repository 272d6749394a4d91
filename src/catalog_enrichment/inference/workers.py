"""What the workers of a run can compute in. They are asked, since the driver may be another kind of machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from catalog_enrichment.inference.udf import task_device
from catalog_enrichment.models import compute_types

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

TASKS_PER_CORE = 2
"""Tasks that ask, so that every executor very likely gets one. One that gets none looks itself when it scores."""


def refusals_of(spark: SparkSession) -> compute_types.WhyNot:
    """Return the function that says why a worker cannot compute in the number type of a compute type.

    The workers are asked when it is first called for another type than fp32, which every machine computes in, and once
    per Spark application; with a local master the driver is the worker, and no job runs.
    """

    def why_not(compute_type: str) -> str:
        numbers = compute_types.numbers_of(compute_type)
        return _refusals(spark.sparkContext).get(numbers, "") if numbers == compute_types.BF16 else ""

    return why_not


@cache
def _refusals(context: SparkContext) -> dict[str, str]:
    """Return number type -> why a worker cannot compute in it."""
    if context.master.startswith("local") and not context.master.startswith("local-cluster"):
        return dict(own_refusals())
    return ask(context, TASKS_PER_CORE * max(context.defaultParallelism, 1))


def ask(context: SparkContext, tasks: int) -> dict[str, str]:
    """Return what the machines of so many tasks refuse; of several reasons for a number type, the first by name."""
    found = context.parallelize(range(tasks), tasks).mapPartitions(own_refusals).distinct().collect()
    return dict(sorted(found, reverse=True))


def own_refusals(_numbers: Iterable[int] = ()) -> Iterator[tuple[str, str]]:
    """Yield the number types that this machine cannot compute in, with the reason."""
    device = task_device()
    for numbers in compute_types.FASTEST_FIRST:
        if problem := compute_types.why_not(numbers, device):
            yield numbers, problem
