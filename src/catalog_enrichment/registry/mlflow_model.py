"""The model as MLflow stores it: files, code, signature, an input example."""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.registry.trained_model import TrainedModel

NAME = "model"
"""Name of the logged model, and of the artifact folder inside it."""
_REQUIREMENTS = ["fsspec", "mlflow", "numpy", "pandas", "pillow", "safetensors", "scipy", "timm"]
_REQUIREMENTS += ["tokenizers", "torch", "transformers", "urllib3"]
"""Packages that `inference/pyfunc.py` needs. This package itself is logged with the model, as code."""


def log_model(trained: TrainedModel) -> str:
    """Log the model in the active MLflow run; returns its URI."""
    import mlflow

    import catalog_enrichment
    from catalog_enrichment.models import artifact

    package = Path(catalog_enrichment.__file__).parent
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature is given, not inferred
        info = mlflow.pyfunc.log_model(
            name=NAME,
            python_model=str(package / "inference" / "pyfunc.py"),
            artifacts={NAME: str(trained.artifact)},
            signature=signature(list(artifact.heads(trained.artifact))),
            input_example=input_example(trained.certificates),
            pip_requirements=pins,
            code_paths=[str(package)],
        )
    return str(info.model_uri)


def signature(attributes: Sequence[str]) -> ModelSignature:
    """In: title, and optional columns. Out: per attribute a list of values, each with score, decision and threshold."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    optional = [ColSpec("string", name, required=False) for name in ("description", "category", "language")]
    optional.insert(1, ColSpec("binary", "image", required=False))
    nullable = {"value": "string", "score": "double", "reason": "string", "threshold": "double"}
    value = Object(
        [
            *(Property(name, kind, required=False) for name, kind in nullable.items()),
            Property("decision", "string"),
        ]
    )
    return ModelSignature(
        Schema([ColSpec("string", "title"), *optional]), Schema([ColSpec(Array(value), name) for name in attributes])
    )


def input_example(certificates: Sequence[Certificate]) -> pd.DataFrame:
    """Two products in a category and a language that a certificate holds for. Invented: listings of merchants do not
    become part of a model.

    The second one has no picture, said by no bytes: MLflow's server does not take null in a column of bytes.
    """
    import pandas as pd
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (32, 32), (20, 30, 90)).save(picture, "JPEG")
    written = next((one for one in certificates if one.threshold is not None), None)
    category, language = (written.categories[0], written.languages[0]) if written else ("", "")
    return pd.DataFrame(
        {
            "title": ["Ladies' scarf in navy blue", "Red leather bag"],
            "description": ["Soft wool, 180 cm long", None],
            "image": [picture.getvalue(), b""],
            "category": [category] * 2,
            "language": [language] * 2,
        }
    )
