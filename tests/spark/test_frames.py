"""Frames without rows, and frames that a job persists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from catalog_enrichment import contract
from catalog_enrichment.spark.frames import empty_frame, persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("table", ["predictions", "products", "runs"])
def test_an_empty_frame_has_the_contracts_columns(spark: SparkSession, table: str) -> None:
    schema = contract.spark_schema(table)
    frame = empty_frame(spark, schema)
    assert [(f.name, f.dataType.simpleString()) for f in frame.schema] == [
        (f.name, f.dataType.simpleString()) for f in schema
    ]
    assert frame.count() == 0


def test_what_a_job_persists_is_released_also_after_an_error(spark: SparkSession) -> None:
    frames = [spark.range(number) for number in (1, 2)]

    def fail() -> None:
        with persisted_frames() as persist:
            assert all(persist(frame).storageLevel.useMemory for frame in frames)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not any(frame.storageLevel.useMemory for frame in frames)
