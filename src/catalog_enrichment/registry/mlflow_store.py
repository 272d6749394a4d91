"""MLflow calls: connect with a short timeout, start runs, download a model's files."""

from __future__ import annotations

import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalog_enrichment import failures
from catalog_enrichment.catalog import locks
from catalog_enrichment.catalog.object_storage import storage_of
from catalog_enrichment.catalog.storage import FolderStorage
from catalog_enrichment.config.model_registry import RegistryKind, kind_of
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, RegistryError, TemporaryFailure
from catalog_enrichment.monitoring import logs
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.registry import local_store
from catalog_enrichment.registry.mlflow_run import (
    HELD_OUT,
    LABELLED,
    LINEAGE,
    MODEL,
    ComparisonRun,
    LoggedModel,
    MlflowRun,
    ModelRun,
    RunStart,
    log_compared,
    log_training,
)
from catalog_enrichment.registry.registered_model import (
    OpenCatalogModel,
    RegisteredModel,
    RegisteredVersion,
    UnityCatalogModel,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

    from catalog_enrichment.registry.trained_model import TrainedModel

_SQLITE = "sqlite:///"
_HTTP = re.compile("https?://.*")
_MODELS: dict[RegistryKind, type[RegisteredModel]] = {
    RegistryKind.MLFLOW: RegisteredModel,
    RegistryKind.UNITY_CATALOG: UnityCatalogModel,
    RegistryKind.OPEN_CATALOG: OpenCatalogModel,
}


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
        self.registry_uri = self._settings.registry_uri or self.uri
        self._client: MlflowClient | None = None
        self._fetched: dict[str, Path] = {}

    def promoting(self) -> AbstractContextManager[locks.AssertHeld]:
        """Run a block that one process at a time can be in (see :mod:`promotion`).

        Raises GateRefused after `mlflow.timeout_seconds`. Where a promotion was killed, its lease has to expire first.
        The function that it yields is to be called before the alias is moved: MLflow itself cannot keep a process away
        that has slept past its lease.
        """
        own_file = self._file if self.registry_uri == self.uri else None
        storage = FolderStorage(own_file.parent) if own_file else storage_of(self._config)
        model = self._settings.model_name
        name = f"promotion-{stable_hash(model)[:16]}"  # a model's name may have characters that a key should not have
        doing = f"another process is promoting {model}"
        lock = locks.lock(storage, name, self._config.catalog.lease_seconds, doing)
        return lock.held(self._settings.timeout_seconds)

    def client(self, create: bool) -> MlflowClient:
        """Return a client, after a check that the store answers.

        ``create``: for a job that is going to log runs; a missing sqlite store is made, and the experiment is checked.
        Raises RegistryError if the store cannot be used, ConfigError if nothing can be logged in the experiment, and
        TemporaryFailure if the store does not answer.
        """
        if self._client is None:
            if self._file:
                local_store.check(self._file, create, self._settings.timeout_seconds)
                self._follow_artifacts(self._file)
            elif self.uri.startswith(("http://", "https://")):
                _check_server(self.uri, "mlflow.tracking_uri", self._settings.timeout_seconds)
            if self.registry_uri != self.uri and (server := _HTTP.search(self.registry_uri)):
                _check_server(server[0], "mlflow.registry_uri", self._settings.timeout_seconds)
            self._client = self._connect()
        if create:
            self._find_experiment(self._client)
        return self._client

    def start_run(self, started: RunStart) -> MlflowRun:
        """Return a run in the config's experiment, which is made if it does not exist.

        If `mlflow run` has made a run for this process, it is that run.
        """
        client, experiment = self.client(create=True), self._experiment()
        name, tags, secrets = started.name, started.tags(), self._config.secrets()
        given = os.environ.get("MLFLOW_RUN_ID") if started.job else None
        if given and _is_running(client, given, experiment):
            client.update_run(given, name=name)
            for key, value in tags.items():
                if not key.startswith("mlflow.source."):  # `mlflow run` has said where the project is
                    client.set_tag(given, key, value)
            return MlflowRun(client, given, secrets)
        begun = int(started.at.timestamp() * 1000)
        created = client.create_run(experiment, start_time=begun, tags=tags, run_name=name)
        return MlflowRun(client, str(created.info.run_id), secrets)

    def log(self, run: MlflowRun, trained: TrainedModel) -> LoggedModel:
        """Log a training in ``run``: params, metrics, history, tables, curves, lineage, the model's files."""
        return log_training(run, trained, storage_of(self._config).below("products").uri)

    def log_comparison(self, comparison: ComparisonRun, models: Sequence[ModelRun]) -> str:
        """Log a comparison: a run with its files, and a nested run for each model. Returns the comparison's run id."""
        job, started_at = "compare_models", comparison.started_at
        parent = self.start_run(RunStart(name=comparison.name, job=job, at=started_at))
        with parent:
            parent.log_files(comparison.about, comparison.files)
            for model in models:
                began = datetime.now(UTC) - timedelta(seconds=model.seconds)
                started = RunStart(
                    name=model.name, at=began, recipe=model.name, parent=parent.run_id, comparison=comparison.name
                )
                with self.start_run(started) as run:
                    log_compared(run, model)
        return parent.run_id

    def log_file(self, run_id: str, file: Path) -> None:
        """Add ``file`` to the artifacts of a run that was logged. Raises RegistryError, or TemporaryFailure."""
        from mlflow.exceptions import MlflowException

        try:
            self.client(create=False).log_artifact(run_id, str(file))
        except (MlflowException, OSError) as problem:
            unusable = RegistryError(f"{file.name} cannot be added to MLflow run {run_id}: {problem}")
            raise failures.recognised(problem) or unusable from problem

    def model(self, name: str = "", create: bool = False) -> RegisteredModel:
        """Return a registered model, that of the config without ``name``; ``create``: see :meth:`client`."""
        kind = _MODELS[kind_of(self.registry_uri)]
        return kind(self.client(create), name or self._settings.model_name)

    def download(self, version: RegisteredVersion) -> Path:
        """Return the version's artifact folder on local disk; for a local store, the store's own folder."""
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = f"models:/{version.name}/{version.version}"
        try:
            folder = Path(mlflow.artifacts.download_artifacts(uri)).resolve()
            flavors = mlflow.models.Model.load(str(folder)).flavors
            path = folder / str(flavors["python_function"]["artifacts"][MODEL]["path"])
            return folder / path.resolve().relative_to(folder)  # ValueError for a path that leads out of the folder
        except (MlflowException, OSError, KeyError, TypeError, ValueError) as problem:
            raise self._not_fetched(uri, problem) from problem

    def fetch_model(self, uri: str) -> Path:
        """Return the folder of a model version of MLflow, `models:/NAME/VERSION`, on local disk.

        Raises ConfigError if the config does not allow its code, RegistryError if the registry does not have it, or its
        files cannot be fetched.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        self._check_allowed(uri)
        if uri in self._fetched:
            return self._fetched[uri]
        name, version = uri.removeprefix("models:/").split("/")
        self.model(name).version(version)
        try:
            self._fetched[uri] = Path(mlflow.artifacts.download_artifacts(uri)).resolve()
            return self._fetched[uri]
        except (MlflowException, OSError) as problem:
            raise self._not_fetched(uri, problem) from problem

    def _not_fetched(self, uri: str, problem: Exception) -> CatalogEnrichmentError:
        """Return the error to raise where the files of a model version cannot be fetched."""
        missing = RegistryError(
            f"the files of {uri} cannot be fetched from {without_password(self.registry_uri)}: {problem}. Check that "
            "the artifacts are where the store says, and that they were logged"
        )
        return self.model().without_rights(f"the files of {uri}", problem) or failures.recognised(problem) or missing

    def _check_allowed(self, uri: str) -> None:
        """Raise ConfigError unless the config allows the code of a model: who may write to the registry could have it
        run otherwise."""
        allowed, name = self._config.proposer, uri.removeprefix("models:/").split("/")[0]
        if allowed is not None and allowed.allow_code and re.split("[/@]", allowed.model)[1:2] == [name]:
            return
        raise ConfigError(
            f"the version proposes by {uri}, whose author's code would run, with the rights of this job. Allow it in "
            f'the config of every job that scores: [proposer] kind = "pyfunc", model = "{uri}", allow_code = true'
        )

    def pinned(self, uri: str) -> RegisteredVersion:
        """Return the version that ``uri`` names, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

        Raises RegistryError, which lists the versions and aliases that exist.
        """
        name, at, alias = uri.removeprefix("models:/").partition("@")
        name, _, version = name.partition("/")
        model = self.model(name)
        return model.version_of(alias) if at else model.version(version)

    def held_out(self, version: RegisteredVersion) -> list[HeldOutDecision]:
        """Return what the version would write on its test fold."""
        import pyarrow.parquet as pq

        def decision(row: dict[str, Any]) -> HeldOutDecision:
            lists = {name: tuple(row[name]) for name in ("true_values", "written_values")}
            return HeldOutDecision(**(row | lists | {"modality": Modality(row["modality"])}))

        return [decision(row) for row in pq.read_table(self._artifact(version, HELD_OUT)).to_pylist()]

    def labelled(self, version: RegisteredVersion) -> pa.Table:
        """Return the labelled products that the version's training read."""
        import pyarrow.parquet as pq

        return pq.read_table(self._artifact(version, LABELLED))

    def lineage(self, version: RegisteredVersion) -> dict[str, Any]:
        """Return where the version comes from, as it was logged."""
        content: dict[str, Any] = json.loads(self._artifact(version, LINEAGE).read_text())
        return content

    def _artifact(self, version: RegisteredVersion, name: str) -> Path:
        """Fetch a file of the version's MLflow run."""
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            return Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=name))
        except (MlflowException, OSError) as problem:
            raise failures.recognised(problem) or RegistryError(
                f"{name} of version {version.version} cannot be fetched from {without_password(self.uri)}: {problem}"
            ) from problem

    def _follow_artifacts(self, file: Path) -> None:
        if self._artifacts is None:
            return
        settings = self._settings
        before = local_store.follow_artifacts(file, self._artifacts, settings.experiment, settings.timeout_seconds)
        if before:
            logs.say(f"artifacts in the MLflow store {file}: their place was {before} and is {self._artifacts} now")

    def _connect(self) -> MlflowClient:
        seconds = str(self._settings.timeout_seconds)
        defaults = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": seconds,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
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
        mlflow.set_registry_uri(self.registry_uri)
        client = mlflow.MlflowClient(self.uri, self.registry_uri)
        try:
            client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as problem:
            unusable = RegistryError(f"the MLflow store {without_password(self.uri)} cannot be used: {problem}")
            raise failures.recognised(problem) or unusable from problem
        return client

    def _experiment(self) -> str:
        """Return the id of the config's experiment, which is made if it does not exist."""
        client = self.client(create=True)
        if found := self._find_experiment(client):
            return found
        location = self._artifacts.as_uri() if self._artifacts else None
        return str(client.create_experiment(self._settings.experiment, artifact_location=location))

    def _find_experiment(self, client: MlflowClient) -> str | None:
        """Return the id of the config's experiment; None if it does not exist. Raises ConfigError if it was deleted."""
        from mlflow.exceptions import MlflowException

        name = self._settings.experiment
        try:
            experiment = client.get_experiment_by_name(name)
        except MlflowException as problem:
            unusable = RegistryError(f"the MLflow experiment {name!r} cannot be read: {problem}")
            raise failures.recognised(problem) or unusable from problem
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise ConfigError(
                f"mlflow.experiment: the experiment {name!r} was deleted in {without_password(self.uri)}, and MLflow "
                f"takes no runs in it. Restore it: MLFLOW_TRACKING_URI={without_password(self.uri)} mlflow experiments "
                f"restore --experiment-id {experiment.experiment_id}. Or set mlflow.experiment to another name"
            )
        return str(experiment.experiment_id)


def _is_running(client: MlflowClient, run_id: str, experiment: str) -> bool:
    """Return whether this store and experiment have the run, and it has not ended."""
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException:
        return False
    return (info.experiment_id, info.status) == (experiment, "RUNNING")


def without_password(uri: str) -> str:
    """Return ``uri`` without user name and password, which urllib takes for a part of the host's name."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def _check_server(uri: str, key: str, timeout_seconds: int) -> None:
    """Raise TemporaryFailure if the server does not answer one request: MLflow's client would retry for minutes."""
    try:
        with urllib.request.urlopen(f"{without_password(uri).rstrip('/')}/health", timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as answer:
        if answer.code < 500:  # a server answers; the first MLflow request checks access
            return
        problem: Exception = answer
    except (OSError, ValueError) as failure:
        problem = failure
    server = "MLflow server" if key == "mlflow.tracking_uri" else "registry"
    raise TemporaryFailure(
        f"no {server} answers at {without_password(uri)} within {timeout_seconds} s: {problem}. Start it, or set {key}"
    )
