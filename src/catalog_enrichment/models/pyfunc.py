"""The model for users of MLflow: a models-from-code file that wraps the predictor.

Log it with ``mlflow.pyfunc.log_model(python_model=THIS FILE, artifacts={"model": FOLDER})``. In: columns title,
description and image (encoded bytes, an http(s) URI, or null). Out: per product and attribute the top value and its
calibrated probability. Certificates are not applied here: the enrichment job decides what is written to a catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import ensemble

_CHUNK = 64
_LIMITS = ImagesConfig()
"""The defaults: public web servers, and no local files, since whoever asks a served model names the picture."""


class AttributeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        self._predictor = ensemble.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """One row per product, in order: ``ATTRIBUTE`` and ``ATTRIBUTE_score`` for every attribute of the model.

        Only the column title is required.
        """
        model_input = model_input.reindex(columns=["title", "description", "image"])
        starts = range(0, max(len(model_input), 1), _CHUNK)
        chunks = [self._score(model_input.iloc[start : start + _CHUNK]) for start in starts]
        return pd.concat(chunks).set_axis(model_input.index)

    def _score(self, products: pd.DataFrame) -> pd.DataFrame:
        scores = self._predictor.predict(
            ProductBatch(
                _present(products["title"]),
                _present(products["description"]),
                [self._pixels(data) for data in _present(products["image"])],
            )
        )
        columns: dict[str, Any] = {}
        for name, probabilities in scores.probabilities.items():
            labels = np.array(self._predictor.heads[name].labels, dtype=object)
            columns[name] = labels[probabilities.argmax(axis=1)]
            columns[f"{name}_score"] = probabilities.max(axis=1)
        return pd.DataFrame(columns)

    def _pixels(self, data: bytes | str | None) -> np.ndarray | None:
        if data is None:
            return None
        image = {"uri": data} if isinstance(data, str) else {"bytes": data}
        return first_usable([image], self._predictor.image_size, _LIMITS).pixels


def _present(column: pd.Series[Any]) -> Sequence[Any]:
    """The column with None for every null value of pandas."""
    return [None if pd.isna(value) else value for value in column]


mlflow.models.set_model(AttributeModel())
