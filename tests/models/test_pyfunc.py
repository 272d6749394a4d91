"""The MLflow model, logged and loaded through a real store."""

from __future__ import annotations

import io
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs.images import decode_image
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models import artifact
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.predictor import Predictor

from .conftest import HEADS, SIZE, TEMPERATURES, tiny

CODE = Path(artifact.__file__).with_name("pyfunc.py")


def jpeg() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_mlflow_model_gives_the_predictors_scores(
    tmp_path: Path, net: MultiModalNet, tokenizers: dict[str, TextTokenizer]
) -> None:
    """I8: one predictor, whoever asks."""
    artifact.save(tmp_path / "model", net, tokenizers, tiny(), TEMPERATURES)
    mlflow.pyfunc.save_model(
        tmp_path / "mlflow", python_model=str(CODE), artifacts={"model": str(tmp_path / "model")}, pip_requirements=[]
    )
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "mlflow"))
    (tmp_path / "local.jpg").write_bytes(jpeg())
    # more than one chunk; local files and private hosts are not opened
    images = [jpeg(), None, b"no picture"] * 28 + [jpeg(), str(tmp_path / "local.jpg"), "http://127.0.0.1:9/x.jpg"] * 2
    products = pd.DataFrame(
        {"title": ["navy shirt", None, "red"] * 30, "description": [None, "wool", np.nan] * 30, "image": images},
        index=range(100, 190),
    )
    answers = loaded.predict(products)

    picture = decode_image(jpeg(), SIZE, ImagesConfig()).pixels
    scores = Predictor.load(tmp_path / "model").predict(
        ProductBatch(["navy shirt", None, "red"], [None, "wool", None], [picture, None, None])
    )
    assert answers.index.tolist() == products.index.tolist()
    assert list(answers) == [column for name in HEADS for column in (name, f"{name}_score")]
    for name, head in HEADS.items():
        best = scores.probabilities[name].argmax(axis=1)
        assert answers[name].tolist() == [head.labels[position] for position in best] * 30
        np.testing.assert_allclose(
            answers[f"{name}_score"].astype(float), np.tile(scores.probabilities[name].max(axis=1), 30), atol=1e-5
        )
