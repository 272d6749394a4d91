"""Scoring on Spark: ship a resolved model to the executors, score with an Iterator pandas UDF.

The driver resolves the model and ships its files; executors do not use the registry. A Python worker loads a model once
per device, by artifact hash. Its cache is in this importable module because Spark pickles what a UDF's closure
captures: a global of ``__main__`` would be new in every task.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from catalog_enrichment.inference import engine, forward
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.models.predictor import Scorer

_SPARK_TYPES = {str: "string", int: "int", float: "double"}


def spark_type(annotation: Any) -> str:
    """Return the Spark type of a field of :class:`~catalog_enrichment.inference.forward.ScoredRow`, as DDL."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if is_dataclass(annotation):
        fields = (f"{name}:{spark_type(kind)}" for name, kind in get_type_hints(annotation).items())
        return f"struct<{','.join(fields)}>"
    if get_origin(annotation) is list:
        return f"array<{spark_type(arguments[0])}>"
    return spark_type(arguments[0]) if arguments else _SPARK_TYPES[annotation]


SCORED_TYPE = spark_type(forward.ScoredRow)
"""The type of a product's scores."""


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model on the workers; part of the UDF's closure."""

    artifact_hash: str
    folder: str
    numbers: str
    """The number type to compute in (:mod:`~catalog_enrichment.models.compute_types`)."""

    def directory(self) -> Path:
        """Return the folder where Spark unpacked the files on this machine."""
        return api_mode.shipped(self.folder)


def ship(spark: SparkSession, artifact: Path, artifact_hash: str, numbers: str) -> ShippedModel:
    """Send a model's folder to every executor, once per session and hash of its files."""
    shipped = ShippedModel(artifact_hash, f"model-{artifact_hash[:16]}", numbers)
    api_mode.of(spark).ship(artifact, shipped.folder)
    return shipped


def scored(
    products: DataFrame, model: ShippedModel, limits: ImagesConfig, rows: int = 0, without_text: bool = False
) -> DataFrame:
    """Return ``products`` without their pictures, with the columns of SCORED_TYPE added.

    ``products`` has title, description, images, content_hash, and any other columns. ``rows`` is the most products per
    forward pass; 0: as many as suit the worker's device. With ``without_text`` the pictures alone are scored.
    """
    score = scoring_udf(model, limits, rows, without_text)
    with_scores = products.withColumn("scored", score("title", "description", "images", "content_hash"))
    return with_scores.drop("images").select("*", "scored.*").drop("scored")


def scoring_udf(model: ShippedModel, limits: ImagesConfig, rows: int = 0, without_text: bool = False) -> Any:
    """Return the Iterator pandas UDF: (title, description, images, content_hash) -> a struct of SCORED_TYPE, in order.

    It is not deterministic to Spark, so that Spark scores each row once: otherwise it moves a filter on the scores
    below a join before them, and rows that the join drops are scored too.
    """
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    def score(columns: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        predictor = task_predictor(model.artifact_hash, model.directory(), task_device(), model.numbers)
        batches = (engine.UndecodedBatch(*map(list, columns_of_batch)) for columns_of_batch in columns)
        for found in engine.score_batches(predictor, batches, limits, rows, without_text):
            yield as_pandas(to_arrow(found))

    # written out rather than inferred: under `from __future__ import annotations` the hints above are strings
    score.__annotations__ = {"columns": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return pandas_udf(score, returnType=SCORED_TYPE).asNondeterministic()


@cache
def task_predictor(artifact_hash: str, directory: Path, device: str, numbers: str) -> Scorer:  # noqa: ARG001
    """Load the predictor of an artifact, once per process.

    ``artifact_hash`` is the identity: a reused worker never serves an old model. Raises ConfigError if this machine
    should not compute in ``numbers``.
    """
    # fork plus tokenizer threads can deadlock, and a worker has a single core anyway
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from PIL import Image

    from catalog_enrichment.models import compute_types
    from catalog_enrichment.models.predictor import load_predictor

    # a picture with too many pixels gets a reason of its own in place of Pillow's warning
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    compute_types.require(numbers, device)
    predictor = load_predictor(directory, device, numbers)
    # Spark's worker collects garbage after every task, of whatever kind: 0.3 s with torch, if what stays is looked at
    gc.collect()
    gc.freeze()
    return predictor


def task_device() -> str:
    """Return the GPU that Spark gave this task; without GPU scheduling, partitions share the GPUs; without GPUs, the
    CPU."""
    import torch
    from pyspark import TaskContext

    if not torch.cuda.is_available():
        return "cpu"
    task = TaskContext.get()
    given = task.resources().get("gpu") if task else None
    if given:
        return f"cuda:{given.addresses[0]}"
    return f"cuda:{task.partitionId() % torch.cuda.device_count()}" if task else "cuda:0"


def to_arrow(rows: Sequence[forward.ScoredRow]) -> pa.StructArray:
    """Return rows as Arrow, of the type SCORED_TYPE. It goes by columns: no dict is made for a row or a candidate."""
    import numpy as np
    import pyarrow as pa

    lists = [row.candidates for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(candidates) for candidates in lists])]).astype(np.int32)
    flat = [candidate for candidates in lists for candidate in candidates]
    candidates = pa.ListArray.from_arrays(offsets, _struct(forward.ScoredCandidate, flat, {}))
    return _struct(forward.ScoredRow, rows, {"candidates": candidates})


def _struct(kind: type[Any], rows: Sequence[Any], given: dict[str, pa.Array]) -> pa.StructArray:
    """Return the fields of ``rows``, dataclasses of the same ``kind``, with the columns that are ``given``."""
    import pyarrow as pa

    types = {"string": pa.string(), "int": pa.int32(), "double": pa.float64()}
    hints, columns = get_type_hints(kind), dict(given)
    for name in (field.name for field in fields(kind) if field.name not in given):
        columns[name] = pa.array([getattr(row, name) for row in rows], types[spark_type(hints[name])])
    names = [field.name for field in fields(kind)]
    return pa.StructArray.from_arrays([columns[name] for name in names], names)


def as_pandas(structs: pa.StructArray) -> pd.DataFrame:
    """Return a column per field, which pandas holds as it is in Arrow, and Spark takes from it without a copy."""
    import pandas as pd

    columns = {field.name: structs.field(field.name) for field in structs.type}
    return pd.DataFrame({name: pd.Series(pd.arrays.ArrowExtensionArray(column)) for name, column in columns.items()})
