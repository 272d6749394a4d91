"""The config file (TOML) of every job: read, checked, resolved and hashed once, on the driver.

Every section is a frozen dataclass; the text under a field is its documentation. An unknown key, a wrong type or
a value out of range is a ConfigError that names the key and, for unknown keys, the available keys. Nothing on a
worker reads the environment or a config file.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from catalog_enrichment import masking
from catalog_enrichment.config import model_registry
from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.comparison import CompareConfig
from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.images import ImagesConfig, StoredImagesConfig
from catalog_enrichment.config.operations import (
    AuditConfig,
    DeliveryConfig,
    DriftConfig,
    LineageConfig,
    LogsConfig,
    MetricsConfig,
)
from catalog_enrichment.config.proposer import ProposalsConfig, ProposerConfig
from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.config.strict import check_ranges
from catalog_enrichment.records import stable_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkConfig:
    master: str = "local[2]"
    """Ignored under spark-submit, which sets its own, and with a `remote` server."""
    remote: str = ""
    """A Spark Connect server: `sc://HOST:PORT` with its parameters (`/;token=...;use_ssl=true`); `platform` for the
    session that the platform has made (Databricks serverless and standard clusters, `spark-submit --remote`);
    `local-connect` starts a server with `master` on this machine. Empty: Spark's driver runs in the job's process."""
    driver_memory: str = "2g"
    """Heap of the JVM, as Spark writes sizes. Ignored under spark-submit."""
    conf: dict[str, str] = field(default_factory=dict)
    """Further Spark settings, passed on unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MlflowConfig:
    tracking_uri: str
    """`sqlite:///PATH` (relative paths start at `root`) or the URI of a server."""
    registry_uri: str = ""
    """Where versions are registered, if not in `tracking_uri`: `databricks-uc` or `databricks-uc://PROFILE` (Unity
    Catalog), `uc:http://HOST:PORT` (an open-source Unity Catalog server), `databricks` (a workspace's own registry), or
    another MLflow server. Needed where `tracking_uri` is `databricks`."""
    artifact_path: str = ""
    """Folder for the artifacts of a local store, also of a store that was moved or copied; leave empty with a server,
    which has its own."""
    experiment: str = "catalog-enrichment"
    """MLflow experiment of the trainings and comparisons; made if it does not exist. At most 500 characters."""
    model_name: str = "catalog-enrichment"
    """Name of the registered model, whose versions the jobs train and run: at most 256 letters, digits, spaces, `_`,
    `-` and `.`; in Unity Catalog CATALOG.SCHEMA.MODEL."""
    promotion_policy: str = "policy:promotion.v1.toml"
    """Rules of promote_model: `policy:NAME.toml` for a shipped file, or a path relative to `root`."""
    timeout_seconds: int = 10
    """How long to wait for a tracking server before giving up."""

    def __post_init__(self) -> None:
        check_ranges("mlflow", self, timeout_seconds=(1, 3600))
        model_registry.check_registry_uri(self.registry_uri, self.tracking_uri)
        model_registry.check_model_name(self.model_name, model_registry.kind_of(self.registry_uri or self.tracking_uri))
        if not self.experiment.strip() or len(self.experiment) > 500:
            raise ValueError(
                f"mlflow.experiment must have 1 to 500 characters, not {len(self.experiment.strip())}: MLflow takes no "
                "others"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    recipe: str
    """`recipes:NAME.toml` for a shipped recipe, or a path. It defines the model and its fit."""
    set: dict[str, Any] = field(default_factory=dict)
    """Changed recipe keys: {"model.fusion.kind" = "late"}, as in `[[compare.recipes]]`. For a vote, they change every
    member."""
    extraction: str = "recipes:extract.toml"
    """`recipes:NAME.toml` or a path: the recipe of the extractor of the attributes of kind `number` and `text`."""
    attributes: list[str] = field(default_factory=list)
    """Attributes to learn; empty: every enabled attribute of the dictionary."""
    folds: FoldsConfig = field(default_factory=FoldsConfig)
    label_uses_per_round: int = 5
    """After so many candidates of one certification fold, a new fold is drawn from products that never certified, if
    they are enough (PRECISION, certificate 6)."""
    min_label_count: int = 20
    """Values with fewer labelled products are not learned."""
    max_unlabelled: int = 20_000
    """Unlabelled products scored for the threshold grid and the drift reference."""
    has_value: bool = True
    """Multiply scores by the probability that the product has a value at all, where labelled and unlabelled products
    differ. false: where all unlabelled products have a value, which their shops never give."""
    unimodal_baselines: bool = True
    """Also fit the recipe image-only and text-only, for the report."""
    checkpoints: str = ""
    """Folder from which an interrupted training resumes, with the same result; empty: it starts again. Every stage of a
    fit writes a file there, whose name is a hash of its inputs; delete them when the model is registered."""
    compute_types: list[Literal["fp32", "bf16"]] = field(default_factory=list)
    """Number types to certify, on the same folds: each gets its own certificates at all of `precision.delta`, and
    scores all products. The first is evaluated, and the promotion gate compares it. Empty: fp32, and bf16 where this
    machine multiplies it."""
    threads: int = 0
    """torch threads; 0: all cores."""
    processes: int = 1
    """Processes that fit together on this machine, through Spark's TorchDistributor: a process per GPU, if any."""

    def __post_init__(self) -> None:
        check_ranges("training", self, label_uses_per_round=(1, 2**31), min_label_count=(1, 2**31))
        check_ranges("training", self, max_unlabelled=(0, 2**31), threads=(0, 4096), processes=(1, 4096))
        if not self.folds.train:
            raise ValueError("training.folds.train must be positive: the weights are fitted on it")
        if len(set(self.compute_types)) < len(self.compute_types):
            raise ValueError(f"training.compute_types must name each number type once, not {self.compute_types}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionConfig:
    target: float = 0.95
    """Minimum precision: written values are right at least this often."""
    delta: float = 0.05
    """Probability with which the first certificate on a label set may be wrong; the k-th gets delta / (k (k + 1))."""
    step: float = 1.02
    """Ratio of expected accepted counts between neighbouring thresholds."""
    suggest_precision: float = 0.80
    """Below the threshold, values are suggested down to the lowest score at which the suggestions have this precision
    on the choosing fold. Where a merchant value exists, only a score above the threshold is suggested."""
    valid_days: int = 90
    """Days until a certificate expires."""
    noticeable_share: float = 0.25
    """Merchants' labels certify only where labelled and unlabelled products are enough for a comparison: if this share
    of the unlabelled products had no value and low scores, the comparison would notice it with probability .8.
    1: whatever their number."""
    provisional_cap: int = 10_000
    """At most this many values per attribute stand under provisional certificates, those with the highest scores; the
    others wait until an audit confirms the certificate (PRECISION, certificate 11). Lowering it retracts nothing."""

    def __post_init__(self) -> None:
        check_ranges("precision", self, target=(0.5, 0.9999), delta=(1e-6, 0.5), step=(1.001, 10))
        check_ranges("precision", self, suggest_precision=(0, self.target), noticeable_share=(0.01, 1))
        check_ranges("precision", self, valid_days=(1, 3650), provisional_cap=(0, 2**40))


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrichConfig:
    alias: str = ""
    """Registry alias to run; empty: the champion."""
    model_version: str = ""
    """Run this version instead of an alias."""
    max_products: int = 0
    """Score at most this many products, newest first; 0: all."""
    max_changes: int = 1_000_000
    """Refuse (exit 3) a run that would publish or retract more values than this."""
    compute_type: Literal["auto", "fp32", "bf16"] = "auto"
    """Number type of the scores. auto: the fastest that the model version is certified for and all workers' processors
    (or GPUs) multiply; the log says which and why. Name a type where the machines of your runs differ: a run in
    another type is another run, which decides again what another certificate could change. Do not name one because it
    may write more: whoever chooses between certificates by what they allow spends `precision.delta` on each of them."""
    batch_rows: int = 512
    """Products per Arrow batch of the scoring; within a batch, texts of like length are scored together."""
    batch_bytes: str = "16m"
    """A batch closes earlier at this many bytes."""
    forward_rows: int = 0
    """Most products per forward pass; 0: 32 on a CPU, 256 on a GPU. Long texts make them fewer, and so does a pass for
    which the memory was too small."""
    partitions: int = 0
    """Tasks of the scoring stage; 0: two per core."""
    disabled_shops: list[str] = field(default_factory=list)
    """Shops that get no values, from the next publish on."""
    disabled_categories: list[str] = field(default_factory=list)
    """Category paths that get no values, from the next publish on; a path covers everything below it."""
    snapshot_suite: str = "schemas:expectations/products_snapshot.v1.json"
    """great_expectations suite that the products must pass before a run: `schemas:PATH`, or relative to `root`."""

    def __post_init__(self) -> None:
        model_registry.check_alias("enrich.alias", self.alias)
        limit = (0, 2**40)
        check_ranges("enrich", self, max_products=limit, max_changes=limit, partitions=limit, forward_rows=limit)
        check_ranges("enrich", self, batch_rows=(1, 100_000))
        if not re.fullmatch(r"[1-9]\d*[bkmg]?", self.batch_bytes):
            raise ValueError(f"enrich.batch_bytes must be a size like 16m, not {self.batch_bytes!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillConfig:
    """The slice; empty means no restriction."""

    categories: list[str] = field(default_factory=list)
    """Category paths; a path covers everything below it."""
    updated_from: str = ""
    """ISO date or time, inclusive; in UTC if it names no zone."""
    updated_until: str = ""
    """ISO date or time, exclusive."""
    product_ids: list[str] = field(default_factory=list)
    """Ids of the products to backfill; the others are left out."""
    product_ids_file: str = ""
    """One product id per line, instead of or beside `product_ids`."""
    chunk_products: int = 50_000
    """Products per chunk. Every chunk is a run: readers see all of it or none."""

    def __post_init__(self) -> None:
        check_ranges("backfill", self, chunk_products=(1, 2**40))
        for name in ("updated_from", "updated_until"):
            if getattr(self, name):
                object.__setattr__(self, name, _utc_time(f"backfill.{name}", getattr(self, name)))


@dataclass(frozen=True, kw_only=True, slots=True)
class MaintenanceConfig:
    retention_hours: int = 168
    """Files of superseded table versions, files of killed tasks and checkpoints of killed runs are deleted when they
    are older than this. Longer than any job takes, because a reader keeps the version that it opened; less than 24
    needs `maintain_catalog --force`, more than a week is refused: Delta forgets then when a file was superseded."""
    compact_files: int = 16
    """A table with this many files below 8 MiB gets fewer, larger files. Files of which many can hold a row about the
    same product are joined in any case."""
    keep_days: int = 400
    """Rows of runs that finished longer ago are deleted where no job needs them; 0 keeps all of them. Such rows are
    abstentions with a newer decision (what was published or suggested is always kept), and quarantined rows that are
    neither of the newest import of all rows of their source, or one after it, nor of a product's present content."""

    def __post_init__(self) -> None:
        check_ranges("maintenance", self, retention_hours=(0, 168), compact_files=(3, 100_000), keep_days=(0, 36_500))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    path: str = "reports"
    """Folder of the HTML reports; relative to `root`."""
    samples: int = 24
    """Products shown per attribute."""

    def __post_init__(self) -> None:
        check_ranges("report", self, samples=(0, 1000))


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    catalog: CatalogConfig
    mlflow: MlflowConfig
    root: str = "."
    """Base of relative paths; itself relative to the config file's folder, or for a shipped config (`config:NAME`),
    which may be inside an installed package, to the working directory."""
    source: SourceConfig | None = None
    """Needed by import_products only."""
    training: TrainingConfig | None = None
    """Needed by train_model and compare_models."""
    proposals: ProposalsConfig | None = None
    """Needed by import_proposals only."""
    proposer: ProposerConfig | None = None
    """Needed by certify_model only."""
    compare: CompareConfig | None = None
    """Needed by compare_models only."""
    spark: SparkConfig = field(default_factory=SparkConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    enrich: EnrichConfig = field(default_factory=EnrichConfig)
    backfill: BackfillConfig = field(default_factory=BackfillConfig)
    maintenance: MaintenanceConfig = field(default_factory=MaintenanceConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    """Needed by deliver_values; export_changes keeps the positions of its consumers there."""
    audit: AuditConfig = field(default_factory=AuditConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    lineage: LineageConfig = field(default_factory=LineageConfig)

    def path(self, relative: str) -> Path:
        """Return the absolute path of a path in this config."""
        return (Path(self.root) / Path(relative).expanduser()).resolve()

    def pictures(self) -> StoredImagesConfig:
        """Return `[images]` for code that opens pictures, with absolute folders.

        By default `fetch.allowed_folders` are those of the source, and `store` is in the catalog.
        """
        given = self.images.fetch.allowed_folders
        folders = tuple(folder if "://" in folder else str(self.path(folder)) for folder in given)
        if not given and self.source is not None:
            folders = self.source.picture_folders(Path(self.root))
        store = self.images.store or f"{self.catalog.path.rstrip('/')}/pictures"
        fetch = replace(self.images.fetch, allowed_folders=folders)
        settings = self.catalog.store_settings() if "://" in store else ()
        store = store if "://" in store else str(self.path(store))
        images = {field.name: getattr(self.images, field.name) for field in fields(ImagesConfig)}
        places = {"store": store, "fetch": fetch, "root": str(self.path("."))}
        return StoredImagesConfig(**images | places, store_settings=settings)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def secrets(self) -> frozenset[str]:
        """Return passwords, keys and tokens in URIs and in settings whose name tells a secret, and the source's."""
        return masking.secrets_in(self.as_dict()) | (self.source.secrets() if self.source else frozenset())

    def without_secrets(self) -> dict[str, Any]:
        """Return the config for storing and printing."""
        content: dict[str, Any] = masking.masked_content(self.as_dict(), self.secrets())
        return content

    def hash(self, *sections: str) -> str:
        """Return the hash of the named sections (all, if none is named): the config's part of a run id.

        The way to reach a catalog's store is not part of it: another endpoint or key leaves the run the same.
        """
        content = self.as_dict()
        for name in ("storage", "lease_seconds"):
            del content["catalog"][name]
        return stable_hash({name: content[name] for name in sections or sorted(content)})


def _utc_time(name: str, text: str) -> str:
    """Return an ISO 8601 date or time as a time in UTC, in a form that Spark casts; a time without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be an ISO date or time like 2026-01-31, not {text!r}") from None
