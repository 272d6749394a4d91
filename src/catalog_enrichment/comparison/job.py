"""The comparison job: read the catalog, fit every recipe of `[compare]`, write the tables, log to MLflow.

Reads the Delta tables without Spark; Spark is started only if several processes fit.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import label_uses, self_derived
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.comparison.compared_models import compare_settings, compared_models
from catalog_enrichment.context import follow_dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import RunStatus, flatten_keys
from catalog_enrichment.registry.mlflow_run import ComparisonRun, ModelRun
from catalog_enrichment.registry.mlflow_store import Store
from catalog_enrichment.training.distributed import fitting_resources

if TYPE_CHECKING:
    from catalog_enrichment.comparison.compared_models import FittedModels, ModelResults
    from catalog_enrichment.comparison.tables import Comparison
    from catalog_enrichment.config.schema import Config

FOLDER = "comparison"
"""The report's folder under `report.path`."""


def compare_models(config: Config) -> dict[str, Any]:
    """Fit, compare, write and log. Returns the job's summary: each model's metrics under its name, and the paths.

    Raises ConfigError for a recipe that cannot be used, DataContractError if there is nothing to learn from, and
    RegistryError if MLflow cannot be reached, all before anything is fitted. Raises DataContractError after the report
    is written if a model could not be fitted.
    """
    stages, settings = Stages(), compare_settings(config)
    compared_models(config)  # a bad recipe fails here, before torch is loaded
    catalog = Catalog.of(config)
    dictionary = follow_dictionary(config, catalog).dictionary
    catalog.check_has_products()
    store = Store(config)
    store.client(create=True)

    started = datetime.now(UTC)
    with fitting_resources(config, "compare_models") as (workdir, fit):
        from catalog_enrichment.comparison.comparison_page import write_comparison
        from catalog_enrichment.comparison.fit_all import CatalogProducts, fit_all, load_data
        from catalog_enrichment.comparison.tables import build_comparison

        with stages("compare") as stage:
            source = CatalogProducts(lambda: self_derived.scan_products(catalog), label_uses.earlier_uses(catalog))
            data = load_data(source, dictionary, config, workdir, stages)
            fitted = fit_all(data, config, workdir, stages, fit)
            stage.rows_in = fitted.lineage["products_read"]
    with stages("judge") as stage:
        comparison = build_comparison(fitted, settings)
        stage.rows_in = len(fitted.evaluation_index)
    for warning in comparison.warnings:
        stages.say(f"warning: {warning}")
    with stages("report"):
        about = _about(config, fitted, started)
        html, markdown = write_comparison(config.path(config.report.path) / FOLDER, comparison, about)
        runs = [_model_run(results, fitted, comparison) for results in fitted.models.values()]
        name = f"comparison {started:%Y-%m-%d %H:%M:%S}"
        run_id = store.log_comparison(
            ComparisonRun(name=name, started_at=started, files=[html, markdown], about=about), runs
        )
    if fitted.failed:
        errors = "; ".join(f"{name}: {error}" for name, error in fitted.failed.items())
        raise DataContractError(f"some models could not be fitted; {html} has the others. {errors}")
    return {
        "status": RunStatus.SUCCEEDED,
        **comparison.summary,
        "report": str(html),
        "markdown": str(markdown),
        "mlflow_run_id": run_id,
    }


def _about(config: Config, fitted: FittedModels, started: datetime) -> dict[str, Any]:
    """Return the facts at the top of the report."""
    settings, lineage, folds = compare_settings(config), fitted.lineage, fitted.lineage["folds"]
    return {
        "products": f"{lineage['products_read']:,} read, {lineage['labelled']:,} labelled",
        "trained on": f"{folds['train']:,} labelled products (train fold), {lineage['chosen_on']:,} to choose the "
        "epoch and the temperature (choosing fold)",
        "judged on": f"{lineage['judged']:,} labelled products with a picture, {lineage['judged_groups']:,} content "
        f"groups ({' and '.join(lineage['judged_on'])} fold), none of which is in the train fold",
        "values learned": ", ".join(f"{name} {count}" for name, count in lineage["learned_values"].items()),
        "seeds": ", ".join(map(str, settings.seeds)),
        "budget": f"at most {settings.max_epochs} epochs a stage" if settings.max_epochs else "as the recipes say",
        "bootstrap": f"{settings.resamples:,} resamples",
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
    }


def _model_run(results: ModelResults, fitted: FittedModels, comparison: Comparison) -> ModelRun:
    """Return the MLflow run of a model: the tables' metrics are means over the seeds; all else is of the first seed."""
    from catalog_enrichment.training.evaluation import Evaluation

    first, evaluation = results.fits[0], Evaluation()
    for view, scores in first.scores.items():
        for labels in fitted.labels.values():
            evaluation.add_modality(view, labels, scores, fitted.evaluation_index, fitted.groups)
    metrics = evaluation.metrics | comparison.metrics[results.name]
    metrics |= {f"chosen/{name}": value for name, value in first.chosen.items()}
    steps: dict[int, dict[str, float]] = {
        int(row["epoch"]): {f"fit/{name}": value for name, value in row.items()} for row in first.history
    }
    for share, share_metrics in comparison.at_shares.get(results.name, {}).items():
        row = steps.setdefault(round(1000 * share), {})  # MLflow's steps are whole numbers
        row |= {f"label_permille/{name}": value for name, value in share_metrics.items()}
    return ModelRun(
        name=results.name,
        seconds=sum(fit.seconds for fit in results.fits),
        params=_params(results),
        metrics=metrics,
        steps=steps,
        tables=evaluation.tables | ({"search": first.search} if first.search else {}),
        curves=evaluation.curves,
        warnings=[warning for warning in comparison.warnings if warning.startswith(f"{results.name}: ")],
    )


def _params(results: ModelResults) -> dict[str, Any]:
    """Return MLflow's parameters: the modalities (`sees`) and the recipe, or the recipes of all members."""
    modalities = {"sees": results.modalities_used}
    if not results.members:
        return {"recipe": results.name} | modalities
    if len(results.members) == 1:
        return flatten_keys(modalities | asdict(results.members[0]))
    return flatten_keys(modalities | {f"member_{n:02d}": asdict(member) for n, member in enumerate(results.members)})
