"""``make demo``: every job of the product, in order, on a generated marketplace.

    generate -> import -> train, certify, register -> promote -> enrich -> report

    python -m catalog_enrichment.demo [--products 6000] [--wholesale 1500] [--folder var/demo] [--set SECTION.KEY=VALUE]

Prints a table of attributes, a table of products with and without a picture, the paths of the results and, last, a JSON
line. The truth is used only to report the precision; no job reads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment import resources
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import open_context
from catalog_enrichment.demo import marketplace
from catalog_enrichment.enrichment import pipeline
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.ingest import job as import_job
from catalog_enrichment.monitoring.stages import Stages, to_stderr
from catalog_enrichment.monitoring.text_tables import ATTRIBUTE, Column, aligned_table, count, share, text
from catalog_enrichment.precision import claim
from catalog_enrichment.records import add_counts
from catalog_enrichment.registry.mlflow_store import Store
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import NO_CHAMPION, Promotion, PromotionRequest
from catalog_enrichment.report import run_report
from catalog_enrichment.training import job as training_job

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.precision.certificate import Certificate

_MARKER = ".catalog-enrichment-demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print the JSON line; the exit codes are those of the jobs."""
    parser = argparse.ArgumentParser("make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("var/demo"), help="folder of all output")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--products", type=int, default=6000, help="rows of the shops with pictures")
    parser.add_argument("--wholesale", type=int, default=1500, help="rows of the shop without pictures")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    resources.sleep_while_waiting()
    folder = args.folder.resolve()
    try:
        config = load_config("config:demo.toml", [f"root={json.dumps(str(folder))}", *args.set])
        _start_fresh(folder)
        summary = run(config, args.products, args.wholesale, args.seed)
    except CatalogEnrichmentError as problem:
        to_stderr(f"demo: {type(problem).__name__}: {problem}")
        return problem.exit_code
    print(json.dumps(summary))
    return 0


def run(config: Config, products: int, wholesale: int, seed: int) -> dict[str, Any]:
    """Generate, import, train, promote, enrich and report below ``config.root``; return the demo's JSON summary."""
    stages = Stages()

    with stages("generate") as stage:
        folder, progress = config.path("marketplace"), sys.stderr.isatty()
        market = marketplace.generate(folder, products, seed, progress, wholesale)
        stage.rows_out = market.rows
    with stages("import"):
        context = open_context(config, "demo")
        imported = import_job.import_products(context)
    with stages("train"):
        trained = training_job.train_model(config)
    with stages("promote"):
        registry = Registry(config)
        request = PromotionRequest(version=trained["model_version"], expected_current=NO_CHAMPION)
        promoted = Promotion(registry).through_gate(request)
        to_stderr(f"champion is now {config.mlflow.model_name} version {promoted['model_version']}")
    with stages("enrich"):
        model = registry.resolve().for_run(config.enrich.compute_type)
        enriched = pipeline.enrich(context, model, Window())
    with stages("report"):
        written = written_by_certificate(context.catalog, market.truth, enriched["run_id"])
        right = {certificate_id: counts.right for certificate_id, counts in written.items()}
        report = run_report.write_report(context.catalog, config, enriched["run_id"], right)

    paths = path_results(model.certificates, written)
    summary = _summary(imported, enriched, paths, stages.seconds)
    _print_results(config, summary, {"HTML report": report, "training page": trained["report"]})
    context.spark.stop()
    return summary


def _start_fresh(folder: Path) -> None:
    """Empty the folder of an earlier demo. Raises ConfigError if another program made the folder's content."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise ConfigError(f"{folder} is not empty and was not made by a demo; choose another with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARKER).touch()


def _summary(
    imported: dict[str, Any], enriched: dict[str, Any], paths: list[dict[str, Any]], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return the JSON summary of all jobs: products = input rows = predicted + skipped + quarantined (I7)."""
    attributes = {
        name: counts | {"precision": precision_of(paths, name)} for name, counts in enriched["attributes"].items()
    }
    same = {name: enriched[name] for name in ("predicted", "skipped", "unusable_images", "model_version", "run_id")}
    return same | {
        "products": imported["products"],
        "quarantined": add_counts(imported["quarantined"], enriched["quarantined"]),
        "attributes": attributes,
        "paths": paths,
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
    }


def _print_results(config: Config, summary: dict[str, Any], pages: dict[str, Path | str | None]) -> None:
    """Print the two tables, the sum of the rows, and where the results are with a command for each."""
    rows = [{"attribute": name} | counts for name, counts in summary["attributes"].items()]
    quarantined = sum(summary["quarantined"].values())
    print(f"\n{aligned_table(rows)}\n\n{aligned_table(summary['paths'], PATH_COLUMNS)}\n")
    print(
        f"{summary['products']:,} rows = {summary['predicted']:,} predicted + {summary['skipped']:,} skipped "
        f"+ {quarantined:,} quarantined, in {summary['seconds']['total']:.0f} s\n"
    )
    tables, tracking = config.path(config.catalog.path), Store(config).uri
    programs = Path(sys.executable).parent
    show = f"import deltalake; print(deltalake.DeltaTable('{tables}/current_values').to_pandas())"
    config_options = f"--config config:demo.toml --set root={config.root}"
    outputs = {
        **{name: (page, f"xdg-open {page}") for name, page in pages.items() if page},
        "Delta tables": (tables, f'{sys.executable} -c "{show}"'),
        "MLflow store": (tracking, f"{programs}/mlflow ui --backend-store-uri {tracking}"),
        "undo the run": (summary["run_id"], f"{programs}/rollback_run {config_options} --run-id {summary['run_id']}"),
    }
    for name, (path_or_id, command) in outputs.items():
        print(f"{name:<14}{path_or_id}\n{'':<14}{command}")
    print()


# --- compared with the truth ------------------------------------------------------------------------------------------

PATH_COLUMNS = (
    ATTRIBUTE,
    Column("products", text("products"), "<"),
    Column("written", count("written")),
    Column("right", share("precision")),
    Column("certificate", text("certificate"), "<"),
)
"""Columns of the table of :func:`path_results`."""


class Written(NamedTuple):
    """Products that a run gave values of an attribute, and those of them that got no wrong value."""

    products: int
    right: int


def written_by_certificate(catalog: Catalog, truth: Path, run_id: str) -> dict[str, Written]:
    """Return certificate id -> what ``run_id`` wrote under it that readers see. ``truth``: a marketplace's file."""
    import pyarrow.parquet as pq

    true_values = {
        (row["product_id"], row["attribute"]): set(row["values"]) for row in pq.read_table(truth).to_pylist()
    }
    products, right = Counter[str](), Counter[str]()
    for batch in catalog.scan("current_values", ("product_id", "attribute", "values", "run_id", "certificate_id")):
        for row in batch.to_pylist():
            if row["run_id"] == run_id:
                products[row["certificate_id"]] += 1
                right[row["certificate_id"]] += set(row["values"]) <= true_values[row["product_id"], row["attribute"]]
    return {certificate_id: Written(products[certificate_id], right[certificate_id]) for certificate_id in products}


def path_results(certificates: Iterable[Certificate], written: Mapping[str, Written]) -> list[dict[str, Any]]:
    """Return per attribute and modality path what its certificate says and what was written under it."""
    return [_path_result(c, written.get(c.certificate_id, Written(0, 0))) for c in certificates]


def precision_of(paths: Iterable[Mapping[str, Any]], attribute: str) -> float | None:
    """Return the share of right products among those written to, on both paths; None where none was."""
    of_attribute = [path for path in paths if path["attribute"] == attribute]
    return _share(*(sum(path[key] for path in of_attribute) for key in ("right", "written")))


def _path_result(certificate: Certificate, written: Written) -> dict[str, Any]:
    return {
        "attribute": certificate.attribute,
        "modality": certificate.modality.value,
        "products": claim.PATHS[certificate.modality],
        "certified": certificate.threshold is not None,
        "certificate": claim.tested(certificate),
        "written": written.products,
        "right": written.right,
        "precision": _share(written.right, written.products),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


if __name__ == "__main__":
    sys.exit(main())
