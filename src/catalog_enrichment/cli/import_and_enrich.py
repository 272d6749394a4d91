"""The jobs that start a project, import its products, score them and publish values."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import failures
from catalog_enrichment.cli.command import Summary, config_options, ended, job, non_negative, parser_of
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import NoModelError
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.records import RunKind, RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.registry.model_registry import ResolvedModel


def init_project(argv: Sequence[str] | None = None) -> int:
    """Guess a config and a dictionary from a file of products (CSV, TSV, xlsx, JSON, XML, parquet), and write them."""
    parser = parser_of(init_project)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where config, dictionary, catalog and models go")
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE", help="the file with products")
    for option in ("id", "title", "description", "category", "shop", "image"):
        note = "" if option in ("id", "title") else "; '' for none"
        parser.add_argument(f"--{option}", metavar="COLUMN", help=f"the column, instead of a guess{note}")
    parser.add_argument("--attribute", action="append", metavar="COLUMN", help="these, instead of guesses; repeatable")
    parser.add_argument("--columns", metavar="NAME,...", help="names of all columns of a file without a line of names")
    parser.add_argument("--encoding", default="", metavar="NAME", help="encoding of a text file, instead of a guess")
    parser.add_argument("--min-count", type=int, default=20, help="rows that a value needs (default %(default)s)")
    parser.add_argument("--merge-rows", action="store_true", help="rows with the same id (--id) are one product")
    parser.add_argument("--overwrite", action="store_true", help="replace a config and a dictionary in FOLDER")
    args = parser.parse_args(argv)

    def run(_: set[str]) -> Summary:
        from catalog_enrichment.ingest import guess, project

        columns = {name: getattr(args, option) for option, name in guess.OPTIONS.items()}
        columns = {name: column for name, column in columns.items() if column is not None}
        given = guess.Given(
            columns=columns, attributes=args.attribute, merge_rows=args.merge_rows, min_count=args.min_count
        )
        named = tuple(args.columns.split(",")) if args.columns else ()
        return project.init_project(
            project.Project(
                folder=args.folder,
                file=args.file,
                given=given,
                columns=named,
                encoding=args.encoding,
                overwrite=args.overwrite,
            )
        )

    return ended("init_project", run)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="read all rows, also of a source that tells its changes")


@job(_import_arguments)
def import_products(config: Config, args: argparse.Namespace) -> Summary:
    """Pull products from the source into the catalog's products table; bad rows go to quarantine with a reason."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.ingest import job as import_job
    from catalog_enrichment.ingest.sources import source_config

    source_config(config)  # raises before Spark starts
    with open_for_writing(config, "import_products") as context:
        return import_job.import_products(context, full=args.full)


@job()
def import_proposals(config: Config, _: argparse.Namespace) -> Summary:
    """Bring in answers about products that were made elsewhere, for certify_model and enrich_catalog."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.ingest import import_proposals as import_job

    import_job.proposals_config(config)  # raises before Spark starts
    with open_for_writing(config, "import_proposals") as context:
        return import_job.import_proposals(context)


def _enrich_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would change; nothing is written")
    parser.add_argument("--max-products", type=non_negative, help="score at most this many, newest first")
    parser.add_argument("--no-report", action="store_true", help="do not write the HTML report")


@job(_enrich_arguments)
def enrich_catalog(config: Config, args: argparse.Namespace) -> Summary:
    """Score every new, changed or unscored product with the champion and publish the values that are certified."""
    from catalog_enrichment.context import open_for_writing, recording_refusals
    from catalog_enrichment.enrichment import pipeline
    from catalog_enrichment.enrichment import summary as run_summary
    from catalog_enrichment.enrichment.request import Window
    from catalog_enrichment.report import run_report

    with recording_refusals(config, RunKind.ENRICH, unless=args.dry_run):
        model = _resolve_model(config, args)
    limit = config.enrich.max_products if args.max_products is None else args.max_products
    with open_for_writing(config, "enrich_catalog", args.dry_run) as context:
        summary = pipeline.enrich(context, model, Window(max_products=limit), dry_run=args.dry_run)
    _say_what_changed(summary)
    if not args.no_report and not args.dry_run:
        _write_page(summary, lambda: run_report.write_report_once(context.catalog, config, summary["run_id"]))
    run_summary.refuse_if_incomplete(summary)
    return summary


def _say_what_changed(summary: Summary) -> None:
    """Print the table of a run on stderr, which products have no value and why, and what became of its products;
    nothing if there was nothing to do."""
    from catalog_enrichment.enrichment import outcomes
    from catalog_enrichment.monitoring.text_tables import attributes_table

    if not summary["attributes"]:
        return
    quarantined = sum(summary["quarantined"].values())
    empty = "".join(f"{line}\n" for line in outcomes.empty_in_words(summary["attributes"]))
    to_stderr(
        f"\n{attributes_table(summary['attributes'])}\n\n{empty}{summary['products']:,} products = "
        f"{summary['predicted']:,} predicted + {summary['skipped']:,} skipped + {quarantined:,} quarantined"
    )


def _write_page(summary: Summary, write: Callable[[], Path | None]) -> None:
    """Write the page and put its path into the summary.

    The job succeeds also if the page fails: the next run that has nothing to do writes it.
    """
    try:
        path = write()
    except Exception as problem:
        to_stderr(f"warning: the report was not written: {failures.recognised(problem) or repr(problem)}")
        return
    if path is not None:
        summary["report"] = str(path)
        to_stderr(f"report: {path}")


def _backfill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--category", action="append", help="category path, with all below it; repeatable")
    parser.add_argument("--updated-from", help="ISO date or time, inclusive")
    parser.add_argument("--updated-until", help="ISO date or time, exclusive")
    parser.add_argument("--product-id", action="append", help="product id; repeatable")
    parser.add_argument("--product-ids-file", help="file with one product id per line")
    parser.add_argument("--model-version", help="run this model version instead of the champion")
    parser.add_argument("--chunk-products", type=non_negative, help="products per chunk; each chunk is a run")
    parser.add_argument("--estimate", action="store_true", help="print the estimate and stop")
    parser.add_argument("--dry-run", action="store_true", help="print what would change; nothing is written")
    parser.add_argument("--no-report", action="store_true", help="do not write the HTML reports")


_BACKFILL_SETTINGS = {
    "category": "backfill.categories",
    "updated_from": "backfill.updated_from",
    "updated_until": "backfill.updated_until",
    "product_id": "backfill.product_ids",
    "product_ids_file": "backfill.product_ids_file",
    "chunk_products": "backfill.chunk_products",
    "model_version": "enrich.model_version",
}
"""Arguments of `backfill` -> the config keys that they set."""


@job(_backfill_arguments, _BACKFILL_SETTINGS)
def backfill(config: Config, args: argparse.Namespace) -> Summary:
    """Enrich a chosen slice of the catalog in resumable chunks, with an estimate first."""
    from catalog_enrichment.context import open_context, open_for_writing, recording_refusals
    from catalog_enrichment.enrichment import backfill as backfill_job
    from catalog_enrichment.enrichment import summary as run_summary
    from catalog_enrichment.report import run_report

    window = backfill_job.window_of(config)
    with recording_refusals(config, RunKind.BACKFILL, unless=args.dry_run or args.estimate):
        model = _resolve_model(config, args)
    if args.estimate:
        return {"status": "estimate"} | backfill_job.estimate(open_context(config, "backfill"), model, window)
    with open_for_writing(config, "backfill", args.dry_run) as context:
        summary = backfill_job.backfill(context, model, window, dry_run=args.dry_run)
    if not args.no_report and summary["status"] == RunStatus.SUCCEEDED:
        _write_page(summary, lambda: run_report.write_backfill_report(context.catalog, config, summary["run_id"]))
    run_summary.refuse_if_incomplete(summary)
    return summary


def _resolve_model(config: Config, args: argparse.Namespace) -> ResolvedModel:
    """Return the model version of this run (I3), checked against the dictionary and the clock."""
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.registry.model_registry import CHAMPION, Registry

    dictionary, registry = load_dictionary(config), Registry(config)
    version, alias = config.enrich.model_version, config.enrich.alias or CHAMPION
    try:
        model = registry.resolve(version=version or None, alias=alias)
    except NoModelError as problem:
        if version or alias != CHAMPION:
            raise
        newest = registry.newest()
        options = shlex.join([*config_options(args), *(["--version", newest] if newest else [])])
        command = f"{'promote_model' if newest else 'train_model'} {options}"
        raise NoModelError(f"there is no champion to score with. Next: {command} ({problem})") from problem
    usual = model.before_workers(config.enrich.compute_type)
    for warning in registry.check_validity(usual, dictionary, datetime.now(UTC)):
        to_stderr(f"warning: {warning}")
    return model
