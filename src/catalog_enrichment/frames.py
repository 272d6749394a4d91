"""Releases what a job caches: Spark keeps a persisted DataFrame until it is unpersisted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Persist = Callable[["DataFrame"], "DataFrame"]
"""Persists a DataFrame and returns it."""


@contextmanager
def persisted_frames() -> Iterator[Persist]:
    """A function that persists DataFrames; all of them are unpersisted when the block ends, also by an error."""
    frames: list[DataFrame] = []

    def persist(frame: DataFrame) -> DataFrame:
        frames.append(frame.persist())
        return frame

    try:
        yield persist
    finally:
        for frame in frames:
            frame.unpersist()
