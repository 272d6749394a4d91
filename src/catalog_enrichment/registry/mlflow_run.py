"""What is logged in MLflow: a run that lasts as long as its training and gets the losses as they come, its artifacts,
and the model with its files, code, signature and an input example."""

from __future__ import annotations

import importlib.metadata
import io
import time
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from catalog_enrichment import __version__
from catalog_enrichment.masking import masked
from catalog_enrichment.monitoring import logs
from catalog_enrichment.proposers import versions as proposers
from catalog_enrichment.registry.trained_model import TrainedModel, model_card

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.precision.certified_recall import HeldOutDecision

HELD_OUT = "test_decisions.parquet"
"""Artifact with a row per labelled product of the test fold and attribute, as :class:`HeldOutDecision`."""

LABELLED = "labelled_products.parquet"
"""Artifact with the labelled products that a training read (`TrainedModel.labelled`)."""

LINEAGE = "lineage.json"
"""Artifact with `TrainedModel.lineage`."""

MODEL = "model"
"""Name of the logged model, and of the artifact folder inside it."""

_REQUIREMENTS = ["fsspec", "mlflow", "numpy", "pandas", "pillow", "safetensors", "scipy", "timm"]
_REQUIREMENTS += ["tokenizers", "torch", "transformers", "urllib3"]
"""Packages that `inference/pyfunc.py` needs. This package itself is logged with the model, as code."""

_PATIENCE_SECONDS = 60.0
"""After a store did not take the losses of an epoch, those of later epochs are kept for so long before the next try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStart:
    """The facts about a run when it starts."""

    name: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    recipe: str = ""
    job: str = ""
    """The job that starts it; empty for a part of another run."""
    parent: str = ""
    """Id of the run that it is a part of."""
    comparison: str = ""

    def tags(self) -> dict[str, str]:
        """Return the run's tags: who and what started it, as MLflow's page shows it, the recipe and the release."""
        from mlflow.tracking.context.registry import resolve_tags

        source = {"mlflow.source.name": self.job, "mlflow.source.type": "JOB"} if self.job else {}
        own = {"recipe": self.recipe, "comparison": self.comparison, "mlflow.parentRunId": self.parent}
        shared = {"mlflow.source.name", "mlflow.source.type", "mlflow.user", "mlflow.source.git.commit"}
        found = {name: value for name, value in resolve_tags().items() if name in shared}  # not those of an outer run
        return found | source | {n: v for n, v in own.items() if v} | {"release": __version__}


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """An MLflow run and the model that it logged."""

    run_id: str
    model_uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRun:
    """The facts that are logged about one model of a comparison. The model itself is neither stored nor registered."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    seconds: float = 0.0
    """Duration of its fits."""
    steps: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Step (an epoch, a share of the labels in thousandths) -> metrics."""
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonRun:
    """The facts that are logged about a comparison beside its models."""

    name: str
    started_at: datetime
    files: Sequence[Path]
    about: Mapping[str, Any]


class MlflowRun:
    """A run that has begun; as a context manager it ends as FINISHED, or as FAILED with the error as a tag.

    Live numbers are for people who look at MLflow meanwhile: a store that does not take them is a warning.
    """

    def __init__(self, client: MlflowClient, run_id: str, secrets: Collection[str] = ()) -> None:
        self.run_id = run_id
        self._client = client
        self._secrets = secrets
        self._epochs: Counter[str] = Counter()
        self._waiting: list[Any] = []
        self._not_before = 0.0

    def epoch(self, stage: str, row: Mapping[str, float]) -> None:
        """Log the numbers of an epoch of a stage's fit as `fit/STAGE/NAME`.

        The step is the number of the stage's epochs so far: where several candidates for lambda are fitted, each
        continues the numbers of the candidate before it.
        """
        from mlflow.entities import Metric

        self._epochs[stage] += 1
        now, step = int(time.time() * 1000), self._epochs[stage]
        self._waiting += [
            Metric(f"fit/{_as_name(stage)}/{_as_name(name)}", float(value), now, step) for name, value in row.items()
        ]
        if time.monotonic() >= self._not_before:
            self._send()

    def log_files(self, params: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log params, as texts without secrets, and artifacts."""
        import mlflow

        with mlflow.start_run(run_id=self.run_id):
            mlflow.log_params(self.params(params))
            for file in files:
                mlflow.log_artifact(str(file))

    def params(self, content: Mapping[str, Any]) -> dict[str, str]:
        """Return ``content`` as texts that MLflow takes, without secrets."""
        return {name: self.masked(str(value))[:6000] for name, value in sorted(content.items())}

    def masked(self, text: str) -> str:
        """Return ``text`` without secrets, those of the config included."""
        return masked(text, self._secrets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._send()
        try:
            if problem is not None:
                self._client.set_tag(self.run_id, "error", self.masked(f"{type(problem).__name__}: {problem}")[:1000])
            status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
            self._client.set_terminated(self.run_id, status)
        except Exception as silent:  # what was trained is registered, or another error is on its way
            logs.say(f"warning: MLflow run {self.run_id} could not be ended: {self.masked(str(silent))}")

    def _send(self) -> None:
        if not self._waiting:
            return
        try:
            for start in range(0, len(self._waiting), 1000):  # MLflow's limit of a batch
                self._client.log_batch(self.run_id, metrics=self._waiting[start : start + 1000])
        except Exception as problem:
            if not self._not_before:
                said = self.masked(str(problem))
                logs.say(f"warning: MLflow does not take the losses now, the training goes on: {said}")
            self._not_before = time.monotonic() + _PATIENCE_SECONDS
            return
        self._waiting.clear()


def log_training(run: MlflowRun, trained: TrainedModel, products: str) -> LoggedModel:
    """Log a training in ``run``; ``products``: the URI of the table that it read."""
    import mlflow

    with mlflow.start_run(run_id=run.run_id):
        mlflow.set_tag("mlflow.note.content", model_card(trained))
        mlflow.log_params(run.params(trained.params))
        mlflow.log_metrics(dict(trained.metrics))
        mlflow.log_metrics({f"seconds/{stage}": seconds for stage, seconds in trained.seconds.items()})
        for step, row in enumerate(trained.history):
            numbers = {f"fit/{_as_name(name)}": value for name, value in row.items() if isinstance(value, int | float)}
            mlflow.log_metrics(numbers, step=int(row.get("epoch", step)))
        for name, rows in trained.tables.items():
            _log_table(rows, f"tables/{name}.json")
        mlflow.log_dict(trained.curves, "curves.json")
        mlflow.log_text(run.masked("\n".join(trained.warnings)) or "none", "warnings.txt")
        mlflow.log_dict({"certificates": [c.to_dict() for c in trained.certificates]}, "certificates.json")
        _log_lineage(trained.lineage, products)
        _log_held_out(trained.held_out)
        if trained.labelled is not None:
            _log_parquet(trained.labelled, LABELLED)
        return LoggedModel(run.run_id, _log_model(trained))


def log_compared(run: MlflowRun, model: ModelRun) -> None:
    """Log one model of a comparison in ``run``."""
    import mlflow

    with mlflow.start_run(run_id=run.run_id, nested=True):
        mlflow.log_params(run.params(model.params))
        mlflow.log_metrics(dict(model.metrics))
        for step, numbers in model.steps.items():
            mlflow.log_metrics({_as_name(name): value for name, value in numbers.items()}, step=step)
        for table, rows in model.tables.items():
            _log_table(rows, f"tables/{table}.json")
        mlflow.log_dict(dict(model.curves), "curves.json")
        mlflow.log_text(run.masked("\n".join(model.warnings)) or "none", "warnings.txt")


def _as_name(name: str) -> str:
    """Return ``name`` as a name of a metric: MLflow takes letters, digits, ``_ - . : /`` and spaces."""
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)


def _log_lineage(lineage: Mapping[str, Any], products: str) -> None:
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    mlflow.log_dict(dict(lineage), LINEAGE)
    digest = str(lineage["label_set_hash"])[:36]  # MLflow's limit
    mlflow.log_input(MetaDataset(DeltaDatasetSource(path=products), name="products", digest=digest), context="training")


def _log_table(rows: list[dict[str, Any]], file: str) -> None:
    import mlflow
    import pandas as pd

    if rows:
        mlflow.log_table(pd.DataFrame(rows), file)


def _log_held_out(decisions: Sequence[HeldOutDecision]) -> None:
    import pyarrow as pa

    texts = pa.list_(pa.string())
    schema = pa.schema(
        [
            ("product_id", pa.string()),
            ("group", pa.int64()),
            ("attribute", pa.string()),
            ("true_values", texts),
            ("written_values", texts),
            ("modality", pa.string()),
        ]
    )
    _log_parquet(pa.Table.from_pylist([asdict(row) for row in decisions], schema), HELD_OUT)


def _log_parquet(table: pa.Table, name: str) -> None:
    import mlflow
    import pyarrow.parquet as pq

    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        pq.write_table(table, file)
        mlflow.log_artifact(str(file))


def _log_model(trained: TrainedModel) -> str:
    """Log the model in the active MLflow run; return its URI."""
    import mlflow

    import catalog_enrichment

    package = Path(catalog_enrichment.__file__).parent
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature is given, not inferred
        info = mlflow.pyfunc.log_model(
            name=MODEL,
            python_model=str(package / "inference" / "pyfunc.py"),
            artifacts={MODEL: str(trained.artifact)},
            signature=signature(list(proposers.heads_of(trained.artifact))),
            input_example=input_example(trained.certificates),
            pip_requirements=pins,
            code_paths=[str(package)],
        )
    return str(info.model_uri)


def signature(attributes: Sequence[str]) -> ModelSignature:
    """Return the model's columns: in, title and optional columns; out, per attribute a list of values, each with score,
    decision and threshold."""
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
    """Return two products in a category and a language that a certificate holds for.

    They are invented, because merchants' listings do not become part of a model. The second has no picture, and empty
    bytes say so: MLflow's server does not take null in a column of bytes.
    """
    import pandas as pd
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (32, 32), (20, 30, 90)).save(picture, "JPEG")
    written = next((known for known in certificates if known.threshold is not None), None)
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
