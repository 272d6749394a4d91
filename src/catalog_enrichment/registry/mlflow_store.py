"""MLflow calls: connect with a short timeout, log runs, store, register and download a model's files."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sqlite3
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalog_enrichment import failures
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import RegistryError, TemporaryFailure
from catalog_enrichment.masking import masked
from catalog_enrichment.monitoring import logs
from catalog_enrichment.object_storage import storage_of
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_lock

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature

    from catalog_enrichment.registry.trained_model import TrainedModel

_SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\0"
_REQUIREMENTS = ["fsspec", "mlflow", "numpy", "pandas", "pillow", "safetensors", "scipy", "timm"]
_REQUIREMENTS += ["tokenizers", "torch", "transformers"]
"""Packages that `models/pyfunc.py` needs. This package itself is logged with the model, as code."""
_NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""Codes of MLflow's errors where there is no such model, version or alias; the second for an alias."""
_MODEL = "model"
"""Name of the logged model, and of the artifact folder inside it."""


_HELD_OUT = "test_decisions.parquet"
"""Artifact with a row per labelled product of the test fold and attribute, as :class:`HeldOutDecision`."""


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """An MLflow run and the model that it logged."""

    run_id: str
    model_uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRun:
    """What is logged of one model of a comparison. The model itself is neither stored nor registered."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    steps: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Step (an epoch, a share of the labels in thousandths) -> metrics."""
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class Store:
    """One MLflow tracking server or sqlite file. Connects when first used."""

    def __init__(self, config: Config) -> None:
        self._settings = config.mlflow
        self._config = config
        self._artifacts = config.path(self._settings.artifact_path) if self._settings.artifact_path else None
        self._file: Path | None = None
        self.uri = self._settings.tracking_uri
        if self.uri.startswith(_SQLITE):
            self._file = config.path(self.uri.removeprefix(_SQLITE))
            self.uri = f"{_SQLITE}{self._file}"
        self._client: MlflowClient | None = None

    def promoting(self) -> AbstractContextManager[None]:
        """A block that one process at a time can be in (see :mod:`promotion`)."""
        return promotion_lock.held(self._config, self._file.parent if self._file else None)

    def client(self, create: bool) -> MlflowClient:
        """A client, after a check that the store answers. ``create`` makes a missing sqlite store.

        Raises RegistryError if the store cannot be used, and TemporaryFailure if it does not answer.
        """
        if self._client is None:
            if self._file:
                _check_sqlite(self._file, create, self._settings.timeout_seconds)
            elif self.uri.startswith(("http://", "https://")):
                _check_server(self.uri, self._settings.timeout_seconds)
            self._client = self._connect()
        return self._client

    def log(self, trained: TrainedModel, figures: Mapping[str, Figure], tags: Mapping[str, str]) -> LoggedModel:
        """Log a training in one MLflow run: params, metrics, history, tables, figures, lineage, the model's files."""
        import mlflow

        # created by the client: start_run alone would take the run that `mlflow run` made, maybe in another store
        run_id = self.client(create=True).create_run(self._experiment(), tags=dict(tags)).info.run_id
        with mlflow.start_run(run_id=run_id):
            mlflow.log_params(_params(trained.params))
            mlflow.log_metrics(dict(trained.metrics))
            for step, row in enumerate(trained.history):
                numbers = {f"fit/{name}": value for name, value in row.items() if isinstance(value, int | float)}
                mlflow.log_metrics(numbers, step=int(row.get("epoch", step)))
            for name, figure in figures.items():
                mlflow.log_figure(figure, f"plots/{name}.png")
            for name, rows in trained.tables.items():
                _log_table(rows, f"tables/{name}.json")
            mlflow.log_dict(trained.curves, "curves.json")
            mlflow.log_text("\n".join(trained.warnings) or "none", "warnings.txt")
            mlflow.log_dict({"certificates": [c.to_dict() for c in trained.certificates]}, "certificates.json")
            self._log_lineage(trained.lineage)
            _log_held_out(trained.held_out)
            return LoggedModel(run_id, _log_model(trained))

    def log_comparison(
        self, name: str, models: Sequence[ModelRun], files: Sequence[Path], about: Mapping[str, Any]
    ) -> str:
        """Log a comparison: a run with ``files``, and a nested run for each model. Returns the comparison's run id."""
        client = self.client(create=True)
        parent = str(client.create_run(self._experiment(), run_name=name).info.run_id)
        import mlflow

        with mlflow.start_run(run_id=parent):
            mlflow.log_params(_params(about))
            for file in files:
                mlflow.log_artifact(str(file))
        for model in models:
            tags = {"mlflow.parentRunId": parent, "comparison": name, "recipe": model.name}
            run_id = client.create_run(self._experiment(), tags=tags, run_name=model.name).info.run_id
            with mlflow.start_run(run_id=run_id, nested=True):
                mlflow.log_params(_params(model.params))
                mlflow.log_metrics(dict(model.metrics))
                for step, numbers in model.steps.items():
                    mlflow.log_metrics(dict(numbers), step=step)
                for table, rows in model.tables.items():
                    _log_table(rows, f"tables/{table}.json")
                mlflow.log_dict(dict(model.curves), "curves.json")
                for figure_name, figure in model.figures.items():
                    mlflow.log_figure(figure, f"plots/{figure_name}.png")
                mlflow.log_text("\n".join(model.warnings) or "none", "warnings.txt")
        return parent

    def log_file(self, run_id: str, file: Path) -> None:
        """Add ``file`` to the artifacts of a run that was logged. Raises RegistryError, or TemporaryFailure."""
        from mlflow.exceptions import MlflowException

        try:
            self.client(create=False).log_artifact(run_id, str(file))
        except (MlflowException, OSError) as problem:
            unusable = RegistryError(f"{file.name} cannot be added to MLflow run {run_id}: {problem}")
            raise failures.recognised(problem) or unusable from problem

    def register(self, logged: LoggedModel, tags: dict[str, str]) -> str:
        """Make a logged model a version of the registered model; returns its number."""
        import mlflow

        version = mlflow.register_model(logged.model_uri, self._settings.model_name, tags=tags)
        return str(version.version)

    def download(self, version: Any) -> Path:
        """The version's artifact folder on local disk; for a local store, the store's own folder."""
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = f"models:/{version.name}/{version.version}"
        try:
            folder = Path(mlflow.artifacts.download_artifacts(uri))
            flavors = mlflow.models.Model.load(str(folder)).flavors
            return folder / str(flavors["python_function"]["artifacts"][_MODEL]["path"])
        except (MlflowException, OSError, KeyError) as problem:
            raise failures.recognised(problem) or RegistryError(
                f"the files of {uri} cannot be fetched from {without_password(self.uri)}: {problem}. Check that the "
                "artifacts are where the store says, and that train_model logged them."
            ) from problem

    def held_out(self, version: Any) -> list[HeldOutDecision] | None:
        """What the version would write on its test fold; None if it recorded nothing."""
        import mlflow
        import pyarrow.parquet as pq

        files = self.client(create=False).list_artifacts(version.run_id) if version.run_id else []
        if _HELD_OUT not in {file.path for file in files}:
            return None
        path = mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=_HELD_OUT)
        rows = pq.read_table(path).to_pylist()
        return [_held_out_decision(row) for row in rows]

    def _connect(self) -> MlflowClient:
        seconds = str(self._settings.timeout_seconds)
        defaults = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": seconds,
        }
        for name, value in defaults.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logs.adopt_libraries()  # the import gave them handlers
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        client = mlflow.MlflowClient(self.uri, self.uri)
        try:
            client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as problem:
            unusable = RegistryError(f"the MLflow store {without_password(self.uri)} cannot be used: {problem}")
            raise failures.recognised(problem) or unusable from problem
        return client

    def _experiment(self) -> str:
        """The id of the config's experiment, which is made if it does not exist."""
        client = self.client(create=True)
        experiment = client.get_experiment_by_name(self._settings.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = self._artifacts.as_uri() if self._artifacts else None
        return str(client.create_experiment(self._settings.experiment, artifact_location=location))

    def _log_lineage(self, lineage: Mapping[str, Any]) -> None:
        import mlflow
        from mlflow.data.delta_dataset_source import DeltaDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        mlflow.log_dict(dict(lineage), "lineage.json")
        source = DeltaDatasetSource(path=storage_of(self._config).below("products").uri)
        digest = str(lineage["label_set_hash"])[:36]  # MLflow's limit
        mlflow.log_input(MetaDataset(source, name="products", digest=digest), context="training")


def find_version(client: MlflowClient, name: str, *, version: str = "", alias: str = "") -> Any:
    """The model version with this number or alias. Raises RegistryError, which lists those that exist."""
    from mlflow.exceptions import MlflowException

    try:
        if version:
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as problem:
        missing = f"version {version}" if version else f"alias {alias!r}"
        raise _not_found(problem, f"{missing} of model {name!r}", client, name) from problem


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Alias -> version of the registered model. Raises RegistryError if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as problem:
        raise _not_found(problem, f"model {name!r}", client, name) from problem


def all_versions(client: MlflowClient, name: str) -> list[Any]:
    """Every version of the registered model; none if there is no such model."""
    versions: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def without_password(uri: str) -> str:
    """``uri`` without user name and password, which urllib takes for a part of the host's name."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def _not_found(problem: MlflowException, wanted: str, client: MlflowClient, name: str) -> Exception:
    """The error to raise: that ``wanted`` does not exist, and what does, or that the registry could not be asked."""
    if problem.error_code in _NOT_FOUND:
        return RegistryError(f"no {wanted}: {_available(client, name)}")
    unusable = RegistryError(f"the MLflow registry cannot be asked for {wanted}: {problem}")
    return failures.recognised(problem) or unusable


def _available(client: MlflowClient, name: str) -> str:
    """Names the models of the registry, or the versions and aliases of model ``name`` if it exists."""
    models = sorted(model.name for model in client.search_registered_models())
    if name not in models:
        return f"the registry has {', '.join(models) or 'no models yet'}. Run train_model first, or check model_name"
    versions = sorted((str(version.version) for version in all_versions(client, name)), key=int)
    return f"it has versions {', '.join(versions) or 'none'} and aliases {aliases(client, name) or 'none'}"


def _check_server(uri: str, timeout_seconds: int) -> None:
    """Raises TemporaryFailure if the server does not answer one request: MLflow's client would retry for minutes."""
    try:
        with urllib.request.urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as answer:
        if answer.code < 500:  # a server answers; the first MLflow request checks access
            return
        problem: Exception = answer
    except (OSError, ValueError) as failure:
        problem = failure
    raise TemporaryFailure(
        f"no MLflow server answers at {without_password(uri)} within {timeout_seconds} s: {problem}. "
        "Start it, or set mlflow.tracking_uri"
    )


def _check_sqlite(file: Path, create: bool, timeout_seconds: int) -> None:
    """Raises RegistryError if the file is missing (and not ``create``), is no sqlite database or cannot be read, and
    TemporaryFailure if another process holds it: MLflow's own client would retry for minutes."""
    if not file.exists() and not create:
        raise RegistryError(f"there is no MLflow store at {file}: run train_model first, or set mlflow.tracking_uri")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size:
            with file.open("rb") as stream:
                if stream.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
                    raise RegistryError(f"{file} is not an sqlite database: check mlflow.tracking_uri")
            with closing(sqlite3.connect(file, timeout=timeout_seconds)) as database:
                database.execute("SELECT count(*) FROM sqlite_master")
    except (OSError, sqlite3.Error) as problem:
        unusable = RegistryError(f"the MLflow store {file} cannot be used: {problem}")
        raise failures.recognised(problem) or unusable from problem


def _params(content: Mapping[str, Any]) -> dict[str, str]:
    """As texts that MLflow takes, without secrets."""
    return {name: masked(str(value))[:6000] for name, value in sorted(content.items())}


def _log_table(rows: list[dict[str, Any]], file: str) -> None:
    import mlflow
    import pandas as pd

    if rows:
        mlflow.log_table(pd.DataFrame(rows), file)


def _log_held_out(decisions: Sequence[HeldOutDecision]) -> None:
    import mlflow
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _HELD_OUT
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in decisions], schema), file)
        mlflow.log_artifact(str(file))


def _held_out_decision(row: dict[str, Any]) -> HeldOutDecision:
    """A row of the artifact; one of release 0.1.0 has no modality."""
    lists = {name: tuple(row[name]) for name in ("true_values", "written_values")}
    modality = row.get("modality")
    return HeldOutDecision(**(row | lists | {"modality": Modality(modality) if modality else None}))


def _log_model(trained: TrainedModel) -> str:
    import mlflow

    import catalog_enrichment
    from catalog_enrichment.models import artifact

    package = Path(catalog_enrichment.__file__).parent
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature is given, not inferred
        info = mlflow.pyfunc.log_model(
            name=_MODEL,
            python_model=str(package / "models" / "pyfunc.py"),
            artifacts={_MODEL: str(trained.artifact)},
            signature=_signature(list(artifact.heads(trained.artifact))),
            pip_requirements=pins,
            code_paths=[str(package)],
        )
    return str(info.model_uri)


def _signature(attributes: list[str]) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    optional = [ColSpec("string", "description", required=False), ColSpec("binary", "image", required=False)]
    outputs = [column for name in attributes for column in (ColSpec("string", name), ColSpec("float", f"{name}_score"))]
    return ModelSignature(Schema([ColSpec("string", "title"), *optional]), Schema(outputs))
