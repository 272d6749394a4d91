"""Models of MLflow that were made elsewhere, on Spark: loaded on a worker, the same scores as on the driver."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from catalog_enrichment.config.images import StoredImagesConfig
from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.failures import recognised
from catalog_enrichment.models.spec import Head
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.protocol import Asked, Proposer
from catalog_enrichment.proposers.pyfunc import PyfuncProposer, hash_of_model
from catalog_enrichment.proposers.pyfunc_worker import Products, score_batches
from catalog_enrichment.records import Cardinality

from ..sample_catalog import jpeg

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Blue"))
WORDS = Dictionary({"color": COLOR})

CODE = """
import mlflow, pandas as pd

class Colors(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if "poison" in set(model_input["title"]):
            raise RuntimeError("cannot")
        if "package" in set(model_input["category"]):
            import a_package_that_is_missing
        return pd.DataFrame({
            "color": ["Red" if "red" in title else None for title in model_input["title"]],
            "color_score": [0.5 + 0.25 * (image is not None) for image in model_input["image"]],
        })

mlflow.models.set_model(Colors())
"""

SCHEMA = (
    "product_id string, shop string, title string, description string, category string, language string, "
    "images array<struct<uri:string,version:string,bytes:binary>>, content_hash string"
)


def proposer(folder: Path, **changes: Any) -> PyfuncProposer:
    (folder / "code.py").write_text(CODE)
    columns = [ColSpec("string", "title"), ColSpec("string", "category"), ColSpec("binary", "image")]
    with warnings.catch_warnings(action="ignore"):  # mlflow would like an example of the input, and type hints
        mlflow.pyfunc.save_model(
            str(folder / "model"),
            python_model=str(folder / "code.py"),
            signature=ModelSignature(Schema(columns)),
            pip_requirements=[],
        )
    options: dict[str, Any] = {
        "name": "models:/colors/3",
        "folder": folder / "model",
        "model_hash": hash_of_model(folder / "model"),
        "heads": {"color": Head(COLOR.cardinality, COLOR.values)},
        "dictionary": WORDS,
        "columns": AnswersConfig(scores={"color": "color_score"}),
        "inputs": ("title", "image", "category"),
        "calibrations": {},
        "batch_rows": 3,
        "timeout_seconds": 60,
    }
    return PyfuncProposer(**(options | changes))


def test_executors_score_as_the_driver_does(spark: SparkSession, tmp_path: Path) -> None:
    picture = [(None, "v", jpeg((200, 0, 0)))]
    rows = [
        (str(number), "shop", title, None, category, "en", images, title)
        for number, (title, category, images) in enumerate(
            [
                ("red hat", "Hats", picture),
                ("red hat", "Caps", picture),
                ("red hat", "Hats", picture),
                ("blue hat", "Hats", []),
                ("poison", "Hats", []),
                ("red scarf", "Scarves", None),
                (" ", "Hats", []),
            ]
        )
    ]
    made: Proposer = proposer(tmp_path)
    asked = Asked(catalog=cast(Any, None), images=StoredImagesConfig())
    products = spark.createDataFrame(rows, SCHEMA).repartition(1)
    result = made.propose(products, asked)
    assert result.columns[:7] == [name for name in products.columns if name != "images"]
    found = {row["product_id"]: row.asDict(recursive=True) for row in result.collect()}
    pictures = [
        [{"uri": uri, "version": version, "bytes": data} for uri, version, data in row[6] or ()] for row in rows
    ]
    columns = list(zip(*rows, strict=True))
    batch = Products(columns[2], columns[3], pictures, columns[7], columns[4], columns[5])
    model = cast(PyfuncProposer, made).load()
    [expected] = score_batches(model, [batch], StoredImagesConfig(), made.reads)
    assert len(found) == len(rows)
    for number, row in enumerate(expected):
        own = found[str(number)]
        assert [(each["value"], each["score"], each["rank"]) for each in own["candidates"]] == [
            (each.value, each.score, each.rank) for each in row.candidates
        ]
        assert [own[name] for name in ("modality", "image_reason", "error", "detail", "compute_type")] == [
            row.modality,
            row.image_reason,
            row.error,
            row.detail,
            row.compute_type,
        ]
    assert found["0"]["candidates"][0]["score"] == 0.75
    assert found["5"]["candidates"][0]["score"] == 0.5
    assert [found[number]["error"] for number in ("4", "6")] == ["scoring_failed", "empty_title"]

    without_package = [(*row[:2], "hat", None, "package", *row[5:7], str(number)) for number, row in enumerate(rows)]
    other = replace(cast(PyfuncProposer, made), batch_rows=4)  # loaded anew: no call of it has succeeded
    with pytest.raises(Exception, match="a_package_that_is_missing") as raised:
        other.propose(spark.createDataFrame(without_package, SCHEMA).repartition(1), asked).collect()
    error = recognised(raised.value)
    assert isinstance(error, ConfigError)
    assert "models:/colors/3 needs the package a_package_that_is_missing" in str(error)


def test_the_hash_is_of_the_files_that_the_author_logged(tmp_path: Path) -> None:
    made = proposer(tmp_path)
    copy = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    (copy / "registered_model_meta").write_text("model_name: colors")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "code.pyc").write_bytes(b"0")
    assert hash_of_model(copy) == made.model_hash
    (copy / "code.py").write_text(CODE + "\n")
    assert hash_of_model(copy) != made.model_hash
    (copy / "code.py").rename(copy / "other.py")
    assert hash_of_model(copy) != made.model_hash


def test_the_hash_of_the_weights_follows_all_that_makes_the_scores(tmp_path: Path) -> None:
    made = proposer(tmp_path)
    aliases = Dictionary({"color": replace(COLOR, aliases={"de": {"rot": "Red"}})})
    changed = [
        replace(made, model_hash="x"),
        replace(made, dictionary=aliases),
        replace(made, columns=AnswersConfig(columns={"color": "c"})),
        replace(made, calibrations={"color": Calibration(1.5, 0.0)}),
    ]
    assert len({each.weights_hash for each in [made, *changed]}) == 5
    assert replace(made, batch_rows=9, timeout_seconds=9).weights_hash == made.weights_hash
    assert replace(made, inputs=("title",)).preprocessing_hash != made.preprocessing_hash
    assert made.reads == ("category",)
    assert replace(made, dictionary=aliases).reads == ("category", "language")
    assert replace(made, inputs=("title", "language")).reads == ("language",)
