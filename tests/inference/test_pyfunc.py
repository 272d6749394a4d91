"""The MLflow model, logged and loaded through a real store: scores, values, decisions and thresholds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
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
from catalog_enrichment.models import artifact, version_files
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
    """A model version without certificates; color has a single value, material several."""
    sample = sample_catalog.build(tmp_path_factory.mktemp("pyfunc") / "sample")
    return sample_catalog.random_artifact(sample, tmp_path_factory.mktemp("artifact"), seed=3)


@pytest.fixture
def version(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model version, to certify."""
    return Path(shutil.copytree(folder, tmp_path / "version"))


PATHS = [(name, path) for name in ("color", "material") for path in Modality]
EVERYTHING: dict[tuple[str, Modality], float | None] = dict.fromkeys(PATHS, 0.0)
"""Thresholds at which every value is written."""


def listings(count: int, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"title": ["red shirt"] * count, "category": APPAREL, "language": "en"} | columns)


def decisions(cell: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    return {(answer["decision"], answer["reason"], answer["threshold"]) for answer in cell}


def certified(folder: Path, thresholds: Mapping[tuple[str, Modality], float | None], **changes: Any) -> None:
    """Write certificates with these thresholds for all attributes and paths, for Apparel in English."""
    scored_by = ScoredBy(
        weights_hash=artifact.weights_hash(folder), preprocessing_hash=artifact.preprocessing_hash(folder),
        max_image_bytes=20_000_000, max_image_pixels=50_000_000, scaled_side=288, compute_type="fp32-cpu",
    )  # fmt: skip
    certificates: list[Certificate] = []
    for name, path in PATHS:
        made = sample_catalog.certificate(name, path, thresholds[name, path], scored_by)
        certificates.append(replace(made, categories=(APPAREL,), **changes))
        if made.threshold is not None:  # of another number type, which this model does not compute in
            certificates.append(replace(certificates[-1], compute_type="bf16-cpu", threshold=0.123))
    version_files.write_certificates(folder, [certificate.to_dict() for certificate in certificates])


def loaded(folder: Path, target: Path) -> Any:
    mlflow.pyfunc.save_model(target, python_model=str(CODE), artifacts={"model": str(folder)}, pip_requirements=[])
    return mlflow.pyfunc.load_model(str(target))


def test_the_mlflow_model_gives_the_predictors_scores(folder: Path, tmp_path: Path) -> None:
    """I8: the scores are the predictor's. More than one chunk; local files and private hosts are not opened."""
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
                unscored = dict.fromkeys(("value", "score", "threshold"))
                assert cell == [unscored | {"decision": "abstain", "reason": "empty_title"}]
                continue
            expected = found[0 if row % 3 == 0 else 1]
            assert [answer["value"] for answer in cell] == [top.value for top in expected]
            assert [answer["score"] for answer in cell] == pytest.approx([top.score for top in expected], abs=1e-5)
            assert decisions(cell) == {("abstain", "no_certificate", None)}


def test_it_decides_as_a_run_does_and_names_the_threshold(version: Path, tmp_path: Path) -> None:
    """Every decision, several values where an attribute has many, and the certificate of the product's path."""
    thresholds = EVERYTHING | {("color", Modality.TEXT_ONLY): 1.0, ("material", Modality.TEXT_ONLY): None}
    certified(version, thresholds, suggest_threshold=0.0)
    picture = sample_catalog.jpeg((200, 20, 30))
    images = [picture, None, picture, "http://127.0.0.1:9/x.jpg", "http://nosuch.invalid/x.jpg"]
    products = listings(5, image=images, category=[APPAREL, APPAREL, "Toys", APPAREL, APPAREL])
    answers = loaded(version, tmp_path / "mlflow").predict(products)
    assert decisions(answers["color"][0]) == {("publish", "certified", 0.0)}
    assert decisions(answers["color"][1]) == {("suggest", "near_miss", 1.0)}
    assert decisions(answers["color"][2]) == {("abstain", "unseen_slice", 0.0)}
    assert decisions(answers["color"][3]) == {("suggest", "near_miss", 1.0)}  # a host that is not allowed
    assert decisions(answers["color"][4]) == {("abstain", "picture_outage", 1.0)}  # it may be there at the next try
    assert decisions(answers["material"][1]) == {("abstain", "no_certificate", None)}
    assert len(answers["color"][0]) == 1
    both = answers["material"][0]
    assert sorted(answer["value"] for answer in both) == ["Cotton", "Wool"]
    assert both[0]["score"] >= both[1]["score"]
    assert {answer["decision"] for answer in both} == {"publish"}


def test_limits_on_pictures_are_those_of_the_certificates(version: Path, tmp_path: Path) -> None:
    """A larger picture is none for the certificates: the product takes the path of products without a picture."""
    thresholds: dict[tuple[str, Modality], float | None] = {
        (name, path): 0.0 if path is Modality.BOTH else 1.0 for name, path in PATHS
    }
    certified(version, thresholds, max_image_pixels=39 * 40, suggest_threshold=None)
    products = listings(2, image=[sample_catalog.jpeg((200, 20, 30), size) for size in (40, 39)])
    answers = loaded(version, tmp_path / "mlflow").predict(products)
    assert [cell[0]["threshold"] for cell in answers["color"]] == [1.0, 0.0]


def test_expired_certificates_write_nothing(version: Path, tmp_path: Path) -> None:
    issued = sample_certificate.ISSUED_AT
    certified(version, EVERYTHING, issued_at=issued.replace(year=2024), expires_at=issued.replace(year=2025))
    [cell] = loaded(version, tmp_path / "mlflow").predict(listings(1))["color"]
    assert decisions(cell) == {("abstain", "certificate_expired", 0.0)}


@pytest.mark.slow
def test_mlflows_spark_udf_and_its_server_give_the_same(version: Path, tmp_path: Path, spark: SparkSession) -> None:
    """The signature's types are those of the answers, in Spark and as JSON."""
    from mlflow.models import convert_input_example_to_serving_input
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from pyspark.sql import functions as F

    from catalog_enrichment.registry import mlflow_model

    target, example = tmp_path / "mlflow", mlflow_model.input_example([])
    certified(version, EVERYTHING)
    mlflow.pyfunc.save_model(
        target, python_model=str(CODE), artifacts={"model": str(version)}, pip_requirements=[],
        signature=mlflow_model.signature(["color", "material"]),
    )  # fmt: skip
    expected = mlflow.pyfunc.load_model(str(target)).predict(example)

    score = mlflow.pyfunc.spark_udf(spark, str(target), env_manager="local")
    rows = spark.createDataFrame(example.reset_index()).withColumn("found", score(F.struct(*example.columns)))
    for row in rows.orderBy("index").collect():
        for name in expected.columns:
            cell, own = [answer.asDict() for answer in row["found"][name]], expected[name][row["index"]]
            for key in ("value", "decision"):
                assert [answer[key] for answer in cell] == [answer[key] for answer in own]
            assert cell[0]["score"] == pytest.approx(own[0]["score"], abs=1e-5)

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
