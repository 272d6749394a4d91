"""The model registry (MLflow): how a version is registered and how it is resolved.

Two aliases: `candidate` is the newest version, `champion` the version that the batch jobs run. Training registers,
batch jobs resolve; promotion.py moves the champion alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import ConfigError, GateRefused, ModelContractError, NoModelError
from catalog_enrichment.models import compute_types, version_files
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.proposers import versions as proposers
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import mlflow_store
from catalog_enrichment.registry.gate_evidence import Evidence
from catalog_enrichment.registry.mlflow_run import MlflowRun, RunStart
from catalog_enrichment.registry.registered_model import RegisteredVersion
from catalog_enrichment.registry.trained_model import (
    NOT_TRAINED,
    TrainedModel,
    model_card,
    require_certificates,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.models.spec import Head
    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.proposers.protocol import Proposer

CHAMPION, CANDIDATE = "champion", "candidate"
"""Aliases of the version that the batch jobs run, and of the version that was registered last."""

_ARTIFACT_HASH, _WEIGHTS_HASH = "artifact_hash", "weights_hash"
"""Version tags."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version that was registered."""

    name: str
    version: str
    run_id: str
    """The MLflow run that logged it."""
    uri: str
    """For MLflow's own loaders: models:/NAME/VERSION."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A model version on local disk, its files verified. A run uses a single version (I3)."""

    name: str
    version: str
    artifact: Path
    """The version's folder (:mod:`models.version_files`)."""
    artifact_hash: str
    proposer: Proposer
    certificates: tuple[Certificate, ...]
    """The certificates for every number type; after :meth:`in_numbers` those for a single type."""
    numbers: str = "fp32"
    """Number type to compute in (models.compute_types)."""
    why_numbers: str = ""
    """Why a run computes in it, a sentence; empty before :meth:`for_run`."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """Attribute -> its cardinality and the values that can be proposed."""
        return self.proposer.heads

    @property
    def weights_hash(self) -> str:
        return self.proposer.weights_hash

    @property
    def preprocessing_hash(self) -> str:
        return self.proposer.preprocessing_hash

    def for_run(self, wanted: str, why_not_of: compute_types.WhyNot | None = None) -> ResolvedModel:
        """Return the model in the number type of a run. ``wanted``: `enrich.compute_type`; ``why_not_of``: what the
        workers have said.

        Raises ConfigError if the version is not certified for ``wanted``, or the machines cannot compute in it.
        """
        if self.why_numbers:
            return self
        certified = {certificate.compute_type for certificate in self.certificates}
        chosen = compute_types.choose(wanted, certified, why_not_of)
        return replace(self.in_numbers(chosen.numbers), why_numbers=chosen.why)

    def before_workers(self, wanted: str) -> ResolvedModel:
        """Return the model in the number type that this machine would choose, before the workers are asked.

        If this machine cannot compute in any, the model has the certificates for all: the workers may be able to.
        """
        try:
            return self.for_run(wanted)
        except ConfigError:  # the run raises it, if it is so after the workers were asked
            return self

    def in_numbers(self, numbers: str) -> ResolvedModel:
        """Return the model as a run uses it: computing in ``numbers``, with the certificates for that number type."""
        certificates = [
            certificate
            for certificate in self.certificates
            if compute_types.numbers_of(certificate.compute_type) == numbers
        ]
        return replace(self, certificates=tuple(certificates), numbers=numbers)


class Registry:
    """The registered model that the config names. Connects when first used."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.mlflow.model_name
        self.store = mlflow_store.Store(config)

    def connect(self, create: bool = False) -> MlflowClient:
        """Return a client of the store. ``create``: make a sqlite store that does not exist yet.

        Raises RegistryError, within ``mlflow.timeout_seconds`` for a server that cannot be reached.
        """
        return self.store.client(create)

    # registering

    def training_run(self, recipe: str, job: str) -> MlflowRun:
        """Start the MLflow run of a training: a context manager that ends it. ``job``: the job's name.

        Makes the registered model if there is none. Raises RegistryError if the registry does not take it.
        """
        self.store.model(create=True).make()
        now = datetime.now(UTC)
        return self.store.start_run(RunStart(name=f"{recipe} {now:%Y-%m-%d %H:%M:%S}", at=now, recipe=recipe, job=job))

    def register(self, trained: TrainedModel, run: MlflowRun | None = None) -> ModelVersion:
        """Log the training in ``run`` (without it: in a run of its own), register its model as a new version and make
        that version the candidate.

        Raises ModelContractError, before anything is logged, if the artifact is damaged or has no certificate for a
        head on a modality path.
        """
        proposer = proposers.open_version(trained.artifact, self.store.fetch_model)
        certificates = _certificates(trained.artifact)
        require_certificates(proposer.heads, certificates)
        hashes = {
            _ARTIFACT_HASH: version_files.artifact_hash(trained.artifact),
            _WEIGHTS_HASH: proposer.weights_hash,
        }
        first = [known for known in certificates if known.compute_type == certificates[0].compute_type]
        evidence = Evidence.from_certificates(first, trained.held_out, trained.warnings)
        if run is None:
            with self.training_run(str(trained.params.get("recipe", "certificates")), "") as own:
                logged = self.store.log(own, trained)
        else:
            logged = self.store.log(run, trained)
        model = self.store.model(create=True)
        version = model.add(logged, hashes | evidence.to_tags(), model_card(trained))
        with self.store.promoting() if model.ALIASES_ARE_ONE_TEXT else nullcontext():
            model.set_alias(CANDIDATE, version)
        return ModelVersion(self.name, version, logged.run_id, f"models:/{self.name}/{version}")

    def log_page(self, version: ModelVersion, page: Path) -> None:
        """Add a page about the version to its MLflow run, as an artifact with the file's name.

        Raises RegistryError, or TemporaryFailure, if the store does not take it.
        """
        self.store.log_file(version.run_id, page)

    # resolving

    def champion(self) -> str | None:
        """Return the champion's version; None if there is none. Raises RegistryError if the model does not exist."""
        return self.store.model().aliases().get(CHAMPION)

    def newest(self) -> str | None:
        """Return the number of the newest version; None if there is none."""
        return max((found.version for found in self.versions()), key=int, default=None)

    def versions(self) -> list[RegisteredVersion]:
        """Return all versions; none without the store or the model."""
        try:
            return self.store.model().versions()
        except NoModelError:
            return []

    def find(self, *, version: str = "", alias: str = "") -> RegisteredVersion:
        """Return the version with this number or alias. Raises RegistryError, which lists those that exist."""
        model = self.store.model()
        return model.version(version) if version else model.version_of(alias)

    def resolve(self, *, version: str | None = None, alias: str | None = None) -> ResolvedModel:
        """Return the model of ``version``, else of ``alias``, else the champion, downloaded and verified.

        Raises RegistryError, listing the versions and aliases, if there is no such version or alias, and
        ModelContractError if its files are not the files that were registered.
        """
        registered = self.find(version=version) if version else self.find(alias=alias or CHAMPION)
        folder = self.store.download(registered)
        proposer = proposers.open_version(folder, self.store.fetch_model)
        actual, expected = version_files.artifact_hash(folder), registered.tags.get(_ARTIFACT_HASH)
        if actual != expected:
            raise ModelContractError(
                f"{self.name} version {registered.version}: the files in {folder} have hash {actual}, but the "
                f"registered files had {expected}. They were changed; use another version or register a new version."
            )
        return ResolvedModel(
            name=self.name,
            version=registered.version,
            artifact=folder,
            artifact_hash=actual,
            proposer=proposer,
            certificates=tuple(_certificates(folder)),
        )

    def labels(self, version: str) -> dict[str, tuple[str, ...]]:
        """Return attribute -> the values that a version can write; its files are fetched."""
        heads = proposers.heads_of(self.store.download(self.find(version=version)))
        return {name: head.labels for name, head in heads.items()}

    def held_out(self, version: str) -> list[HeldOutDecision]:
        """Return what the version would write on its test fold."""
        return self.store.held_out(self.find(version=version))

    def newest_trained(self) -> str | None:
        """Return the newest version that a training made, and not new certificates; None if there is none."""
        for version in sorted(self.versions(), key=lambda found: int(found.version), reverse=True):
            if not NOT_TRAINED & set(self.store.lineage(version)):
                return version.version
        return None

    def expires_at(self, version: str) -> datetime | None:
        """Return when the first certificate expires under which the version may write; None without any."""
        evidence = Evidence.from_tags(version, self.find(version=version).tags)
        certified = [results for results in evidence.paths.values() if results.certified] if evidence else []
        return min((datetime.fromisoformat(results.expires_at) for results in certified), default=None)

    def labelled(self, version: str) -> pa.Table:
        """Return the labelled products that a version's training read (`TrainedModel.labelled`)."""
        return self.store.labelled(self.find(version=version))

    def lineage(self, version: str) -> dict[str, Any]:
        """Return where the version comes from (`TrainedModel.lineage`)."""
        return self.store.lineage(self.find(version=version))

    # checks of a resolved version

    def check_validity(self, model: ResolvedModel, words: Dictionary, now: datetime) -> list[str]:
        """Return a sentence for every enabled attribute and modality path whose certificates have expired by ``now``.

        Raises GateRefused if everything that the model is certified for has expired.
        """
        last: dict[tuple[str, Modality], datetime] = {}
        for certificate in model.certificates:
            if certificate.threshold is not None and certificate.attribute in words.enabled:
                path = (certificate.attribute, certificate.modality)
                last[path] = max(certificate.expires_at, last.get(path, certificate.expires_at))
        expired = {path: time for path, time in sorted(last.items()) if time <= now}
        advice = "Train and promote a new version"
        if expired and len(expired) == len(last):
            newest = {name: max(expired[path] for path in expired if path[0] == name) for name, _ in expired}
            days = ", ".join(f"{name} on {time:%Y-%m-%d}" for name, time in newest.items())
            raise GateRefused(
                f"all certificates of {model.name} version {model.version} have expired ({days}): a run would write "
                f"nothing. {advice}"
            )
        return [
            f"the certificate for {name} expired on {time:%Y-%m-%d} ({path}): it is not written there. {advice}"
            for (name, path), time in expired.items()
        ]


def _certificates(folder: Path) -> list[Certificate]:
    from catalog_enrichment.precision.certificate import Certificate

    return [Certificate.from_dict(content) for content in version_files.read_certificates(folder)]
