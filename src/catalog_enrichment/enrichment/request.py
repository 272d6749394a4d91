"""What a run is asked to do: the slice of the catalog, the model version, the rules and switches in force."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import category_filters, ledger, runs, switches, verdicts
from catalog_enrichment.catalog.ledger import LedgerState
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.enrichment import pending
from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap
from catalog_enrichment.enrichment.since_last_run import RequestIdentity
from catalog_enrichment.models import compute_types
from catalog_enrichment.precision.certificate import Standard
from catalog_enrichment.records import RunKind, make_run_id, stable_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config, EnrichConfig, ImagesConfig
    from catalog_enrichment.dictionary import Attribute, Dictionary
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
    """(i, n): the i-th of n chunks by hash of the product id."""
    max_products: int = 0
    """Newest first; 0: all."""

    def as_dict(self) -> dict[str, Any]:
        """The fields that restrict; of the product ids only their hash, since there may be a million of them."""
        restrictions = {name: value for name, value in asdict(self).items() if value}
        if self.product_ids:
            restrictions["product_ids"] = stable_hash(sorted(self.product_ids))
        return restrictions

    def select(self, products: DataFrame) -> DataFrame:
        """The products inside the window (``max_products`` is applied later, to those that need scoring)."""
        from pyspark.sql import functions as F

        if self.product_ids:
            wanted = products.sparkSession.createDataFrame([(i,) for i in self.product_ids], "product_id string")
            products = products.join(F.broadcast(wanted.distinct()), "product_id", "left_semi")
        if self.categories:
            products = products.where(category_filters.below(self.categories))
        if self.updated_from:
            products = products.where(F.col("updated_at") >= F.to_timestamp(F.lit(self.updated_from)))
        if self.updated_until:
            products = products.where(F.col("updated_at") < F.to_timestamp(F.lit(self.updated_until)))
        if self.chunk:
            number, of = self.chunk
            products = products.where(F.pmod(F.xxhash64("product_id"), F.lit(of)) == number)
        return products


@dataclass(frozen=True, slots=True)
class RuntimeOverrides:
    """What people and audits have said beside the config, as it is when a run begins."""

    switches: Switches = field(default_factory=Switches)
    confirmed: frozenset[str] = frozenset()
    """Certificates that an audit has confirmed."""

    @classmethod
    def read(cls, catalog: Catalog) -> RuntimeOverrides:
        return cls(switches.read(catalog), verdicts.confirmed(catalog))

    def rules(self, config: EnrichConfig) -> EnrichConfig:
        """The config with the shops and categories that are switched off."""
        shops, categories = (self.switches.targets(scope, State.OFF) for scope in (Scope.SHOP, Scope.CATEGORY))
        return replace(
            config,
            disabled_shops=[*config.disabled_shops, *shops],
            disabled_categories=[*config.disabled_categories, *categories],
        )


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked to do, fixed on the driver before any product is read."""

    model: ResolvedModel
    """In the number type of the run, with its certificates alone."""
    attributes: tuple[Attribute, ...]
    """Enabled attributes that the model has a head for."""
    enabled: tuple[Attribute, ...]
    window: Window
    rules: EnrichConfig
    images: ImagesConfig
    cap: ProvisionalCap
    standard: Standard
    config_hash: str
    """Of the config and the switches: another hash is another run, and decides again what was paused."""
    overrides: RuntimeOverrides = field(default_factory=RuntimeOverrides)
    drifted: tuple[Switch, ...] = ()
    """Strata that this run pauses."""

    @classmethod
    def of(
        cls,
        config: Config,
        dictionary: Dictionary,
        model: ResolvedModel,
        window: Window,
        overrides: RuntimeOverrides | None = None,
    ) -> RunRequest:
        """Raises ConfigError if the model version cannot compute as `enrich.compute_type` says."""
        overrides = overrides or RuntimeOverrides()
        model = model.for_run(config.enrich.compute_type, dictionary.enabled)
        off = overrides.switches.off_attributes()
        enabled = tuple(dictionary[name] for name in dictionary.enabled if name not in off)
        hashed, switched = config_hash(config, dictionary, model.numbers), overrides.switches.identity()
        return cls(
            model=model,
            attributes=tuple(attribute for attribute in enabled if attribute.name in model.heads),
            enabled=enabled,
            window=window,
            rules=overrides.rules(config.enrich),
            images=config.images,
            cap=ProvisionalCap.of(config.precision.provisional_cap, model.certificates, overrides.confirmed),
            standard=Standard(target=config.precision.target, delta=config.precision.delta),
            config_hash=stable_hash(hashed, switched) if switched else hashed,
            overrides=overrides,
        )

    def identity(self) -> RequestIdentity:
        window = runs.as_json(self.window.as_dict())
        return RequestIdentity(self.model.name, self.model.version, self.config_hash, window)

    def scope(self) -> pending.DecisionScope:
        return pending.DecisionScope(self.attributes, self.model, self.config_hash, self.cap.confirmed)

    def record(self, config: Config, stages: Stages, parent_run_id: str | None) -> RunRecord:
        """The record of one attempt; its run id is known once the products are selected."""
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
        )

    def run_id(self, *inputs: object) -> str:
        """Same window, config, model version and ``inputs``: same run."""
        model = self.model
        return make_run_id(RunKind.ENRICH, self.window.as_dict(), self.config_hash, model.name, model.version, inputs)

    def stamp(self, run_id: str, state: LedgerState) -> ledger.RunStamp:
        """What every ledger event of the run carries."""
        asserted_at = state.next_asserted_at(datetime.now(UTC))
        return ledger.RunStamp(run_id, self.model.name, self.model.version, asserted_at)


def config_hash(config: Config, dictionary: Dictionary, numbers: str) -> str:
    """The config's part of a run id: what can change a score or a decision, and nothing else.

    ``numbers``: number type of the scores; fp32, which all had before there were others, leaves no trace.
    """
    off = (sorted(config.enrich.disabled_shops), sorted(config.enrich.disabled_categories))
    precision = (config.precision.target, config.precision.delta, config.precision.provisional_cap)
    others = () if numbers == compute_types.FP32 else (numbers,)
    return stable_hash(dictionary.hash(), config.hash("images"), *precision, off, *others)
