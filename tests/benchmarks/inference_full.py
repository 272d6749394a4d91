"""The contenders that a newcomer would have: built as the documentation of each framework shows it.

They share nothing with this project but the network: pictures are decoded in full and stretched by Pillow, texts go
through the tokenizer of transformers, batches are in the order of the files. So their scores differ from the others',
and only their number is compared.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from inference_frameworks import Daft, Ray, Worker, daft_type, scored_columns
from inference_job import Job
from inference_model import PlainModel
from inference_plain import Plain
from inference_spark import OnSpark

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from catalog_enrichment.models.network import ModelInputs


class FullModel(PlainModel):
    """A model version with the inputs of a tutorial: no draft mode of JPEG, no letterbox, no cleaning of texts."""

    def __init__(self, folder: Path, bf16: bool = False) -> None:
        from transformers import AutoTokenizer

        from catalog_enrichment.models import artifact

        super().__init__(folder, bf16)
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "text" / artifact.TOKENIZER)

    def inputs(
        self, titles: Sequence[str | None], descriptions: Sequence[str | None], pictures: Sequence[bytes | None]
    ) -> ModelInputs:
        from PIL import Image

        side = (self.spec.image.size, self.spec.image.size)
        opened = [Image.open(io.BytesIO(data or b"")).convert("RGB").resize(side) for data in pictures]
        return self.inputs_of_pixels(titles, descriptions, np.stack([np.asarray(picture) for picture in opened]))

    def inputs_of_pixels(
        self, titles: Sequence[str | None], descriptions: Sequence[str | None], pixels: np.ndarray
    ) -> ModelInputs:
        """Normalise ``pixels``, uint8 (B, S, S, 3), and tokenize."""
        import torch

        from catalog_enrichment.models.network import ModelInputs
        from catalog_enrichment.models.text_encoders import Tokens

        mean, std = (torch.tensor(given)[:, None, None] for given in (self.spec.image.mean, self.spec.image.std))
        normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        texts = self._tokenizer(
            [title or "" for title in titles],
            [description or "" for description in descriptions],
            truncation=True,
            max_length=self.spec.text.max_length,
            padding=True,
            return_tensors="pt",
        )
        present = torch.ones(len(pixels), dtype=torch.bool)
        tokens = Tokens(texts["input_ids"], texts["attention_mask"], texts["token_type_ids"], present)
        return ModelInputs({"text": (tokens,)}, normalised, present)


class PlainFull(Plain):
    """The plain loop of a tutorial, in a process per core."""

    model = FullModel


class SparkUdfFull(OnSpark):
    """`mlflow.pyfunc.spark_udf` on a model that a user would log: the plain loop of a tutorial. Each task loads it."""

    def __init__(self, job: Job) -> None:
        import mlflow

        super().__init__(job)
        uri = Path(job.answer).with_name("spark-udf-full")
        if not uri.exists():
            mlflow.pyfunc.save_model(uri, python_model=logged_model(job), artifacts={"model": job.version.artifact})
        self._predict = mlflow.pyfunc.spark_udf(
            self.spark, str(uri), result_type=self.result_type(), env_manager="local"
        )

    def result_type(self) -> str:
        from catalog_enrichment.models import artifact

        return ", ".join(
            f"{name} string, {name}_score float" for name in artifact.heads(Path(self.job.version.artifact))
        )

    def query(self, products: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        found = self._predict(F.struct("title", "description", "image"))
        return products.select("row", found.alias("found")).select("row", "found.*")


def logged_model(job: Job) -> Any:
    """Return the model to log: a PythonModel that scores ``job.batch`` products at a time."""
    import mlflow

    size = job.batch

    class Logged(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def load_context(self, context: Any) -> None:
            self._model = FullModel(Path(context.artifacts["model"]))

        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
            import pandas as pd

            parts = [model_input.iloc[start : start + size] for start in range(0, len(model_input), size)]
            names = ("title", "description", "image")
            tops = [self._model.top(self._model.predict(*(part[name].tolist() for name in names))) for part in parts]
            return pd.concat([pd.DataFrame(top) for top in tops], ignore_index=True)

    return Logged()


class RayFull(Ray):
    """Ray Data as its guide to batch inference has it: read_parquet, then map_batches of a class."""

    blocks_of_batches = False

    @property
    def scorer(self) -> type:
        return RayFullScorer


class RayFullScorer:
    """An actor."""

    def __init__(self, worker: Worker) -> None:
        self._model = worker.ready_model(FullModel)

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = (batch[name].to_pylist() for name in ("title", "description", "image"))
        return pa.table({"row": batch["row"], **scored_columns(self._model, *columns)})


class DaftFull(Daft):
    """Daft as its guide to multimodal data has it: its own decoding and scaling of pictures, then a class."""

    def pictures(self, products: Any) -> Any:
        import daft

        side = FullModel(Path(self._job.version.artifact)).spec.image.size
        decoded = daft.functions.decode_image(products["image"], mode=daft.ImageMode.RGB)
        return daft.functions.resize(decoded, w=side, h=side).cast(
            daft.DataType.tensor(daft.DataType.uint8(), (side, side, 3))
        )

    def scorer_class(self, names: list[str]) -> Any:
        import daft

        @daft.cls(max_concurrency=self._job.workers, use_process=True)
        class DaftFullScorer:
            def __init__(self, worker: Worker) -> None:
                self._worker, self._model = worker, worker.ready_model(FullModel)

            @daft.method.batch(return_dtype=daft_type(names), batch_size=self._job.batch)
            def score(self, title: daft.Series, description: daft.Series, image: daft.Series) -> Any:
                pixels = np.stack([np.asarray(picture) for picture in image.to_pylist()])
                inputs = self._model.inputs_of_pixels(title.to_pylist(), description.to_pylist(), pixels)
                columns = scored_columns(self._model, inputs=inputs)
                self._worker.note_end()
                return pa.StructArray.from_arrays(list(columns.values()), list(columns))

        return DaftFullScorer
