"""The jobs that undo, correct, explain and export values, list runs, and clean the catalog up."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from catalog_enrichment.cli.audit import refresh_pages
from catalog_enrichment.cli.command import Summary, config_options, job, listed, non_negative, repeatable
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.records import RunKind, RunStatus, Source


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
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import commands, rollback
    from catalog_enrichment.operations.set_value import login_name

    if args.certificate and args.attribute:
        raise ConfigError("--attribute is for a run or a model version: a certificate is about one attribute")
    with open_for_writing(config, "rollback_run", args.dry_run) as context:
        if args.certificate:
            summary = rollback.revoke_certificate(context.catalog, args.certificate, login_name(), args.dry_run)
        elif args.model_version is not None:
            target = rollback.RollbackTarget(config.mlflow.model_name, args.model_version, args.attribute)
            summary = rollback.rollback_version(context.catalog, target, args.dry_run)
        else:
            summary = rollback.rollback_run(context.catalog, args.run_id, args.attribute, args.dry_run)
        if not args.dry_run:  # an audit that confirmed certificates may be undone
            refresh_pages(config, context.catalog)
        return commands.with_undo(summary, config_options(args))


def _set_value_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("product_id", metavar="PRODUCT_ID", help="of the product whose value is set")
    parser.add_argument("attribute", metavar="ATTRIBUTE", help="name in the dictionary")
    parser.add_argument(
        "values", metavar="VALUE", nargs="*", help="the right value, or all right values where there can be several"
    )
    parser.add_argument("--remove", action="store_true", help="there is no value, and no model is to write a value")
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
    with open_for_writing(config, "set_value", args.dry_run) as context:
        return correct.set_value(context, correction, args.dry_run, config_options(args))


def _maintain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what would be cleaned up; nothing is changed")
    parser.add_argument("--force", action="store_true", help="allow maintenance.retention_hours below 24")
    parser.add_argument(
        "--register", metavar="NAMESPACE",
        help="instead, register the tables by path in a metastore, as NAMESPACE.TABLE: SCHEMA, or CATALOG.SCHEMA of "
        "Unity Catalog; the statements are executed if Spark can, and printed",
    )  # fmt: skip
    parser.add_argument("--location", metavar="URI", help="with --register: the catalog's place for other engines")


@job(_maintain_arguments)
def maintain_catalog(config: Config, args: argparse.Namespace) -> Summary:
    """Clean up the catalog: files and checkpoints that nothing needs, small files, old log entries and rows."""
    from catalog_enrichment.context import open_for_writing
    from catalog_enrichment.operations import maintain

    if args.register:
        return _register(config, args)
    if args.location:
        raise ConfigError("--location needs --register")
    maintain.check_retention(config.maintenance, args.force)
    with open_for_writing(config, "maintain_catalog", args.dry_run) as context:
        return maintain.maintain_catalog(context, args.dry_run)


def _register(config: Config, args: argparse.Namespace) -> Summary:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.operations.register_tables import Registration, register_tables
    from catalog_enrichment.spark import session

    registration = Registration(namespace=args.register, location=args.location or "")
    start = None if args.dry_run else partial(session.start, config, "maintain_catalog")
    return register_tables(config, Catalog.of(config), registration, start)


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--product-id", required=True, metavar="ID", help="the product")
    parser.add_argument("--attribute", required=True, metavar="NAME", help="name in the dictionary")


@job(_explain_arguments)
def explain_value(config: Config, args: argparse.Namespace) -> Summary:
    """Say who wrote a value, why, with which certificate, its history, and how to undo it."""
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import explain

    context = open_context(config, "explain_value")
    return explain.explain_value(context, args.product_id, args.attribute, config_options(args))


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
        "--format", choices=("csv", "jsonl", "parquet", "xlsx"), help="default: that of PATH's suffix, else csv"
    )
    parser.add_argument("--titles", action="store_true", help="add the products' titles; xlsx always has them")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    repeatable(parser, "--attribute", help="only this attribute")
    repeatable(parser, "--category", help="category path, with all below it")
    repeatable(parser, "--shop", help="only products of this shop id")
    repeatable(parser, "--source", choices=[source.value for source in Source], help="who gave it")
    repeatable(parser, "--run", "--run-id", metavar="RUN_ID", help="only what this run or backfill wrote")


@job(_export_arguments)
def export_values(config: Config, args: argparse.Namespace) -> Summary:
    """Write what readers see to one file: each value with its product, who gave it, its score and its run."""
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import load_dictionary, open_context
    from catalog_enrichment.operations import exported_values

    target, kind = exported_values.destination(args.output, args.format)
    dictionary = load_dictionary(config)
    request = exported_values.ExportRequest(
        target=target,
        kind=kind,
        overwrite=args.overwrite,
        titles=args.titles,
        attributes=tuple(args.attribute),
        categories=tuple(args.category),
        shops=tuple(args.shop),
        sources=tuple(args.source),
        run_ids=tuple(args.run),
    )
    exported_values.check(Catalog.of(config), dictionary, request)
    return exported_values.export_values(open_context(config, "export_values").catalog, request)


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=non_negative, default=20, help="how many; default 20")
    repeatable(parser, "--kind", choices=[kind.value for kind in RunKind], help="only runs of this kind")
    repeatable(parser, "--status", choices=[status.value for status in RunStatus], help="only these")
    parser.add_argument("--json", action="store_true", help="put the runs into the JSON summary; no table")


@job(_runs_arguments)
def list_runs(config: Config, args: argparse.Namespace) -> Summary:
    """List the newest runs: what each did, or why it was refused or failed. A run in progress or a killed run is not
    listed."""
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.operations import run_list

    found = run_list.list_runs(Catalog.of(config), args.last, args.kind, args.status)
    return listed(found, "attempts", run_list.as_table, args.json)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_a", metavar="RUN_A", help="id of a run or backfill, as list_runs prints it")
    parser.add_argument("run_b", metavar="RUN_B", help="id of the run to compare it with")
    parser.add_argument(
        "--examples", type=non_negative, default=5, help="products listed per attribute and difference; default 5"
    )


@job(_compare_arguments)
def compare_runs(config: Config, args: argparse.Namespace) -> Summary:
    """Compare two runs: inputs, counts, decisions by reason, coverage, certificates and written values. Changes
    nothing."""
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import follow_dictionary
    from catalog_enrichment.operations import compare_runs as comparison
    from catalog_enrichment.operations import compared_runs_text

    catalog = Catalog.of(config)
    follow_dictionary(config, catalog)  # says which values are the same
    compared = comparison.compare_runs(catalog, args.run_a, args.run_b, args.examples, config_options(args))
    to_stderr(compared_runs_text.as_text(compared))
    return compared


def _empty_arguments(parser: argparse.ArgumentParser) -> None:
    repeatable(parser, "--attribute", help="only this attribute")
    parser.add_argument("--by", choices=("shop", "category"), help="count per shop or per category")
    parser.add_argument("--json", action="store_true", help="put the counts into the JSON summary; no table")


@job(_empty_arguments)
def list_empty(config: Config, args: argparse.Namespace) -> Summary:
    """Count the products without any value of an attribute, by reason, in the whole catalog. Changes nothing."""
    from catalog_enrichment.context import open_context
    from catalog_enrichment.operations import empty_values

    context = open_context(config, "list_empty")
    found = empty_values.empty_values(context.catalog, context.dictionary, config.enrich, args.attribute, args.by)
    return listed(found, "empty", empty_values.as_table, args.json)
