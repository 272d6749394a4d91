"""The contenders on Spark: this project's scoring stage, its engine in mapInArrow, mlflow's UDF, predict_batch_udf.

A task per file. The result of every pass is collected as an Arrow table. Python workers keep their model between
passes, so that loading it belongs to the warm-up.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from inference_job import Job, Scored, files_of
from inference_model import PlainModel
from inference_profile import QUERY, JvmTime, profiled_udf

from catalog_enrichment.inputs import scaled_copies
from catalog_enrichment.models import compute_types

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"


class OnSpark:
    """A session on local cores, and a timed query per pass."""

    settings: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, job: Job) -> None:
        self.job, self.arrow_rows = job, job.batch
        self.spark = self.session()

    def session(self) -> SparkSession:
        """A session as a user of Spark alone would start it."""
        from pyspark.sql import SparkSession

        from catalog_enrichment.config.load import load_config

        builder = SparkSession.builder.master(f"local[{self.job.workers}]").appName(self.job.contender)
        settings = {
            "spark.driver.memory": load_config(self.job.version.config).spark.driver_memory,
            "spark.sql.execution.arrow.pyspark.enabled": "true",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
        }
        for name, value in (settings | self.settings).items():
            builder = builder.config(name, value)
        return builder.getOrCreate()

    def score(self, folder: Path) -> Scored:
        self.spark.conf.set("spark.sql.files.minPartitionNum", len(files_of(folder)))
        self.spark.conf.set(_ARROW_ROWS, self.arrow_rows)
        products = self.spark.read.parquet(str(folder))
        start = time.monotonic()
        found = self.query(products).toArrow()
        return Scored(time.monotonic() - start, self.predictions(found))

    def query(self, products: DataFrame) -> DataFrame:
        """Return the scores of ``products`` (row, title, description, image)."""
        raise NotImplementedError

    def predictions(self, found: pa.Table) -> pa.Table:
        return found

    def close(self) -> None:
        self.spark.stop()


class OursEager(OnSpark):
    """The scoring stage in fp32: the UDF of `inference.udf` in the session that the jobs start."""

    path = compute_types.FP32
    """Number type of the scores."""

    def __init__(self, job: Job) -> None:
        from catalog_enrichment.config.schema import EnrichConfig
        from catalog_enrichment.inference import udf

        super().__init__(job)
        # as the jobs have it: the engine divides an Arrow batch into forward passes, sorted by length
        self.arrow_rows = EnrichConfig().batch_rows
        compute_types.require(self.path, "cpu")
        self.shipped = udf.ship(self.spark, Path(job.version.artifact), job.version.artifact_hash, self.path)

    def score(self, folder: Path) -> Scored:
        """Score products that were never scored before: no scaled copies of their pictures are kept."""
        shutil.rmtree(Path(self.job.pictures) / scaled_copies.FOLDER, ignore_errors=True)
        if not self.job.profile:
            return super().score(folder)
        self._times = Path(self.job.profile) / folder.name
        self._times.mkdir(parents=True)
        with JvmTime(os.getpid()) as jvm:
            scored = super().score(folder)
        (self._times / QUERY).write_text(json.dumps({"jvm_s": jvm.seconds}))
        return scored

    def session(self) -> SparkSession:
        from catalog_enrichment.config.load import load_config
        from catalog_enrichment.spark import session

        return session.start(load_config(self.job.version.config), self.job.contender)

    def query(self, products: DataFrame) -> DataFrame:
        from catalog_enrichment.config.images import ImagesConfig
        from catalog_enrichment.inference import udf

        limits = ImagesConfig(store=self.job.pictures)
        if self.job.profile:
            score = profiled_udf(self.shipped, limits, self.job.batch, str(self._times))
            found = score("title", "description", "images", "content_hash").alias("found")
            return _with_images(products).select("row", found).select("row", "found.*")
        return udf.scored(_with_images(products), self.shipped, limits, self.job.batch).drop(
            "title", "description", "content_hash"
        )

    def predictions(self, found: pa.Table) -> pa.Table:
        """The candidates of rank 1 as columns. Raises RuntimeError if a product was not scored."""
        columns: dict[str, list[Any]] = {"row": found["row"].to_pylist()}
        for candidates in found["candidates"].to_pylist():
            best = [candidate for candidate in candidates if candidate["rank"] == 1]
            for candidate in best:
                columns.setdefault(candidate["attribute"], []).append(candidate["value"])
                columns.setdefault(f"{candidate['attribute']}_score", []).append(candidate["score"])
            if not best:
                raise RuntimeError(f"{self.job.contender}: a product has no scores")
        return pa.table(columns)


class Ours(OursEager):
    """The scoring stage on the fastest compute type."""

    def __init__(self, job: Job) -> None:
        self.path = compute_types.fastest("cpu")
        super().__init__(job)


class OursAgain(Ours):
    """The scoring stage for products that an earlier version scored: the scaled copies of large pictures are kept."""

    def score(self, folder: Path) -> Scored:
        super().score(folder)
        return OnSpark.score(self, folder)


class OursArrow(OursEager):
    """The same engine in mapInArrow, in the same session."""

    def query(self, products: DataFrame) -> DataFrame:
        candidate = "struct<attribute:string,value:string,rank:int,score:double,attention:double>"
        score = _arrow_scorer(self.shipped, self.job.pictures, self.job.batch)
        return _with_images(products).mapInArrow(score, f"row bigint, candidates array<{candidate}>")


class SparkUdf(OnSpark):
    """`mlflow.pyfunc.spark_udf` on the registered version, in this Python environment."""

    # else mlflow would load the model again in every task, and the warm-up could not take that out of the timed part
    settings = {"spark.python.daemon.module": "inference_daemon"}  # noqa: RUF012

    def __init__(self, job: Job) -> None:
        import mlflow

        super().__init__(job)
        mlflow.set_tracking_uri(job.version.tracking_uri)
        self._predict = mlflow.pyfunc.spark_udf(self.spark, job.version.uri, env_manager="local")

    def query(self, products: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        from catalog_enrichment.models import artifact

        found = products.select("row", self._predict(F.struct("title", "description", "image")).alias("found"))
        columns = [F.col("row")]
        for name in artifact.heads(Path(self.job.version.artifact)):
            best = F.col("found").getField(name)[0]
            columns += [best["value"].alias(name), best["score"].cast("float").alias(f"{name}_score")]
        return found.select(*columns)


class PredictBatchUdf(OnSpark):
    """`pyspark.ml.functions.predict_batch_udf` over the plain loop's model."""

    def __init__(self, job: Job) -> None:
        from pyspark.ml.functions import predict_batch_udf
        from pyspark.sql.types import FloatType, StringType, StructField, StructType

        from catalog_enrichment.models import artifact

        super().__init__(job)
        folder, fields = Path(job.version.artifact), []
        for name in artifact.heads(folder):
            fields += [StructField(name, StringType()), StructField(f"{name}_score", FloatType())]
        self._udf = predict_batch_udf(_make_predict(folder), return_type=StructType(fields), batch_size=job.batch)

    def query(self, products: DataFrame) -> DataFrame:
        found = self._udf("title", "description", "image")
        return products.select("row", found.alias("found")).select("row", "found.*")


def _with_images(products: DataFrame) -> DataFrame:
    """The pictures as the catalog has them: an array of bytes, uri and version, the bytes apart, in its store."""
    from pyspark.sql import functions as F

    none = F.lit(None)
    image = F.struct(
        none.cast("binary").alias("bytes"), none.cast("string").alias("uri"), F.col("picture").alias("version")
    )
    # contents of their own: nothing is scored only once for several products
    content = F.col("row").cast("string").alias("content_hash")
    return products.select("row", content, "title", "description", F.array(image).alias("images"))


def _arrow_scorer(
    model: Any, pictures: str, rows: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(incoming: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from catalog_enrichment.config.images import ImagesConfig
        from catalog_enrichment.inference import engine, udf

        predictor = udf.task_predictor(model.artifact_hash, model.directory(), udf.task_device(), model.numbers)
        waiting: deque[pa.Array] = deque()  # the engine reads a batch ahead

        def undecoded() -> Iterator[engine.UndecodedBatch]:
            for batch in incoming:
                waiting.append(batch["row"])
                yield engine.UndecodedBatch(*(batch[name].to_pylist() for name in ("title", "description", "images")))

        for found in engine.score_batches(predictor, undecoded(), ImagesConfig(store=pictures), rows):
            candidates = udf.to_arrow(found).field("candidates")
            yield pa.RecordBatch.from_arrays([waiting.popleft(), candidates], ["row", "candidates"])

    return score


def _make_predict(folder: Path) -> Callable[[], Callable[..., dict[str, np.ndarray]]]:
    def make() -> Callable[..., dict[str, np.ndarray]]:
        model = PlainModel(folder)

        def predict(title: np.ndarray, description: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
            return model.top(model.predict(title.tolist(), description.tolist(), image.tolist()))

        return predict

    return make
