"""Scoring on Spark: ship a resolved model to the executors, score with an Iterator pandas UDF.

The driver resolves the model and ships its files; executors do not use the registry.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from catalog_enrichment.inference import engine

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from catalog_enrichment.config.schema import ImagesConfig

_SPARK_TYPES = {str: "string", int: "int", float: "double"}


def spark_type(annotation: Any) -> str:
    """The Spark type of a field of :class:`~catalog_enrichment.inference.engine.ScoredRow`, as DDL."""
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if is_dataclass(annotation):
        fields = (f"{name}:{spark_type(kind)}" for name, kind in get_type_hints(annotation).items())
        return f"struct<{','.join(fields)}>"
    if get_origin(annotation) is list:
        return f"array<{spark_type(arguments[0])}>"
    return spark_type(arguments[0]) if arguments else _SPARK_TYPES[annotation]


SCORED_TYPE = spark_type(engine.ScoredRow)
"""One product's scores, or why it has none."""


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """What a worker needs to find its model; part of the UDF's closure."""

    artifact_hash: str
    folder: str

    def directory(self) -> Path:
        """Where Spark unpacked the files on this machine."""
        from pyspark import SparkFiles

        return Path(SparkFiles.getRootDirectory()) / self.folder


def ship(spark: SparkSession, artifact: Path, artifact_hash: str) -> ShippedModel:
    """Send the artifact's folder to every executor, once per session and hash."""
    shipped = ShippedModel(artifact_hash, f"model-{artifact_hash[:16]}")
    already = {str(uri).partition("#")[2] for uri in spark.sparkContext.listArchives}
    if shipped.folder not in already:
        archive = shutil.make_archive(tempfile.mkdtemp(prefix="catalog-enrichment-") + "/model", "zip", artifact)
        spark.sparkContext.addArchive(f"{archive}#{shipped.folder}")
    return shipped


def scored(products: DataFrame, model: ShippedModel, limits: ImagesConfig) -> DataFrame:
    """``products`` (title, description, images, ...) without its pictures, with the columns of SCORED_TYPE added."""
    from pyspark.sql import functions as F

    score = scoring_udf(model, limits)
    with_scores = products.withColumn("scored", score(F.col("title"), F.col("description"), F.col("images")))
    return with_scores.drop("images").select("*", "scored.*").drop("scored")


def scoring_udf(model: ShippedModel, limits: ImagesConfig) -> Any:
    """The Iterator pandas UDF: (title, description, images) -> one struct of SCORED_TYPE per row, in input order."""
    from pyspark.sql.functions import pandas_udf

    def score(columns: Iterator[tuple[pd.Series, pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        from catalog_enrichment.inference import worker

        predictor = worker.predictor(model.artifact_hash, model.directory(), worker.task_device())
        batches = (engine.UndecodedBatch(*map(list, columns_of_batch)) for columns_of_batch in columns)
        for rows in engine.score_batches(predictor, batches, limits):
            yield pd.DataFrame([asdict(row) for row in rows], columns=engine.COLUMNS)

    # written out rather than inferred: under `from __future__ import annotations` the hints above are strings
    score.__annotations__ = _udf_annotations()
    return pandas_udf(score, returnType=SCORED_TYPE)


def _udf_annotations() -> dict[str, Any]:
    import pandas as pd

    return {
        "columns": Iterator[tuple[pd.Series, pd.Series, pd.Series]],
        "return": Iterator[pd.DataFrame],
    }
