"""The jobs: each function is the ``main`` of a console script and of ``jobs/NAME.py``.

What they have in common, exit codes among it: :mod:`catalog_enrichment.command`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.cli_audit import audit_ingest, audit_sample, recertify_model, set_switch
from catalog_enrichment.cli_delivery import deliver_values, delivery_status, export_changes
from catalog_enrichment.cli_review import apply_requests, label_studio, offer_suggestions, serve_audit
from catalog_enrichment.command import Summary, ended, job, parser_of
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import RunKind, RunStatus, Source
from catalog_enrichment.stages import to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.registry.model_registry import Registry, ResolvedModel

__all__ = [
    "apply_requests", "audit_ingest", "audit_sample", "deliver_values", "delivery_status", "export_changes",
    "label_studio", "offer_suggestions", "recertify_model", "serve_audit", "set_switch",
]  # fmt: skip
"""Jobs of other files; the others are below."""


# --- start a project --------------------------------------------------------------------------------------------------


def init_project(argv: Sequence[str] | None = None) -> int:
    """Guess a config and a dictionary from a file of products (CSV, TSV, JSON lines, parquet), and write them."""
    parser = parser_of(init_project)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where config, dictionary, catalog and models go")
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE", help="the file with products")
    for option in ("id", "title", "description", "category", "shop", "image"):
        note = "" if option in ("id", "title") else "; '' for none"
        parser.add_argument(f"--{option}", metavar="COLUMN", help=f"the column, instead of a guess{note}")
    parser.add_argument("--attribute", action="append", metavar="COLUMN", help="these, instead of guesses; repeatable")
    parser.add_argument("--min-count", type=int, default=20, help="rows that a value needs (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a config and a dictionary in FOLDER")
    args = parser.parse_args(argv)

    def run(_: set[str]) -> Summary:
        from catalog_enrichment.ingest import guess, project

        columns = {name: getattr(args, option) for option, name in guess.OPTIONS.items()}
        columns = {name: column for name, column in columns.items() if column is not None}
        given = guess.Given(columns=columns, attributes=args.attribute, min_count=args.min_count)
        return project.init_project(
            project.Project(folder=args.folder, file=args.file, given=given, overwrite=args.overwrite)
        )

    return ended("init_project", run)


# --- import, train, compare, promote ----------------------------------------------------------------------------------


@job()
def import_products(config: Config, _: argparse.Namespace) -> Summary:
    """Pull products from the source into the catalog's products table; bad rows go to quarantine with a reason."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.ingest import job as import_job

    if config.source is None:
        raise ConfigError("the config has no [source] section: import_products does not know what to read")
    with open_for_writing(config, "import_products") as context:
        return import_job.import_products(context)


@job()
def train_model(config: Config, _: argparse.Namespace) -> Summary:
    """Train on the merchants' values, evaluate, certify, and register a new model version as the candidate."""
    from catalog_enrichment.training import job as training_job

    return training_job.train_model(config)


@job()
def compare_models(config: Config, _: argparse.Namespace) -> Summary:
    """Train the recipes of [compare] beside each other and write the tables; certifies and registers nothing."""
    from catalog_enrichment.comparison import job as comparison_job

    return comparison_job.compare_models(config)


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to-version", "--version", help="promote this version, older or newer, instead of the candidate alias's"
    )
    parser.add_argument("--expect-current", help="refuse unless this version is the champion now ('none': no champion)")
    parser.add_argument("--override", metavar="REASON", help="promote where the gate is inconclusive, and record why")
    parser.add_argument("--go-back", action="store_true", help="make the previous champion the champion again")
    parser.add_argument("--history", action="store_true", help="print all promotions, with their reasons, and stop")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the gate's verdict and what would change for readers, and stop"
    )
    parser.add_argument("--all-products", action="store_true", help="with --dry-run: score all products, not a sample")


@job(_promote_arguments)
def promote_model(config: Config, args: argparse.Namespace) -> Summary:
    """Compare the candidate with the champion by the promotion policy; if it passes, make it the champion."""
    from catalog_enrichment.registry import promotion
    from catalog_enrichment.registry.model_registry import PromotionRequest, Registry

    registry = Registry(config)
    if args.history:
        history = registry.history()
        for event in history:
            to_stderr(promotion.describe(event))
        return {"status": "history", "model_name": config.mlflow.model_name, "history": history}
    if args.go_back:
        return registry.go_back()
    request = PromotionRequest(
        version=args.to_version, expected_current=args.expect_current, dry_run=args.dry_run, override=args.override
    )
    summary = registry.promote_through_gate(request)
    return summary | _promotion_diff(config, registry, summary, args.all_products) if args.dry_run else summary


def _promotion_diff(config: Config, registry: Registry, gate: Summary, all_products: bool) -> Summary:
    """What the catalog's readers would see change after the promotion; empty if there are no products yet."""
    from catalog_enrichment.catalog.lake import LakeCatalog
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import promotion_diff

    if LakeCatalog.of(config).version("products") < 0:
        return {}
    model = registry.resolve(version=gate["model_version"])
    sampled_products = 0 if all_products else promotion_diff.SAMPLED_PRODUCTS
    context = open_context(config, "promote_model")
    return {"diff": promotion_diff.promotion_diff(context, model, gate, sampled_products)}


# --- enrich -----------------------------------------------------------------------------------------------------------


def _enrich_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would change; nothing is written")
    parser.add_argument("--max-products", type=_non_negative, help="score at most this many, newest first")
    parser.add_argument("--no-report", action="store_true", help="do not write the HTML report")


@job(_enrich_arguments)
def enrich_catalog(config: Config, args: argparse.Namespace) -> Summary:
    """Score every new, changed or unscored product with the champion and publish the values that are certified."""
    from catalog_enrichment.context import open_for_writing, recording_refusals
    from catalog_enrichment.enrichment import drift, pipeline
    from catalog_enrichment.enrichment.select import Window
    from catalog_enrichment.report import run as run_report

    with recording_refusals(config, RunKind.ENRICH, unless=args.dry_run):
        model = _resolve_model(config)
    limit = config.enrich.max_products if args.max_products is None else args.max_products
    with open_for_writing(config, "enrich_catalog") as context:
        summary = pipeline.enrich(context, model, Window(max_products=limit), dry_run=args.dry_run)
    _say_what_changed(summary)
    if not args.no_report and not args.dry_run and summary["run_id"]:
        summary["report"] = str(run_report.write_report(context.catalog, config, summary["run_id"]))
        to_stderr(f"report: {summary['report']}")
    drift.refuse_if_drifted(summary)
    return summary


def _say_what_changed(summary: Summary) -> None:
    """The table of a run on stderr, and what became of every product; nothing if there was nothing to do."""
    from catalog_enrichment.report.tables import attributes_table

    if not summary["attributes"]:
        return
    quarantined = sum(summary["quarantined"].values())
    to_stderr(
        f"\n{attributes_table(summary['attributes'])}\n\n{summary['products']:,} products = "
        f"{summary['predicted']:,} predicted + {summary['skipped']:,} skipped + {quarantined:,} quarantined"
    )


def _backfill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--category", action="append", help="category path, with all below it; repeatable")
    parser.add_argument("--updated-from", help="ISO date or time, inclusive")
    parser.add_argument("--updated-until", help="ISO date or time, exclusive")
    parser.add_argument("--product-id", action="append", help="product id; repeatable")
    parser.add_argument("--product-ids-file", help="file with one product id per line")
    parser.add_argument("--model-version", help="run this model version instead of the champion")
    parser.add_argument("--chunk-products", type=_non_negative, help="products per chunk; each chunk is a run")
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
    from catalog_enrichment.enrichment import drift
    from catalog_enrichment.report import run as run_report

    window = backfill_job.window_of(config)
    with recording_refusals(config, RunKind.BACKFILL, unless=args.dry_run or args.estimate):
        model = _resolve_model(config)
    if args.estimate:
        return {"status": "estimate"} | backfill_job.estimate(open_context(config, "backfill"), model, window)
    with open_for_writing(config, "backfill") as context:
        summary = backfill_job.backfill(context, model, window, dry_run=args.dry_run)
    if not args.no_report and summary["status"] == RunStatus.SUCCEEDED:
        summary["report"] = str(run_report.write_backfill_report(context.catalog, config, summary["run_id"]))
        to_stderr(f"report: {summary['report']}")
    drift.refuse_if_drifted(summary)
    return summary


def _resolve_model(config: Config) -> ResolvedModel:
    """The one model version of this run (I3), checked against the dictionary and the clock."""
    from catalog_enrichment.context import load_dictionary
    from catalog_enrichment.registry.model_registry import Registry

    dictionary, registry = load_dictionary(config), Registry(config)
    model = registry.resolve(version=config.enrich.model_version or None, alias=config.enrich.alias or None)
    registry.check_labels(model, dictionary)
    model = model.for_run(config.enrich.numeric_path, dictionary.enabled)
    for warning in registry.check_validity(model, dictionary, datetime.now(UTC)):
        to_stderr(f"warning: {warning}")
    return model


# --- operations -----------------------------------------------------------------------------------------------------


def _rollback_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run-id", help="the run to undo, or the backfill with all its chunks")
    what.add_argument(
        "--model-version", metavar="VERSION", help="undo every run of this version of `mlflow.model_name`, in one step"
    )
    what.add_argument("--certificate", metavar="ID", help="take back all that it allowed, and switch it off")
    parser.add_argument("--attribute", help="undo only this attribute")
    parser.add_argument("--dry-run", action="store_true", help="say what would be undone; nothing is written")


@job(_rollback_arguments)
def rollback_run(config: Config, args: argparse.Namespace) -> Summary:
    """Undo a run, a model version's runs or what a certificate allowed, or one attribute of them. Undoing a rollback
    brings the values back."""
    from catalog_enrichment.audit.take_back import take_back
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import rollback, version_rollback
    from catalog_enrichment.operations.set_value import login_name

    if args.certificate and args.attribute:
        raise ConfigError("--attribute is for a run or a model version: a certificate is about one attribute")
    with open_for_writing(config, "rollback_run") as context:
        if args.certificate:
            return take_back(context.catalog, args.certificate, login_name(), args.dry_run)
        if args.model_version is not None:
            model = version_rollback.ModelVersion(config.mlflow.model_name, args.model_version, args.attribute)
            return version_rollback.rollback_version(context.catalog, model, args.dry_run)
        return rollback.rollback_run(context.catalog, args.run_id, args.attribute, args.dry_run)


def _set_value_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("product_id", metavar="PRODUCT_ID", help="of the product whose value is set")
    parser.add_argument("attribute", metavar="ATTRIBUTE", help="name in the dictionary")
    parser.add_argument(
        "values", metavar="VALUE", nargs="*", help="the right value, or all right ones where there can be several"
    )
    parser.add_argument("--remove", action="store_true", help="there is no value, and no model is to write one")
    parser.add_argument("--reason", metavar="TEXT", help="why; explain_value prints it")
    parser.add_argument("--by", metavar="NAME", help="who says so; by default the login name")
    parser.add_argument("--dry-run", action="store_true", help="print what is and what would be; nothing is written")


@job(_set_value_arguments)
def set_value(config: Config, args: argparse.Namespace) -> Summary:
    """Correct or remove the value of one product's attribute. A person's word stands before a model's."""
    from catalog_enrichment.context import load_dictionary, open_for_writing
    from catalog_enrichment.operations import set_value as correct

    asked = {name: getattr(args, name) for name in ("product_id", "attribute", "remove", "reason")}
    by = correct.login_name() if args.by is None else args.by
    correction = correct.Correction(**asked, values=tuple(args.values), by=by)
    correction.check(load_dictionary(config))
    with open_for_writing(config, "set_value") as context:
        return correct.set_value(context, correction, args.dry_run, _config_options(args))


def _config_options(args: argparse.Namespace) -> list[str]:
    """The options that give another job the same config."""
    return ["--config", args.config, *(word for override in args.set for word in ("--set", override))]


def _maintain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would be cleaned up; nothing is changed")
    parser.add_argument("--force", action="store_true", help="allow maintenance.retention_hours below 24")


@job(_maintain_arguments)
def maintain_catalog(config: Config, args: argparse.Namespace) -> Summary:
    """Clean up the catalog: files and checkpoints that nothing needs, small files, old log entries and rows."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import maintain

    maintain.check_retention(config.maintenance, args.force)
    with open_for_writing(config, "maintain_catalog") as context:
        return maintain.maintain_catalog(context, args.dry_run)


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--product-id", required=True, metavar="ID", help="the product")
    parser.add_argument("--attribute", required=True, metavar="NAME", help="name in the dictionary")


@job(_explain_arguments)
def explain_value(config: Config, args: argparse.Namespace) -> Summary:
    """Say who wrote a value, why, with which certificate, its history, and how to undo it."""
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import explain

    context = open_context(config, "explain_value")
    return explain.explain_value(context, args.product_id, args.attribute, _config_options(args))


def _suggestions_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="folder to write; one file per shop inside")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")


@job(_suggestions_arguments)
def export_suggestions(config: Config, args: argparse.Namespace) -> Summary:
    """Write disagreements with merchants and near misses, a file per shop, best first, as CSV or parquet."""
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import suggestions

    context = open_context(config, "export_suggestions")
    return suggestions.export_suggestions(context.catalog, context.dictionary, Path(args.output).resolve(), args.format)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", "--output", dest="output", metavar="PATH", required=True,
        help="file to write, or folder in which to write values.FORMAT",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("csv", "jsonl", "parquet"), help="default: that of PATH's suffix, else csv"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument("--attribute", action="append", default=[], help="only this attribute; repeatable")
    parser.add_argument("--category", action="append", default=[], help="category path, with all below it; repeatable")
    parser.add_argument("--shop", action="append", default=[], help="only products of this shop id; repeatable")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        choices=[source.value for source in Source],
        help="who gave it; repeatable",
    )
    parser.add_argument(
        "--run", "--run-id", action="append", default=[], metavar="RUN_ID",
        help="only what this run or backfill wrote; repeatable",
    )  # fmt: skip


@job(_export_arguments)
def export_values(config: Config, args: argparse.Namespace) -> Summary:
    """Write what readers see to one file: each value with its product, who gave it, its score and its run."""
    from catalog_enrichment.catalog.lake import LakeCatalog
    from catalog_enrichment.context import load_dictionary, open_context
    from catalog_enrichment.operations import export, value_files

    target, kind = value_files.destination(args.output, args.format)
    request = export.ExportRequest(
        target=target,
        kind=kind,
        overwrite=args.overwrite,
        attributes=tuple(args.attribute),
        categories=tuple(args.category),
        shops=tuple(args.shop),
        sources=tuple(args.source),
        run_ids=tuple(args.run),
    )
    export.check(LakeCatalog.of(config), load_dictionary(config), request)
    return export.export_values(open_context(config, "export_values").catalog, request)


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=_non_negative, default=20, help="how many; default 20")
    parser.add_argument(
        "--kind", action="append", choices=[kind.value for kind in RunKind], help="only runs of this kind; repeatable"
    )
    parser.add_argument(
        "--status", action="append", choices=[status.value for status in RunStatus], help="only these; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="put the runs into the JSON summary; no table")


@job(_runs_arguments)
def list_runs(config: Config, args: argparse.Namespace) -> Summary:
    """List the newest runs: what each did, or why it was refused or failed. One that is going on or was killed is not
    listed."""
    from catalog_enrichment.catalog.lake import LakeCatalog
    from catalog_enrichment.operations import run_list

    catalog = LakeCatalog.of(config)
    found = run_list.list_runs(catalog, args.last, args.kind or (), args.status or ())
    if args.json:
        return {"status": RunStatus.SUCCEEDED, "attempts": found}
    to_stderr(run_list.as_table(found))
    return {"status": RunStatus.SUCCEEDED, "listed": len(found)}


def _non_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {number}")
    return number
