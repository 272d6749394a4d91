"""The model registry (MLflow): log and register a trained model, resolve a version, promote it, go back.

Aliases say what runs: `candidate` is the newest version, `champion` the one that enriches. MLflow has no
compare-and-set on an alias, so every move happens under a file lock of our own, compares with what the caller
expects, and reads the alias again afterwards. **All who promote must share that lock file**: it lies beside a sqlite
store, else in the catalog's folder. An alias moved by hand, in MLflow's interface, is not serialised with anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import dictionary, resources
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import GateRefused, ModelContractError, RegistryError
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import mlflow_store, promotion_gate
from catalog_enrichment.registry.promotion_gate import Evidence, GateResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.models.spec import Head
    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.registry.trained_model import TrainedModel

NO_CHAMPION = "none"
"""How a caller says that it expects no champion yet."""
_EVIDENCE, _ARTIFACT_HASH, _WEIGHTS_HASH = "evidence", "artifact_hash", "weights_hash"
_LABEL_SET = "label_set."
"""Version tags; one tag per label set that the version was certified on."""
_PREVIOUS, _PROMOTED_AT, _WITHDRAWN_AT = "previous_champion", "promoted_at", "withdrawn_at"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    name: str
    version: str
    run_id: str
    """MLflow's run."""
    artifact_hash: str
    uri: str
    """For MLflow's own loaders: models:/NAME/VERSION."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """One model version, on local disk and checked: what a run works with (I3)."""

    name: str
    version: str
    artifact: Path
    """The folder with model.safetensors and the rest."""
    artifact_hash: str
    weights_hash: str
    numeric_path: str
    heads: dict[str, Head]
    certificates: tuple[Certificate, ...]


class Registry:
    """The registered model that the config names. Connects when first used."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = config.mlflow
        self._name = config.mlflow.model_name
        self._store = mlflow_store.Store(config)

    def connect(self, create: bool = False) -> MlflowClient:
        """A client of a store that answers. ``create``: make a sqlite store that does not exist yet.

        Raises RegistryError, within ``mlflow.timeout_seconds`` for a server that cannot be reached.
        """
        return self._store.client(create)

    # --- training -------------------------------------------------------------------------------------------------

    def label_set_uses(self, label_set_hash: str) -> int:
        """How many versions were certified on this label set; a further one pays for them (certificate 4)."""
        client = self.connect(create=True)
        versions = mlflow_store.all_versions(client, self._name)
        return sum(_LABEL_SET + label_set_hash in version.tags for version in versions)

    def register(self, trained: TrainedModel, figures: Mapping[str, Figure] | None = None) -> ModelVersion:
        """Log one MLflow run, register its model as a new version and make that the candidate.

        Raises ModelContractError, before anything is logged, for an artifact that is damaged or lacks a certificate
        for any head on any modality path.
        """
        from catalog_enrichment.models import artifact

        artifact.verify(trained.artifact)
        certificates = _certificates(trained.artifact)
        _require_certificates(_heads(trained.artifact), certificates)
        hashes = {
            _ARTIFACT_HASH: artifact.artifact_hash(trained.artifact),
            _WEIGHTS_HASH: artifact.weights_hash(trained.artifact),
        }
        label_sets = {_LABEL_SET + certificate.label_set_hash: "certified" for certificate in certificates}
        evidence = evidence_of(certificates, trained.metrics)
        client = self.connect(create=True)
        logged = self._store.log(trained, figures or {}, tags=hashes)
        version = self._store.register(logged, hashes | label_sets | {_EVIDENCE: Evidence("", evidence).to_json()})
        client.set_registered_model_alias(self._name, self._settings.candidate_alias, version)
        return ModelVersion(
            self._name, version, logged.run_id, hashes[_ARTIFACT_HASH], f"models:/{self._name}/{version}"
        )

    # --- batch ----------------------------------------------------------------------------------------------------

    def resolve(self, *, version: str | None = None, alias: str | None = None) -> ResolvedModel:
        """The model behind ``version``, else ``alias``, else the champion: resolved once, downloaded, checked.

        Raises RegistryError if there is no such version or alias, saying what there is, and ModelContractError if
        its files are not the ones that were registered.
        """
        found = self._version(version) if version else self._alias(alias or self._settings.champion_alias)
        from catalog_enrichment.models import artifact  # torch: seconds, and not before the registry has answered
        from catalog_enrichment.models.predictor import Predictor

        folder = self._store.download(found)
        artifact.verify(folder)
        actual, registered = artifact.artifact_hash(folder), found.tags.get(_ARTIFACT_HASH)
        if actual != registered:
            raise ModelContractError(
                f"{self._name} version {found.version}: the files in {folder} hash to {actual}, registered was "
                f"{registered}. Someone changed them; go back to another version or register anew."
            )
        return ResolvedModel(
            name=self._name,
            version=str(found.version),
            artifact=folder,
            artifact_hash=actual,
            weights_hash=artifact.weights_hash(folder),
            numeric_path=Predictor.numeric_path,
            heads=_heads(folder),
            certificates=tuple(_certificates(folder)),
        )

    def check_labels(self, model: ResolvedModel, words: Dictionary) -> None:
        """Raises ModelContractError, with every difference, unless the model speaks the dictionary's language."""
        problems = []
        for name, head in model.heads.items():
            if name not in words:
                problems.append(f"{name}: not in the dictionary, which has {sorted(words.attributes)}")
                continue
            if head.cardinality != words[name].cardinality:
                problems.append(f"{name}: the model has {head.cardinality}, the dictionary {words[name].cardinality}")
            if unknown := sorted(set(head.labels) - set(words[name].values)):
                problems.append(f"{name}: values that the dictionary does not have: {unknown}")
        if problems:
            raise ModelContractError(
                f"{model.name} version {model.version} does not fit {self._config.catalog.dictionary}; train anew or "
                "use the dictionary it was trained with:\n  - " + "\n  - ".join(problems)
            )

    # --- promotion ------------------------------------------------------------------------------------------------

    def promote_through_gate(
        self, version: str | None = None, *, expected_current: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Promote ``version`` (default: the candidate) if the policy lets it; returns the job's summary.

        ``expected_current``: refuse unless this version is the champion now (NO_CHAMPION: unless there is none);
        by default the one that the gate compared with. Raises GateRefused with every reason.
        """
        policy = promotion_gate.load_policy(resources.locate(self._settings.promotion_policy, self._config.path(".")))
        candidate = self.resolve(version=version, alias=self._settings.candidate_alias)
        words = resources.locate(self._config.catalog.dictionary, self._config.path("."))
        self.check_labels(candidate, dictionary.load(words))
        current = self.champion()
        result = promotion_gate.gate(
            self.evidence(current) if current else None, self.evidence(candidate.version), policy
        )
        summary = {
            "model_name": self._name,
            "model_version": candidate.version,
            "champion_before": current,
            "passed": result.passed,
            "reasons": list(result.reasons),
        }
        if dry_run:
            return {"status": "dry_run", **summary}
        self._refuse(result, candidate.version)
        expected = current if expected_current is None else expected_current
        self.promote(candidate.version, None if expected == NO_CHAMPION else expected)
        return {"status": "unchanged" if current == candidate.version else "promoted", **summary}

    def promote(self, version: str, expected_current: str | None) -> None:
        """Make ``version`` the champion if ``expected_current`` (None: nobody) is the champion now.

        Promoting the champion again changes nothing. Raises GateRefused if the alias moved meanwhile.
        """
        with self._promotion_lock():
            current = self.champion()
            if current != expected_current:
                raise GateRefused(
                    f"the champion of {self._name} is version {current or NO_CHAMPION} now, expected was "
                    f"{expected_current or NO_CHAMPION}: someone else promoted. Look at it and promote again."
                )
            if current != version:
                self._version(version)
                # first the tags: a champion always knows whom it replaced
                self._tag(version, {_PREVIOUS: current or "", _PROMOTED_AT: datetime.now(UTC).isoformat()})
                self._move_champion(version)

    def go_back(self) -> dict[str, Any]:
        """Make the champion's predecessor the champion again; returns the job's summary.

        Going back twice goes back two steps. Raises RegistryError if there is no champion or none before it.
        """
        with self._promotion_lock():
            current = self._alias(self._settings.champion_alias)
            previous = current.tags.get(_PREVIOUS)
            if not previous:
                raise RegistryError(f"{self._name} version {current.version} replaced nobody: there is no way back")
            self._version(previous)
            self._tag(current.version, {_WITHDRAWN_AT: datetime.now(UTC).isoformat()})
            self._move_champion(previous)
        return {
            "status": "went_back",
            "model_name": self._name,
            "model_version": previous,
            "champion_before": str(current.version),
        }

    def champion(self) -> str | None:
        """The champion's version; None if there is none."""
        aliases = mlflow_store.aliases(self.connect(), self._name)
        return aliases.get(self._settings.champion_alias)

    def evidence(self, version: str) -> Evidence:
        """What the gate looks at, as it was recorded when the version was registered."""
        tags = self._version(version).tags
        if _EVIDENCE not in tags:
            raise ModelContractError(f"{self._name} version {version} was not registered by train_model: no evidence")
        return Evidence.from_json(version, tags[_EVIDENCE])

    def _refuse(self, result: GateResult, version: str) -> None:
        if not result.passed:
            reasons = "\n  - ".join(result.reasons)
            raise GateRefused(f"{self._name} version {version} stays a candidate:\n  - {reasons}")

    @contextmanager
    def _promotion_lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self._store.lock_folder() / f".{self._name}.promotion.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=self._settings.timeout_seconds):
                yield
        except Timeout:
            raise GateRefused(f"somebody else is promoting {self._name} ({path}); try again") from None

    def _move_champion(self, version: str) -> None:
        self.connect().set_registered_model_alias(self._name, self._settings.champion_alias, version)
        if (now := self.champion()) != version:
            raise GateRefused(f"set the champion of {self._name} to {version}, but it reads {now}: someone moved it")

    def _tag(self, version: str, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.connect().set_model_version_tag(self._name, version, key, value)

    def _version(self, version: str) -> Any:
        return mlflow_store.find(self.connect(), self._name, version=version)

    def _alias(self, alias: str) -> Any:
        return mlflow_store.find(self.connect(), self._name, alias=alias)


def evidence_of(
    certificates: list[Certificate], metrics: Mapping[str, float]
) -> dict[str, promotion_gate.AttributeEvidence]:
    """The gate's evidence, from the certificates with text and picture and the metrics of the test fold."""
    return {
        certificate.attribute: promotion_gate.AttributeEvidence(
            certified=certificate.threshold is not None,
            certified_recall=metrics.get(f"{certificate.attribute}/certified_recall"),
            written_precision=metrics.get(f"{certificate.attribute}/certified_precision")
            if metrics.get(f"{certificate.attribute}/certified_accepted")
            else None,
        )
        for certificate in certificates
        if certificate.modality is Modality.BOTH
    }


def _require_certificates(heads: Mapping[str, Head], certificates: list[Certificate]) -> None:
    have = {(certificate.attribute, certificate.modality) for certificate in certificates}
    missing = [f"{name} ({path})" for name in heads for path in Modality if (name, path) not in have]
    if missing or not heads:
        raise ModelContractError(
            f"the artifact has no certificate for {', '.join(missing) or 'anything'}; an abstention is one too. "
            "It is not registered."
        )


def _heads(folder: Path) -> dict[str, Head]:
    from catalog_enrichment.models import artifact

    return artifact.heads(folder)


def _certificates(folder: Path) -> list[Certificate]:
    from catalog_enrichment.models import artifact
    from catalog_enrichment.precision.certificate import Certificate

    return [Certificate.from_dict(content) for content in artifact.read_certificates(folder)]
