"""The training job: catalog -> train, evaluate, certify -> registry.

Reads the tables without Spark; only a fit by several processes starts Spark.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from catalog_enrichment import resources
from catalog_enrichment.catalog import human_labels, label_uses, self_derived
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.context import follow_dictionary
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import NOTHING_TO_DO, RunStatus
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.training.distributed import fitting_resources

if TYPE_CHECKING:
    from catalog_enrichment.catalog.value_names import Followed
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.records import LabelUse
    from catalog_enrichment.registry.model_registry import ModelVersion
    from catalog_enrichment.registry.trained_model import TrainedModel
    from catalog_enrichment.training.certification import EarlierCandidates


_RENEWED_BEFORE = timedelta(days=14)
"""Time before a certificate expires from which on a training is due, however few labels are new."""


def train_model(config: Config, if_new: int | None = None) -> dict[str, Any]:
    """Train on the merchants' values and register the new version as the candidate. Returns the job's summary.

    ``if_new``: do nothing where fewer labelled products are new since the newest training. Without an earlier training
    there is one now. A training uses certification labels; one that is not done uses none.

    Raises DataContractError if there is nothing to train on, and RegistryError, before training starts, if MLflow
    cannot be reached.
    """
    stages = Stages()
    if config.training is None:
        raise ConfigError("the config has no [training] section: train_model does not know which recipe to fit")
    # checked before the data is read, which can take an hour
    recipe = load_model_recipe(resources.locate(config.training.recipe, config.path(".")), config.training.set)
    registry, catalog = Registry(config), Catalog.of(config)
    followed = follow_dictionary(config, catalog)
    registry.connect(create=True)
    catalog.check_has_products()
    if if_new is not None:
        since = _labels_since(config, registry, catalog, followed)
        expires = registry.expires_at(since["since_version"]) if since else None
        expiring = expires is not None and expires - datetime.now(UTC) < _RENEWED_BEFORE
        if since is not None and since["new"] < if_new and not expiring:
            stages.say(
                f"nothing to do: {since['new']:,} of {since['labelled']:,} labelled products are new since version "
                f"{since['since_version']} was trained, and --if-new asks for {if_new:,}"
                + (f"; its first certificate expires on {expires:%Y-%m-%d} UTC" if expires else "")
            )
            return {"status": NOTHING_TO_DO, "needed": if_new, **since}
        if expiring:
            stages.say(
                f"a certificate of the newest trained version expires on {expires:%Y-%m-%d} UTC: it is time to train"
            )

    with (
        fitting_resources(config, "train_model") as (workdir, fit),
        registry.training_run(recipe.name, "train_model") as run,
    ):
        from catalog_enrichment.training.train import train

        with stages("train") as stage:
            products = human_labels.with_labels(catalog, self_derived.scan_products(catalog))
            products = human_labels.with_gold_labels(catalog, products)
            earlier = earlier_candidates(catalog, Promotion(registry, followed))
            with_losses = partial(fit, on_epoch=run.epoch)
            trained = train(products, followed.dictionary, config, workdir, earlier, stages.say, with_losses)
            stage.rows_in = trained.lineage["labelled"]
        with stages("register"):
            version = registry.register(trained, run)
    return told(trained, version, config, registry, stages)


def told(
    trained: TrainedModel, version: ModelVersion, config: Config, registry: Registry, stages: Stages
) -> dict[str, Any]:
    """Print the tables of a registered version, write its page, and return the job's summary."""
    with reported("tables", stages):
        from catalog_enrichment.report.training_tables import training_tables

        stages.say(f"\n{training_tables(trained)}\n")
    for warning in trained.warnings:
        stages.say(f"warning: {warning}")
    stages.say(f"registered {version.name} version {version.version}; promote_model decides whether it is used")
    report = write_page(trained, version, config, registry, stages)
    return {
        "status": RunStatus.SUCCEEDED,
        "model": version.name,
        "model_version": version.version,
        "mlflow_run_id": version.run_id,
        "certificates": [_certificate_summary(certificate) for certificate in trained.certificates],
        "metrics": trained.metrics,
        "warnings": trained.warnings,
        "lineage": trained.lineage,
        "report": report,
        "seconds": trained.seconds | stages.seconds,
    }


def _labels_since(config: Config, registry: Registry, catalog: Catalog, followed: Followed) -> dict[str, Any] | None:
    """Return how many labelled products there are, and are new since the newest training; None if there was none.

    New is a labelled product that the training did not read, or read with other labels. Answers to gold samples, which
    do not train, and self-derived values are no labels here.
    """
    from catalog_enrichment.training import product_labels
    from catalog_enrichment.training.task import attributes_of, settings_of

    version = registry.newest_trained()
    if version is None:
        return None
    attributes, words = attributes_of(settings_of(config), followed.dictionary), followed.dictionary
    products = human_labels.with_labels(catalog, self_derived.scan_products(catalog, product_labels.COLUMNS))
    found = product_labels.count_new(products, registry.labelled(version), attributes, words, followed.names)
    return {"since_version": version, "labelled": found.labelled, "new": found.new}


def write_page(
    trained: TrainedModel, version: ModelVersion, config: Config, registry: Registry, stages: Stages
) -> str | None:
    """Write the page of the training under `report.path`, add it to the version's MLflow run and say where it is.

    Returns its path; None if it could not be written.
    """
    from catalog_enrichment.report.training_page import RegisteredTraining, write_training_page

    page = config.path(config.report.path) / f"training-{version.version}.html"
    training = RegisteredTraining(trained=trained, model=version.name, version=version.version, run_id=version.run_id)
    written = False
    with reported("page", stages):
        write_training_page(page, training)
        written = True
        registry.log_page(version, page)
    if not written:  # there may be the page of an earlier registry's version of this number
        return None
    stages.say(f"page of the training: {page}")
    return str(page)


@contextmanager
def reported(what: str, stages: Stages) -> Iterator[None]:
    """Print the errors of a block that shows a registered version, and do not raise them: a training that is repeated
    uses certification labels once more."""
    try:
        yield
    except Exception as problem:
        if not isinstance(problem, OSError | CatalogEnrichmentError):
            stages.say(traceback.format_exc())
        stages.say(f"warning: the version is registered, but its {what} could not be written or stored: {problem}")


def earlier_candidates(catalog: Catalog, promotion: Promotion) -> EarlierCandidates:
    """Return what is known of earlier candidates; uses of labels are recorded in the catalog."""
    from catalog_enrichment.training.certification import EarlierCandidates

    def use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> LabelUse:
        fold = label_uses.Fold(attribute, product_ids, certification_round)
        return label_uses.use_labels(catalog, fold, candidate)

    def next_use(attribute: str, product_ids: Sequence[str], candidate: str, certification_round: int) -> int:
        fold = label_uses.Fold(attribute, product_ids, certification_round)
        return label_uses.next_number(catalog, fold, candidate)

    gate = promotion.early_gate()
    return EarlierCandidates(
        use_labels=use,
        next_use=next_use,
        uses=label_uses.earlier_uses(catalog),
        refusal=gate.worse,
        lost=gate.lost,
    )


def _certificate_summary(certificate: Certificate) -> dict[str, Any]:
    """Return the most important fields; all of them are in the model version's certificates.json."""
    counts = ("accepted", "wrong", "lower_bound", "certification_round", "use_number")
    return {
        name: getattr(certificate, name)
        for name in ("attribute", "modality", "compute_type", "threshold", *counts, "why_abstains")
    }
