"""The comparison job: catalog -> fit every recipe of `[compare]`, judge all alike -> tables, MLflow.

Needs no Spark unless several processes fit: it reads the tables directly.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.comparison.models import compare_settings, entrants_of
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import SUCCEEDED, flatten_keys
from catalog_enrichment.registry.mlflow_store import ModelRun, Store
from catalog_enrichment.stages import Stages
from catalog_enrichment.training import launcher

if TYPE_CHECKING:
    from catalog_enrichment.comparison.fit_all import Contest, Entry
    from catalog_enrichment.comparison.tables import Comparison
    from catalog_enrichment.config.schema import Config

FOLDER = "comparison"
"""Under `report.path`."""


def compare_models(config: Config) -> dict[str, Any]:
    """Fit, judge, write and log; returns the job's summary: every model under its own name, and where to look.

    Raises ConfigError for a recipe that cannot be used, DataContractError if there is nothing to learn from, and
    RegistryError if MLflow cannot be reached, all before anything is fitted. Raises DataContractError at the end, the
    report being written, if a model could not be fitted.
    """
    stages, settings = Stages(), compare_settings(config)
    entrants_of(config)  # a bad recipe fails here, before torch is loaded
    dictionary, catalog = load_dictionary(config), LakeCatalog(config.path(config.catalog.path))
    if catalog.version("products") < 0:
        raise DataContractError(f"no products at {catalog.location('products')}: run import_products first")
    store = Store(config)
    store.client(create=True)

    started = datetime.now(UTC)
    with launcher.fitting_resources(config, "compare_models") as (workdir, fit):
        from catalog_enrichment.comparison.fit_all import run_contest
        from catalog_enrichment.comparison.report import write_comparison
        from catalog_enrichment.comparison.tables import compare

        with stages("compare") as stage:
            contest = run_contest(lambda: catalog.scan("products"), dictionary, config, workdir, stages.say, fit)
            stage.rows_in = contest.lineage["products_read"]
    with stages("judge") as stage:
        comparison = compare(contest, settings)
        stage.rows_in = len(contest.index)
    for warning in comparison.warnings:
        stages.say(f"warning: {warning}")
    with stages("report"):
        about = _about(config, contest, started)
        html, markdown = write_comparison(config.path(config.report.path) / FOLDER, comparison, about)
        runs = [_model_run(entry, contest, comparison) for entry in contest.entries.values()]
        run_id = store.log_comparison(f"comparison {started:%Y-%m-%d %H:%M:%S}", runs, [html, markdown], about)
    if contest.failed:
        told = "; ".join(f"{name}: {why}" for name, why in contest.failed.items())
        raise DataContractError(f"some models could not be fitted; {html} has the others. {told}")
    return {
        "status": SUCCEEDED,
        **comparison.summary,
        "report": str(html),
        "markdown": str(markdown),
        "mlflow_run_id": run_id,
    }


def _about(config: Config, contest: Contest, started: datetime) -> dict[str, Any]:
    settings, lineage, folds = compare_settings(config), contest.lineage, contest.lineage["folds"]
    return {
        "products": f"{lineage['products_read']:,} read, {lineage['labelled']:,} labelled",
        "trained on": f"{folds['train']:,} labelled products (train fold), {folds['validation']:,} for validation",
        "judged on": f"{lineage['judged']:,} labelled products with a picture, {lineage['judged_groups']:,} content "
        f"groups ({' and '.join(lineage['judged_on'])} fold), none of which is in the train fold",
        "values learned": ", ".join(f"{name} {count}" for name, count in lineage["learned_values"].items()),
        "seeds": ", ".join(map(str, settings.seeds)),
        "budget": f"at most {settings.max_epochs} epochs a stage" if settings.max_epochs else "as the recipes say",
        "bootstrap": f"{settings.resamples:,} resamples",
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
    }


def _model_run(entry: Entry, contest: Contest, comparison: Comparison) -> ModelRun:
    """A model as MLflow shows it: what the tables say, as means over the seeds; all else is the first seed's."""
    from catalog_enrichment.report.plots import evaluation_figures
    from catalog_enrichment.training.evaluation import Evaluation

    first, evaluation = entry.outcomes[0], Evaluation()
    for view, scores in first.views.items():
        for labels in contest.labels.values():
            evaluation.add_modality(view, labels, scores, contest.index, contest.groups)
    metrics = evaluation.metrics | comparison.metrics[entry.name]
    metrics |= {f"chosen/{name}": value for name, value in first.chosen.items()}
    steps: dict[int, dict[str, float]] = {
        int(row["epoch"]): {f"fit/{name}": value for name, value in row.items()} for row in first.history
    }
    for share, numbers in comparison.at_shares.get(entry.name, {}).items():
        row = steps.setdefault(round(1000 * share), {})  # MLflow's steps are whole numbers
        row |= {f"label_permille/{name}": value for name, value in numbers.items()}
    return ModelRun(
        name=entry.name,
        params=_params(entry),
        metrics=metrics,
        steps=steps,
        tables=evaluation.tables | ({"search": first.search} if first.search else {}),
        curves=evaluation.curves,
        figures=evaluation_figures(evaluation.curves, evaluation.tables),
        warnings=[warning for warning in comparison.warnings if warning.startswith(f"{entry.name}: ")],
    )


def _params(entry: Entry) -> dict[str, Any]:
    if not entry.members:
        return {"recipe": entry.name, "sees": entry.sees}
    if len(entry.members) == 1:
        return flatten_keys({"sees": entry.sees} | asdict(entry.members[0]))
    return flatten_keys({"sees": entry.sees} | {f"member_{n:02d}": asdict(one) for n, one in enumerate(entry.members)})
