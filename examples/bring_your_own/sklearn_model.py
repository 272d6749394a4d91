"""A scikit-learn model of product attributes, logged as an MLflow pyfunc that needs nothing of this project.

    python examples/bring_your_own/sklearn_model.py products.parquet --attributes colour --name colours \\
        --tracking-uri sqlite:////srv/shop/mlflow.db --artifacts /srv/shop/mlartifacts

The features are TF-IDF of words and of character n-grams in title and description, category and language as one-hot
columns, and a colour histogram of the picture; each attribute has a logistic regression. MLflow stores this file with
the model and runs it where the model is loaded.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

MIN_EXAMPLES = 20
"""Values with fewer labelled products are not learned."""
LEVELS = 8
"""Levels per colour channel: 8 x 8 x 8 bins."""
MAX_SIDE = 96
"""Larger pictures are made smaller first."""
MAX_PIXELS = 50_000_000
"""Pictures with more are not decoded."""
GROUPS = ["category", "language"]


class AttributeModel(mlflow.pyfunc.PythonModel):
    """TF-IDF, one-hot and histogram features with a classifier per attribute."""

    words: TfidfVectorizer
    characters: TfidfVectorizer
    groups: OneHotEncoder
    classifiers: dict[str, LogisticRegression]

    def fit(self, products: pd.DataFrame, labels: dict[str, list[str | None]]) -> AttributeModel:
        """Fit and return the model; see :func:`fit`."""
        products = _completed(products)
        texts = _texts(products)
        self.words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=30_000).fit(texts)
        self.characters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2, max_features=30_000
        ).fit(texts)
        self.groups = OneHotEncoder(handle_unknown="ignore", min_frequency=5).fit(products[GROUPS])
        features, self.classifiers = self.features(products), {}
        for attribute, values in labels.items():
            if len(values) != len(products):
                raise ValueError(f"{attribute}: {len(values)} labels for {len(products)} products")
            known = [value for value, count in Counter(values).items() if value is not None and count >= MIN_EXAMPLES]
            if len(known) < 2:
                raise ValueError(f"{attribute}: fewer than two values have {MIN_EXAMPLES} labelled products")
            rows = np.flatnonzero([value in known for value in values])
            classifier = LogisticRegression(C=10.0, max_iter=500)
            with threadpool_limits(limits=1):  # more threads are slower on sparse rows
                classifier.fit(features[rows], [values[row] for row in rows])
            self.classifiers[attribute] = classifier
        return self

    def features(self, products: pd.DataFrame) -> csr_matrix:
        """Return (N, F) sparse; a row depends on its own product only. ``products``: all columns of the signature."""
        texts = _texts(products)
        histograms = csr_matrix(np.stack([color_histogram(image) for image in products["image"]]))
        groups = self.groups.transform(products[GROUPS]) * 0.5
        return hstack([self.words.transform(texts), self.characters.transform(texts), groups, histograms]).tocsr()

    def load_context(self, context: Any) -> None:
        """Read the fitted parts that :func:`log` stored."""
        self.__dict__.update(joblib.load(context.artifacts["parts"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Return a row per product, in order: for each attribute its likeliest value, and in ATTRIBUTE_score the
        probability of that value."""
        answers = pd.DataFrame(index=model_input.index)
        features = self.features(_completed(model_input)) if len(model_input) else None
        for attribute, classifier in self.classifiers.items():
            shape = (0, len(classifier.classes_))
            probabilities = np.empty(shape) if features is None else classifier.predict_proba(features)
            answers[attribute] = classifier.classes_[probabilities.argmax(axis=1)].astype(object)
            answers[f"{attribute}_score"] = probabilities.max(axis=1)
        return answers


def fit(products: pd.DataFrame, labels: dict[str, list[str | None]]) -> AttributeModel:
    """Return a model that was fitted on labelled products.

    ``products``: title, and perhaps description, image (encoded bytes), category and language. ``labels``: attribute ->
    a value per product; None where it is unknown. Raises ValueError for an attribute with nothing to learn.
    """
    return AttributeModel().fit(products, labels)


def log(model: AttributeModel, name: str, tracking_uri: str, artifacts: str | None = None) -> str:
    """Register the model and return its URI, models:/NAME/VERSION.

    ``artifacts``: folder of the files, for a store without a server (a new experiment is made for it).
    """
    texts = [ColSpec("string", column, required=column == "title") for column in ("title", "description", *GROUPS)]
    answers = [
        column
        for attribute in model.classifiers
        for column in (ColSpec("string", attribute), ColSpec("double", f"{attribute}_score"))
    ]
    signature = ModelSignature(Schema([*texts, ColSpec("binary", "image", required=False)]), Schema(answers))
    mlflow.set_tracking_uri(tracking_uri)
    known = mlflow.get_experiment_by_name(name)
    folder_of_files = Path(artifacts).resolve().as_uri() if artifacts else None
    experiment = known.experiment_id if known else mlflow.create_experiment(name, artifact_location=folder_of_files)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(experiment_id=experiment):
        joblib.dump(model.__dict__, parts := f"{folder}/parts.joblib")
        packages = ("mlflow", "numpy", "pandas", "pillow", "scikit-learn", "scipy")
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=__file__,
            artifacts={"parts": parts},
            signature=signature,
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
            registered_model_name=name,
        )
    return f"models:/{name}/{logged.registered_model_version}"


def color_histogram(image: object) -> np.ndarray:
    """Return (512,): the square root of each colour's share of the picture's centre; 0 without a readable picture."""
    nothing = np.zeros(LEVELS**3)
    if not isinstance(image, bytes | bytearray | memoryview):
        return nothing
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(image)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return nothing
            opened.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded at about this size
            picture = opened.convert("RGB")
    except Exception:  # decoders raise almost any exception on malformed bytes
        return nothing
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    width, height = picture.size
    centre = picture.crop((width // 4, height // 4, width - width // 4, height - height // 4))
    level = (np.asarray(centre) // (256 // LEVELS)).astype(int).reshape(-1, 3)
    counts = np.bincount(level @ [LEVELS**2, LEVELS, 1], minlength=LEVELS**3)
    return np.sqrt(counts / counts.sum())


def _completed(products: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the signature, with empty texts where there are none."""
    columns = products.reindex(columns=["title", "description", "image", *GROUPS])
    texts = columns[["title", "description", *GROUPS]].astype(object)
    return columns.assign(**texts.where(texts.notna(), ""))


def _texts(products: pd.DataFrame) -> list[str]:
    return [f"{title}\n{description}" for title, description in products[["title", "description"]].to_numpy()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path, help="parquet or JSON lines (.jsonl): title, ..., and the attributes")
    parser.add_argument("--attributes", nargs="+", required=True, help="columns with the labels")
    parser.add_argument("--name", required=True, help="name of the registered model")
    parser.add_argument("--tracking-uri", required=True, help="MLflow's store, as mlflow.tracking_uri of the config")
    parser.add_argument("--artifacts", help="folder of the model's files, for a store without a server")
    options = parser.parse_args()
    is_lines = options.products.suffix == ".jsonl"
    products = pd.read_json(options.products, lines=True) if is_lines else pd.read_parquet(options.products)
    labels = products[options.attributes].astype(object)
    labels = labels.where(labels.notna(), None)
    model = fit(products, {attribute: labels[attribute].tolist() for attribute in options.attributes})
    print(log(model, options.name, options.tracking_uri, options.artifacts))


if __name__ == "__main__":
    main()
else:  # MLflow runs this file to load the model
    mlflow.models.set_model(AttributeModel())
