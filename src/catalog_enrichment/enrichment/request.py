"""What a run is asked to do: the slice of the catalog, the model version, and the rules and switches in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import ledger, review_tables, runs, switches
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.enrichment.pending import DecisionScope
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inference import workers
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus, Standard
from catalog_enrichment.reasons import DIFFERENCES_KEY, PROPOSER_KEY, STOPPED_KEY
from catalog_enrichment.records import RunKind, make_run_id, stable_hash, strictly_later
from catalog_enrichment.registry.label_check import LabelCheck, check_labels
from catalog_enrichment.spark import category_filters
from catalog_enrichment.spark.frames import with_ids

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.config.schema import Config, EnrichConfig
    from catalog_enrichment.dictionary import Attribute, Dictionary
    from catalog_enrichment.models.compute_types import WhyNot
    from catalog_enrichment.monitoring.stages import Stages
    from catalog_enrichment.registry.model_registry import ResolvedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The slice of the catalog that a run is asked for; empty fields do not restrict it."""

    categories: tuple[str, ...] = ()
    updated_from: str = ""
    updated_until: str = ""
    product_ids: tuple[str, ...] = ()
    chunk: tuple[int, int] | None = None
    """(i, n): the i-th of n chunks of a backfill: ``first_id`` and ``before_id`` bound it."""
    first_id: str = ""
    """The smallest product id of the slice."""
    before_id: str = ""
    """The slice ends before this product id."""
    max_products: int = 0
    """Newest first; 0: all. Applied by :mod:`select` to the products that need scoring."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that restrict; of the product ids only a hash, since there may be a million of them."""
        restrictions = {name: value for name, value in asdict(self).items() if value}
        if self.product_ids:
            restrictions["product_ids"] = stable_hash(sorted(self.product_ids))
        return restrictions

    def select(self, products: DataFrame) -> DataFrame:
        """Return the products inside the window."""
        import pyarrow as pa
        from pyspark.sql import functions as F

        if self.product_ids:
            wanted = with_ids(products.sparkSession, pa.array(sorted(set(self.product_ids)), pa.string()))
            products = products.join(wanted, "product_id", "left_semi")
        if self.categories:
            products = products.where(category_filters.below(self.categories))
        if self.updated_from:
            products = products.where(F.col("updated_at") >= F.to_timestamp(F.lit(self.updated_from)))
        if self.updated_until:
            products = products.where(F.col("updated_at") < F.to_timestamp(F.lit(self.updated_until)))
        if self.first_id:
            products = products.where(F.col("product_id") >= self.first_id)
        if self.before_id:
            products = products.where(F.col("product_id") < self.before_id)
        return products

    def is_part(self) -> bool:
        """Return whether the slice is less than the catalog."""
        return bool(replace(self, max_products=0).as_dict())


@dataclass(frozen=True, slots=True)
class RuntimeOverrides:
    """What holds beside the config when a run begins: the decisions of people and audits, and what its workers can."""

    switches: Switches = field(default_factory=Switches)
    confirmed: frozenset[str] = frozenset()
    """Ids of the certificates that an audit has confirmed."""
    names: Names = field(default_factory=Names)
    """The names in force of values that were renamed."""
    why_not_of: WhyNot | None = None
    """The number types that a worker cannot compute in; None: the workers are not asked."""

    @classmethod
    def read(cls, catalog: Catalog) -> RuntimeOverrides:
        refusals = workers.refusals_of(catalog.read("products").sparkSession)
        return cls(switches.read(catalog), review_tables.confirmed(catalog), catalog.names, refusals)


@dataclass(frozen=True, slots=True)
class ProvisionalCap:
    """The cap on values under provisional certificates (:mod:`policy` applies it)."""

    limit: int
    """Values per attribute that may be active under provisional certificates (`precision.provisional_cap`)."""
    confirmed: frozenset[str]
    """Ids of the confirmed certificates: the model's that were issued as confirmed, and those that an audit has
    confirmed since. Every other certificate counts as provisional."""

    @classmethod
    def of(
        cls, limit: int, certificates: Iterable[Certificate], audited: frozenset[str] = frozenset()
    ) -> ProvisionalCap:
        confirmed = [c.certificate_id for c in certificates if c.status is CertificateStatus.CONFIRMED]
        return cls(limit, audited.union(confirmed))

    def provisional(self) -> Column:
        """Return whether a row's certificate is provisional."""
        from pyspark.sql import functions as F

        return ~F.coalesce(F.col("certificate_id").isin(sorted(self.confirmed)), F.lit(False))


class RequestIdentity(NamedTuple):
    """The columns of `runs` that are equal for two runs with the same request."""

    model_name: str | None
    model_version: str | None
    config_hash: str | None
    window: str | None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for a run, fixed on the driver before any product is read."""

    model: ResolvedModel
    """The model in the number type of the run, with the certificates of that type."""
    attributes: tuple[Attribute, ...]
    """Enabled attributes that the model has a head for, but those that are stopped."""
    enabled: tuple[Attribute, ...]
    window: Window
    rules: EnrichConfig
    """The config's, with the shops and categories that are switched off."""
    images: ImagesConfig
    cap: ProvisionalCap
    standard: Standard
    config_hash: str
    """A hash of the config and the switches: another hash is another run, which decides again what was paused."""
    switches: Switches
    """The switches that held when the run began."""
    labels: LabelCheck = field(default_factory=LabelCheck)
    """What is stopped, and what else differs, because the dictionary has changed since the model was trained."""
    names: Names = field(default_factory=Names)
    """The names in force, by which the model's labels are written."""
    drifted: tuple[Switch, ...] = ()
    """Pauses of strata that this run found to have drifted."""

    @classmethod
    def of(
        cls,
        config: Config,
        dictionary: Dictionary,
        model: ResolvedModel,
        window: Window,
        overrides: RuntimeOverrides | None = None,
    ) -> RunRequest:
        """Return the request. Raises ConfigError if the model version cannot compute as `enrich.compute_type` says, or
        is certified with other scaled copies than the config's."""
        overrides = overrides or RuntimeOverrides()
        switched = overrides.switches
        model = model.for_run(config.enrich.compute_type, overrides.why_not_of)
        _check_copies(config, model)
        off, labels = (
            switched.off_attributes(),
            check_labels(model.heads, dictionary, overrides.names, model.certificates),
        )
        enabled = tuple(dictionary[name] for name in dictionary.enabled if name not in off)
        return cls(
            model=model,
            attributes=tuple(
                attribute
                for attribute in enabled
                if attribute.name in model.heads and attribute.name not in labels.stopped
            ),
            enabled=enabled,
            window=window,
            rules=replace(
                config.enrich,
                disabled_shops=[*config.enrich.disabled_shops, *switched.targets(Scope.SHOP, State.OFF)],
                disabled_categories=[*config.enrich.disabled_categories, *switched.targets(Scope.CATEGORY, State.OFF)],
            ),
            images=config.images,
            cap=ProvisionalCap.of(config.precision.provisional_cap, model.certificates, overrides.confirmed),
            standard=Standard(target=config.precision.target, delta=config.precision.delta),
            config_hash=config_hash(config, dictionary, model.numbers, switched),
            switches=switched,
            labels=replace(labels, stopped={name: why for name, why in labels.stopped.items() if name not in off}),
            names=overrides.names,
        )

    def identity(self) -> RequestIdentity:
        window = runs.as_json(self.window.as_dict())
        return RequestIdentity(self.model.name, self.model.version, self.config_hash, window)

    def scope(self) -> DecisionScope:
        return DecisionScope(self.attributes, self.model, self.config_hash, self.cap.confirmed)

    def record(self, config: Config, stages: Stages, parent_run_id: str | None) -> RunRecord:
        """Return the record of an attempt; its run id is known once the products are selected."""
        return RunRecord(
            kind=RunKind.ENRICH,
            stages=stages,
            parent_run_id=parent_run_id,
            model_name=self.model.name,
            model_version=self.model.version,
            config_hash=self.config_hash,
            config=config.without_secrets(),
            secrets=config.secrets(),
            window=self.window.as_dict(),
            attributes={
                PROPOSER_KEY: self.model.proposer.name,
                STOPPED_KEY: dict(self.labels.stopped),
                DIFFERENCES_KEY: list(self.labels.differences),
            },
        )

    def run_id(self, *inputs: object) -> str:
        """Return the run's id. Same window, config, model version and ``inputs``: same run."""
        model = self.model
        return make_run_id(RunKind.ENRICH, self.window.as_dict(), self.config_hash, model.name, model.version, inputs)

    def stamp(self, run_id: str, state: ledger.LedgerState) -> ledger.RunStamp:
        """Return what every ledger event of the run carries."""
        asserted_at = strictly_later(datetime.now(UTC), state.totals.last_asserted_at)
        return ledger.RunStamp(run_id, self.model.name, self.model.version, asserted_at)


def _check_copies(config: Config, model: ResolvedModel) -> None:
    """Raise ConfigError if the certificates that allow anything are about scores from other scaled copies."""
    certified = {c.scaled_side for c in model.certificates if c.threshold is not None}
    if not certified or config.images.copy_side in certified:
        return
    side = min(certified, key=lambda side: side or 0)
    setting = "images.keep_scaled = false" if side is None else f"images.keep_scaled = true and scaled_side = {side}"
    raise ConfigError(
        f"model version {model.version} of {model.name} is certified with {setting}, not with keep_scaled = "
        f"{str(config.images.keep_scaled).lower()} and scaled_side = {config.images.scaled_side}: set that, or train "
        "and certify a version with this config"
    )


def config_hash(config: Config, dictionary: Dictionary, numbers: str, switched: Switches) -> str:
    """Return the config's part of a run id: what can change a score or a decision, and nothing else.

    ``numbers``: number type of the scores.
    """
    off = (sorted(config.enrich.disabled_shops), sorted(config.enrich.disabled_categories))
    precision = (config.precision.target, config.precision.delta, config.precision.provisional_cap)
    return stable_hash(dictionary.hash(), config.hash("images"), *precision, off, numbers, switched.identity())
