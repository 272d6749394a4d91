"""The MLflow model, logged and loaded through a real store: scores, values, decisions and thresholds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.inference import engine
from catalog_enrichment.inputs.images import decode_image
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.precision.certificate import Certificate, ScoredBy
from catalog_enrichment.precision.units import top_candidates
from catalog_enrichment.records import Modality

from .. import sample_catalog, sample_certificate
from ..postgres_server import free_port

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CODE = Path(engine.__file__).with_name("pyfunc.py")
APPAREL = "Apparel/Topwear"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model version without certificates; color has one value, material several."""
    sample = sample_catalog.build(tmp_path_factory.mktemp("pyfunc") / "sample")
    return sample_catalog.random_artifact(sample, tmp_path_factory.mktemp("artifact"), seed=3)


def certified(folder: Path, thresholds: Mapping[tuple[str, Modality], float | None], **changes: Any) -> None:
    """Write certificates with these thresholds for all attributes and paths, for Apparel in English."""
    scored_by = ScoredBy(
        weights_hash=artifact.weights_hash(folder), preprocessing_hash=artifact.preprocessing_hash(folder),
        max_image_bytes=20_000_000, max_image_pixels=50_000_000, compute_type="fp32-cpu",
    )  # fmt: skip
    certificates: list[Certificate] = []
    for name in ("color", "material"):
        for path in Modality:
            one = sample_catalog.certificate(name, path, thresholds[name, path], scored_by)
            certificates.append(replace(one, categories=(APPAREL,), **changes))
            if one.threshold is not None:  # of another number type, which this model does not compute in
                certificates.append(replace(certificates[-1], compute_type="bf16-cpu", threshold=0.123))
    artifact.write_certificates(folder, [one.to_dict() for one in certificates])


def loaded(folder: Path, target: Path) -> Any:
    mlflow.pyfunc.save_model(target, python_model=str(CODE), artifacts={"model": str(folder)}, pip_requirements=[])
    return mlflow.pyfunc.load_model(str(target))


def test_the_mlflow_model_gives_the_predictors_scores(folder: Path, tmp_path: Path) -> None:
    """I8: one predictor, whoever asks. More than one chunk; local files and private hosts are not opened."""
    picture = sample_catalog.jpeg((200, 20, 30))
    (tmp_path / "local.jpg").write_bytes(picture)
    elsewhere = [picture, str(tmp_path / "local.jpg"), "http://127.0.0.1:9/x.jpg"]
    products = pd.DataFrame(
        {
            "title": ["red shirt", None, "green cotton"] * 30,
            "description": [None, "wool", np.nan] * 30,
            "image": [picture, None, b"no picture"] * 28 + elsewhere * 2,
        },
        index=range(100, 190),
    )
    answers = loaded(folder, tmp_path / "mlflow").predict(products)
    assert answers.index.tolist() == products.index.tolist()

    predictor = Predictor.load(folder)
    assert list(answers) == list(predictor.heads)
    pixels = decode_image(picture, predictor.square, ImagesConfig()).pixels
    batch = ProductBatch(["red shirt", "green cotton"], [None, None], [pixels, None])
    scores = predictor.predict(batch)
    for name, head in predictor.heads.items():
        found = top_candidates(scores.probabilities[name], head.labels, head.cardinality)
        for row, cell in enumerate(answers[name]):
            if row % 3 == 1:  # without a title
                assert cell == [
                    {"value": None, "score": None, "decision": "abstain", "reason": "empty_title", "threshold": None}
                ]
                continue
            expected = found[0 if row % 3 == 0 else 1]
            assert [one["value"] for one in cell] == [one.value for one in expected]
            assert [one["score"] for one in cell] == pytest.approx([one.score for one in expected], abs=1e-5)
            assert {(one["decision"], one["reason"], one["threshold"]) for one in cell} == {
                ("abstain", "no_certificate", None)
            }


def test_it_decides_as_a_run_does_and_names_the_threshold(folder: Path, tmp_path: Path) -> None:
    """Every decision, several values where an attribute has many, and the certificate of the product's path."""
    version = Path(shutil.copytree(folder, tmp_path / "version"))
    certified(
        version,
        {
            ("color", Modality.BOTH): 0.0,
            ("color", Modality.TEXT_ONLY): 1.0,
            ("material", Modality.BOTH): 0.0,
            ("material", Modality.TEXT_ONLY): None,
        },
        suggest_threshold=0.0,
    )
    picture = sample_catalog.jpeg((200, 20, 30))
    products = pd.DataFrame(
        {
            "title": ["red shirt"] * 5,
            "image": [picture, None, picture, "http://127.0.0.1:9/x.jpg", "http://nosuch.invalid/x.jpg"],
            "category": [APPAREL, APPAREL, "Toys", APPAREL, APPAREL],
            "language": ["en"] * 5,
        }
    )
    answers = loaded(version, tmp_path / "mlflow").predict(products)

    def decided(name: str, row: int) -> set[tuple[Any, ...]]:
        return {(one["decision"], one["reason"], one["threshold"]) for one in answers[name][row]}

    assert decided("color", 0) == {("publish", "certified", 0.0)}
    assert decided("color", 1) == {("suggest", "near_miss", 1.0)}
    assert decided("color", 2) == {("abstain", "unseen_slice", 0.0)}
    assert decided("color", 3) == {("suggest", "near_miss", 1.0)}  # the host is not allowed: there is no picture
    assert decided("color", 4) == {("abstain", "picture_outage", 1.0)}  # it may be there at the next try
    assert decided("material", 1) == {("abstain", "no_certificate", None)}
    assert len(answers["color"][0]) == 1
    both = answers["material"][0]
    assert sorted(one["value"] for one in both) == ["Cotton", "Wool"]
    assert both[0]["score"] >= both[1]["score"]
    assert {one["decision"] for one in both} == {"publish"}


def test_limits_on_pictures_are_those_of_the_certificates(folder: Path, tmp_path: Path) -> None:
    """A larger picture is none for the certificates: the product takes the path of products without one."""
    version = Path(shutil.copytree(folder, tmp_path / "version"))
    thresholds: dict[tuple[str, Modality], float | None] = {
        (name, path): 0.0 if path is Modality.BOTH else 1.0 for name in ("color", "material") for path in Modality
    }
    certified(version, thresholds, max_image_pixels=39 * 40, suggest_threshold=None)
    products = pd.DataFrame(
        {
            "title": ["red shirt"] * 2,
            "image": [sample_catalog.jpeg((200, 20, 30), size) for size in (40, 39)],
            "category": [APPAREL] * 2,
            "language": ["en"] * 2,
        }
    )
    answers = loaded(version, tmp_path / "mlflow").predict(products)
    assert [cell[0]["threshold"] for cell in answers["color"]] == [1.0, 0.0]


def test_expired_certificates_write_nothing(folder: Path, tmp_path: Path) -> None:
    version = Path(shutil.copytree(folder, tmp_path / "version"))
    issued = sample_certificate.ISSUED_AT
    certified(
        version,
        {(name, path): 0.0 for name in ("color", "material") for path in Modality},
        issued_at=issued.replace(year=2024),
        expires_at=issued.replace(year=2025),
    )
    products = pd.DataFrame({"title": ["red shirt"], "category": [APPAREL], "language": ["en"]})
    [cell] = loaded(version, tmp_path / "mlflow").predict(products)["color"]
    assert [(one["decision"], one["reason"]) for one in cell] == [("abstain", "certificate_expired")]


@pytest.mark.slow
def test_mlflows_spark_udf_and_its_server_give_the_same(folder: Path, tmp_path: Path, spark: SparkSession) -> None:
    """The signature's types are those of the answers, in Spark and as JSON."""
    from mlflow.models import convert_input_example_to_serving_input
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from pyspark.sql import functions as F

    from catalog_enrichment.registry import mlflow_model

    version, target = Path(shutil.copytree(folder, tmp_path / "version")), tmp_path / "mlflow"
    thresholds: dict[tuple[str, Modality], float | None] = {
        (name, path): 0.0 for name in ("color", "material") for path in Modality
    }
    certified(version, thresholds)
    example = mlflow_model.input_example([])
    mlflow.pyfunc.save_model(
        target, python_model=str(CODE), artifacts={"model": str(version)}, pip_requirements=[],
        signature=mlflow_model.signature(["color", "material"]),
    )  # fmt: skip
    expected = mlflow.pyfunc.load_model(str(target)).predict(example)

    score = mlflow.pyfunc.spark_udf(spark, str(target), env_manager="local")
    rows = spark.createDataFrame(example.reset_index()).withColumn("found", score(F.struct(*example.columns)))
    for row in rows.orderBy("index").collect():
        for name in expected.columns:
            cell = [one.asDict() for one in row["found"][name]]
            assert [one["value"] for one in cell] == [one["value"] for one in expected[name][row["index"]]]
            assert [one["decision"] for one in cell] == [one["decision"] for one in expected[name][row["index"]]]
            assert cell[0]["score"] == pytest.approx(expected[name][row["index"]][0]["score"], abs=1e-5)

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(target), "-p", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow starts uvicorn by name
    environment = os.environ | {"PATH": path}
    served = subprocess.Popen([*command, "--env-manager", "local"], start_new_session=True, env=environment)
    try:
        ScoringServerClient("127.0.0.1", port).wait_server_ready(timeout=90, scoring_server_proc=served)
        asked = convert_input_example_to_serving_input(example).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", asked, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answers = json.load(answer)["predictions"]
        assert [row["color"][0]["value"] for row in answers] == [cell[0]["value"] for cell in expected["color"]]
        assert [len(row["material"]) for row in answers] == [len(cell) for cell in expected["material"]]
    finally:
        os.killpg(served.pid, signal.SIGTERM)
        served.wait(30)
