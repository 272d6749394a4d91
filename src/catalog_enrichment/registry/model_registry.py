"""The model registry (MLflow): log and register a trained model, resolve a version, promote it, go back.

Two aliases: `candidate` is the newest version, `champion` the version that the batch jobs run. Training registers,
batch jobs resolve; the gate's rules are in :mod:`promotion_gate`, the moves of the champion alias in :mod:`promotion`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import dictionary, resources
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, GateRefused, ModelContractError
from catalog_enrichment.models import compute_types
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import mlflow_store, promotion, promotion_gate
from catalog_enrichment.registry.mlflow_run import MlflowRun, RunStart
from catalog_enrichment.registry.model_card import model_card
from catalog_enrichment.registry.promotion import NO_CHAMPION, ChampionAlias
from catalog_enrichment.registry.promotion_gate import Case, Evidence, GateResult, Policy, Verdict
from catalog_enrichment.registry.references import EarlyGate, References
from catalog_enrichment.registry.trained_model import TrainedModel, require_certificates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.models.spec import Head
    from catalog_enrichment.precision.certificate import Certificate

_ARTIFACT_HASH, _WEIGHTS_HASH = "artifact_hash", "weights_hash"
"""Version tags."""
_LABEL_SET = "label_set."
"""Begin of a version tag of releases that counted the uses of a label set by it."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version that was registered."""

    name: str
    version: str
    run_id: str
    """Of the MLflow run that logged it."""
    uri: str
    """For MLflow's own loaders: models:/NAME/VERSION."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """One model version on local disk, its files verified. A run uses one (I3)."""

    name: str
    version: str
    artifact: Path
    """The folder with model.safetensors and the rest."""
    artifact_hash: str
    weights_hash: str
    preprocessing_hash: str
    heads: dict[str, Head]
    certificates: tuple[Certificate, ...]
    """Of every number type it is certified for; of one, :meth:`in_numbers`."""
    numbers: str = "fp32"
    """Number type to compute in (models.compute_types)."""
    why_numbers: str = ""
    """Why a run computes in it, a sentence; empty before :meth:`for_run`."""

    def for_run(self, wanted: str, enabled: Collection[str]) -> ResolvedModel:
        """In the number type of a run. ``wanted``: `enrich.compute_type`; ``enabled``: names of attributes.

        Raises ConfigError if the version is not certified for ``wanted``, or this machine is none for it.
        """
        if self.why_numbers:
            return self
        certified: dict[str, set[tuple[str, Modality]]] = {one.compute_type: set() for one in self.certificates}
        for one in self.certificates:
            if one.threshold is not None and one.attribute in enabled:
                certified[one.compute_type].add((one.attribute, one.modality))
        chosen = compute_types.choose(wanted, certified)
        return replace(self.in_numbers(chosen.numbers), why_numbers=chosen.why)

    def in_numbers(self, numbers: str) -> ResolvedModel:
        """The model as a run uses it: computing in ``numbers``, with the certificates of that number type alone."""
        certificates = tuple(one for one in self.certificates if compute_types.numbers_of(one.compute_type) == numbers)
        return replace(self, certificates=certificates, numbers=numbers)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionRequest:
    version: str | None = None
    """None: the candidate."""
    expected_current: str | None = None
    """The version that must be the champion now (NO_CHAMPION: there must be none); None: the one that the gate compared
    with."""
    dry_run: bool = False
    override: str | None = None
    """Why to promote although the gate is inconclusive; recorded with the version. What the policy refuses cannot be
    overridden."""

    def __post_init__(self) -> None:
        if self.override is not None and not self.override.strip():
            raise ConfigError("--override needs a reason, which is recorded with the version")


class Registry:
    """The registered model that the config names. Connects when first used."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = config.mlflow
        self._name = config.mlflow.model_name
        self._store = mlflow_store.Store(config)
        self._champion_alias = ChampionAlias(self._store, config.mlflow)

    def connect(self, create: bool = False) -> MlflowClient:
        """A client of the store. ``create``: make a sqlite store that does not exist yet.

        Raises RegistryError, within ``mlflow.timeout_seconds`` for a server that cannot be reached.
        """
        return self._store.client(create)

    # --- training -------------------------------------------------------------------------------------------------

    def certified_without_label_uses(self) -> list[str]:
        """Weights hashes of the versions of releases that had no table `label_uses`, oldest first."""
        versions = mlflow_store.all_versions(self.connect(create=True), self._name)
        old = [version for version in versions if any(tag.startswith(_LABEL_SET) for tag in version.tags)]
        return [str(version.tags[_WEIGHTS_HASH]) for version in sorted(old, key=lambda version: int(version.version))]

    def early_gate(self) -> EarlyGate:
        """The gate for a model that is not registered yet, with the policy and the champions as they are now."""
        client, policy = self.connect(create=True), self._policy()
        current = self.champion() if mlflow_store.all_versions(client, self._name) else None
        tags = {} if current is None else self._find(version=current).tags
        champion = None if current is None else Evidence.from_tags(current, tags)
        if champion is None:
            return EarlyGate(policy, None, {})
        return EarlyGate(policy, self._references(champion), self._labels(champion.version))

    def training_run(self, recipe: str, job: str) -> MlflowRun:
        """The MLflow run of a training that begins now: a context manager that ends it. ``job``: the job's name."""
        now = datetime.now(UTC)
        return self._store.start_run(RunStart(name=f"{recipe} {now:%Y-%m-%d %H:%M:%S}", at=now, recipe=recipe, job=job))

    def register(
        self, trained: TrainedModel, figures: Mapping[str, Figure] | None = None, run: MlflowRun | None = None
    ) -> ModelVersion:
        """Log the training in ``run`` (without one: in a run of its own), register its model as a new version and make
        that version the candidate.

        Raises ModelContractError, before anything is logged, if the artifact is damaged or has no certificate for a
        head on a modality path.
        """
        from catalog_enrichment.models import artifact

        artifact.verify(trained.artifact)
        certificates = _certificates(trained.artifact)
        require_certificates(_heads(trained.artifact), certificates)
        hashes = {
            _ARTIFACT_HASH: artifact.artifact_hash(trained.artifact),
            _WEIGHTS_HASH: artifact.weights_hash(trained.artifact),
        }
        of_first_path = [one for one in certificates if one.compute_type == certificates[0].compute_type]
        evidence = Evidence.from_certificates(of_first_path, trained.held_out, trained.warnings)
        client = self.connect(create=True)
        if run is None:
            with self.training_run(str(trained.params.get("recipe", "certificates")), "") as own:
                logged = self._store.log(own, trained, figures or {})
        else:
            logged = self._store.log(run, trained, figures or {})
        version = self._store.register(logged, hashes | evidence.to_tags(), model_card(trained))
        client.set_registered_model_alias(self._name, self._settings.candidate_alias, version)
        return ModelVersion(self._name, version, logged.run_id, f"models:/{self._name}/{version}")

    def log_page(self, version: ModelVersion, page: Path) -> None:
        """Add a page about the version to its MLflow run, as an artifact with the file's name.

        Raises RegistryError, or TemporaryFailure, if the store does not take it.
        """
        self._store.log_file(version.run_id, page)

    # --- batch ----------------------------------------------------------------------------------------------------

    def resolve(self, *, version: str | None = None, alias: str | None = None) -> ResolvedModel:
        """The model of ``version``, else of ``alias``, else the champion, downloaded and verified.

        Raises RegistryError, listing the versions and aliases, if there is no such version or alias, and
        ModelContractError if its files are not the ones that were registered.
        """
        if version:
            registered = self._find(version=version)
        else:
            registered = self._find(alias=alias or self._settings.champion_alias)
        from catalog_enrichment.models import artifact  # imports torch, which takes seconds: after the registry's check

        folder = self._store.download(registered)
        artifact.verify(folder)
        actual, expected = artifact.artifact_hash(folder), registered.tags.get(_ARTIFACT_HASH)
        if actual != expected:
            raise ModelContractError(
                f"{self._name} version {registered.version}: the files in {folder} have hash {actual}, but the "
                f"registered files had {expected}. They were changed; use another version or register a new one."
            )
        return ResolvedModel(
            name=self._name,
            version=str(registered.version),
            artifact=folder,
            artifact_hash=actual,
            weights_hash=artifact.weights_hash(folder),
            preprocessing_hash=artifact.preprocessing_hash(folder),
            heads=_heads(folder),
            certificates=tuple(_certificates(folder)),
        )

    def check_labels(self, model: ResolvedModel, words: Dictionary) -> None:
        """Raises ModelContractError, listing every difference, if the model's labels do not fit the dictionary."""
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
                f"{model.name} version {model.version} does not fit {self._config.catalog.dictionary}; train again or "
                "use the dictionary it was trained with:\n  - " + "\n  - ".join(problems)
            )

    def check_validity(self, model: ResolvedModel, words: Dictionary, now: datetime) -> list[str]:
        """A sentence for every enabled attribute and modality path whose certificates have expired by ``now``.

        Raises GateRefused if that is so for all that the model is certified for.
        """
        last: dict[tuple[str, Modality], datetime] = {}
        for one in model.certificates:
            if one.threshold is not None and one.attribute in words.enabled:
                path = (one.attribute, one.modality)
                last[path] = max(one.expires_at, last.get(path, one.expires_at))
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

    # --- promotion ------------------------------------------------------------------------------------------------

    def promote_through_gate(self, request: PromotionRequest) -> dict[str, Any]:
        """Promote a version if the policy allows it; returns the job's summary.

        Raises GateRefused with every reason if the policy refuses it, or if the test products decide nothing and the
        request does not override that.
        """
        policy = self._policy()
        candidate = self.resolve(version=request.version, alias=self._settings.candidate_alias)
        words = resources.locate(self._config.catalog.dictionary, self._config.path("."))
        self.check_labels(candidate, dictionary.load(words))
        current = self.champion()
        result = promotion_gate.gate(self._case(candidate, current, policy), policy)
        inconclusive = result.verdict is Verdict.INCONCLUSIVE
        details = {
            "verdict": result.verdict.value,
            "reasons": list(result.reasons),
            "comparisons": list(result.comparisons),
            "override": request.override if inconclusive else None,
        }
        summary = {
            "model_name": self._name,
            "model_version": candidate.version,
            "champion_before": current,
            "passed": result.verdict is Verdict.PASSED,
            **details,
        }
        if request.dry_run:
            return {"status": "dry_run", **summary}
        if result.verdict is Verdict.REFUSED or (inconclusive and not request.override):
            raise GateRefused(_refusal(self._name, candidate.version, result), summary)
        expected = current if request.expected_current is None else request.expected_current
        self.promote(candidate.version, None if expected == NO_CHAMPION else expected, details)
        return {"status": "unchanged" if current == candidate.version else "promoted", **summary}

    def _case(self, candidate: ResolvedModel, current: str | None, policy: Policy) -> Case:
        """What the gate has to know; the champion's files are fetched for its labels."""
        evidence = self.evidence(candidate.version)
        rule = self._config.precision
        case = Case(candidate=evidence, champion=None, target=rule.target, delta=rule.delta, now=datetime.now(UTC))
        if current is None:
            return case
        if current == candidate.version:
            return replace(case, champion=self.evidence(current))
        champion = self.evidence(current)
        labels = {name: head.labels for name, head in candidate.heads.items()}
        references, own = self._references(champion, evidence.version), self.held_out(candidate.version)
        comparisons = [
            comparison
            for path in sorted(champion.certified & evidence.certified)
            for comparison in references.comparisons(path, own, policy, evidence.paths[path])
        ]
        differences = promotion_gate.label_differences(self._labels(current), labels)
        return replace(case, champion=champion, comparisons=comparisons, label_differences=differences)

    def _labels(self, version: str) -> dict[str, tuple[str, ...]]:
        """Attribute -> the values that a version can write; its files are fetched."""
        heads = _heads(self._store.download(self._find(version=version)))
        return {name: head.labels for name, head in heads.items()}

    def _references(self, champion: Evidence, candidate: str = "") -> References:
        """What the gate compares a candidate with; ``candidate``: its version, if it has one."""
        versions = {str(version.version): version for version in mlflow_store.all_versions(self.connect(), self._name)}
        former = [
            evidence
            for name in promotion.former_champions(list(versions.values()))
            if name not in {candidate, champion.version}
            and (evidence := Evidence.from_tags(name, versions[name].tags)) is not None
        ]
        decisions = {
            evidence.version: self._store.held_out(versions[evidence.version]) for evidence in (champion, *former)
        }
        recorded = [evidence for evidence in former if decisions[evidence.version] is not None]
        return References(champion, recorded, decisions)

    def history(self) -> list[dict[str, Any]]:
        """Every promotion and going back, oldest first: see :func:`promotion.history`."""
        return promotion.history(mlflow_store.all_versions(self.connect(), self._name))

    def promote(self, version: str, expected_current: str | None, details: Mapping[str, Any] | None = None) -> None:
        """Make ``version`` the champion without the gate: see :meth:`ChampionAlias.promote`."""
        self._champion_alias.promote(version, expected_current, details)

    def go_back(self) -> dict[str, Any]:
        """Make the champion's predecessor the champion again; returns the job's summary.

        Raises RegistryError if there is no champion or it has no predecessor.
        """
        withdrawn, restored = self._champion_alias.go_back()
        versions = {"model_version": restored, "champion_before": withdrawn}
        return {"status": "went_back", "model_name": self._name} | versions

    def champion(self) -> str | None:
        """The champion's version; None if there is none."""
        return self._champion_alias.current()

    def evidence(self, version: str) -> Evidence:
        """The gate's evidence, as recorded when the version was registered."""
        evidence = Evidence.from_tags(version, self._find(version=version).tags)
        if evidence is None:
            raise ModelContractError(f"{self._name} version {version} was not registered by train_model: no evidence")
        return evidence

    def held_out(self, version: str) -> list[HeldOutDecision] | None:
        """What the version would write on its test fold; None if it was not recorded."""
        return self._store.held_out(self._find(version=version))

    def lineage(self, version: str) -> dict[str, Any]:
        """Where the version comes from (`TrainedModel.lineage`); empty if it was not recorded."""
        return self._store.lineage(self._find(version=version))

    def _policy(self) -> Policy:
        return promotion_gate.load_policy(resources.locate(self._settings.promotion_policy, self._config.path(".")))

    def _find(self, *, version: str = "", alias: str = "") -> Any:
        return mlflow_store.find_version(self.connect(), self._name, version=version, alias=alias)


def _refusal(name: str, version: str, result: GateResult) -> str:
    advice = ""
    if result.verdict is Verdict.INCONCLUSIVE:
        advice = "\nLabel more products and train again, or promote with --override REASON, which is recorded."
    reasons = "\n  - ".join(result.reasons)
    return f"{name} version {version} stays a candidate ({result.verdict}):\n  - {reasons}{advice}"


def _heads(folder: Path) -> dict[str, Head]:
    from catalog_enrichment.models import artifact

    return artifact.heads(folder)


def _certificates(folder: Path) -> list[Certificate]:
    from catalog_enrichment.models import artifact
    from catalog_enrichment.precision.certificate import Certificate

    return [Certificate.from_dict(content) for content in artifact.read_certificates(folder)]
